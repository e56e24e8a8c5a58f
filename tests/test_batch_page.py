"""The page that plays a batch: what it shows is the batch, and what comes from data stays text."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from page_of_batch import Page, rows_of
from streams import RATE, clips, memory

import s3prl_stream as ss
from s3prl_stream.batch_page.markup import escaped
from s3prl_stream.batch_page.media import Scale, as_int16, draw_features, draw_mask, draw_waveform, scale_of
from s3prl_stream.batch_page.page import write_batch_page
from s3prl_stream.cli import main
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.stage import Source
from s3prl_stream.sample import Sample
from s3prl_stream.shards.memory import MemoryShards

HOSTILE = "<script>window.hacked = 1</script>'\"&amp;<img src=x onerror=alert(1)>"


def speech_like(num_clips: int = 3) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(0)
    return {
        f"clip{number}": {
            "wav": rng.integers(-9000, 9000, 11_000 + 800 * number).astype(np.int16),
            "text": f"TEXT {number}",
        }
        for number in range(num_clips)
    }


def chain(data: Any, *, on_device: bool = False) -> Source:
    stream: Any = ss.ShardStream(data, seed=5, epochs=1, max_batch_seconds=20.0).load_audio().record_draws()
    stream = stream.mix_utterances(prob=0.7).perturb_speed(factors=(0.9, 1.1))
    if not on_device:
        stream = stream.chunk(min_seconds=0.3, tail="merge")
    stream = stream.on("cpu") if on_device else stream
    return stream.add_noise(snr=(3, 20), prob=0.6).features("logmel80").mask("tera", noise_prob=0.5)


def page_of(loader: ss.Loader, batch: int, path: Path) -> Page:
    rows = loader.which(batch)
    assert loader.which(batch, html=path) == rows
    return Page(path)


def test_the_page_shows_the_batch(tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    loader = ss.Loader(chain(speech_like()))
    page = page_of(loader, 0, tmp_path / "batch.html")
    batch = next(iter(loader))
    rows = loader.which(0)
    assert [clip["title"] for clip in page.clips] == [f"{n}. {row['key']}" for n, row in enumerate(rows, start=1)]
    assert all(str(row[name]) in page.text for row in rows for name in ("shard", "offset", "num_frames"))
    place = 0
    for clip, row in zip(page.clips, rows, strict=True):
        steps = clip["steps"]
        before = speech_like()[row["key"]]["wav"]
        assert np.array_equal(steps["read"]["sounds"][0][0], before)
        assert ("text", f"TEXT {row['key'][-1]}") in rows_of(steps["read"])
        assert steps["load_audio"]["sounds"] == [], "the same sound as floats"
        assert ("no longer there", "text") in rows_of(steps["chunk"]), "a piece has no text"
        cut = [sound for sound, _ in steps["chunk"]["sounds"]]
        whole = [*steps["mix_utterances"]["sounds"], *steps["perturb_speed"]["sounds"]][-1][0]
        assert np.array_equal(np.concatenate(cut), whole)
        pieces = range(place, place + len(cut))
        place += len(cut)
        noisy = [piece for piece in pieces if batch["draws"][piece]["add_noise"]["applied"]]
        heard = steps["add_noise"]["sounds"]
        assert len(heard) == len(noisy)
        for (sound, rate), piece in zip(heard, noisy, strict=True):
            assert rate == 16_000
            assert np.array_equal(sound, as_int16(batch["wav"][piece, : batch["wav_len"][piece]].numpy()))
        for name in ("mix_utterances", "perturb_speed"):
            assert set(drawn(batch["draws"][pieces[0]][name])) <= set(rows_of(steps[name]))
        for name in ("add_noise", "mask"):
            assert [row for piece in pieces for row in drawn(batch["draws"][piece][name])] == rows_of(steps[name])
        masks = [np.asarray(image.open(io.BytesIO(png))) for png in steps["mask"]["pictures"][1::2]]
        for mask, piece in zip(masks, pieces, strict=True):
            assert np.array_equal(mask.T[:, ::-1], batch["loss_mask"][piece, : batch["loss_mask_len"][piece]].numpy())
    assert place == len(batch["key"])


def drawn(draws: dict[str, Any]) -> list[tuple[str, str]]:
    return [(name, value if isinstance(value, str) else repr(value)) for name, value in draws.items()]


class Little(ss.Stage):
    """Makes new samples of a few values."""

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {"key": sample["key"], "slot": sample["slot"], "wav": sample["wav"]}


def test_a_stage_that_hands_on_few_values_is_shown(tmp_path: Path) -> None:
    few = Little()(ss.ShardStream(speech_like(1), epochs=1).load_audio())
    page = page_of(ss.Loader(few), 0, tmp_path / "batch.html")
    assert "sample_rate" in dict(rows_of(page.clips[0]["steps"]["Little"]))["no longer there"]


def test_behind_a_device_the_draws_are_the_same(tmp_path: Path) -> None:
    loader = ss.Loader(chain(speech_like(), on_device=True))
    page = page_of(loader, 0, tmp_path / "batch.html")
    batch = next(iter(loader))
    for clip, draws in zip(page.clips, batch["draws"], strict=True):
        for name in ("add_noise", "mask"):
            ours = {key: value for key, value in draws[name].items() if key != "seed"}
            assert set(drawn(ours)) <= set(rows_of(clip["steps"][name]))
    assert "white noise has other values than on the device" in page.text


def test_what_comes_from_data_stays_text(tmp_path: Path) -> None:
    sample = {"wav": np.ones(RATE, np.int16), "text": HOSTILE, HOSTILE: "\u202eabc \x00", "sample_rate": RATE}
    data = MemoryShards({HOSTILE: sample}, name=HOSTILE)
    stream = ss.ShardStream(data, epochs=1).load_audio(sample_rate=RATE)
    page = page_of(ss.Loader(stream), 0, tmp_path / "batch.html")
    assert {tag for tag, _ in page.tags}.isdisjoint({"script", "link", "iframe", "object", "base"})
    assert page.clips[0]["title"] == f"1. {HOSTILE}"
    assert {("text", HOSTILE), (HOSTILE, "\\u202eabc \\x00")} <= set(rows_of(page.clips[0]["steps"]["read"]))
    for tag, attributes in page.tags:
        assert not [name for name in attributes if name.startswith("on")]
        for name in ("src", "href"):
            assert attributes.get(name, "#").startswith(("data:", "#")), (tag, attributes)  # type: ignore[union-attr]
    assert ("meta", {"http-equiv": "Content-Security-Policy", "content":
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src data:"}) in page.tags  # fmt: skip


def test_text_that_no_file_can_hold() -> None:
    assert escaped("a\ud800\n<") == "a\\ud800\\n&lt;"
    assert escaped("x" * 1000) == f"{'x' * 400} ... (1000 characters)"


def test_what_is_left_out_and_what_is_damaged_is_shown_with_its_reason(tmp_path: Path) -> None:
    data: dict[str, Any] = clips([1.0] * 12)
    data["clip0003"] = {**data["clip0003"], "audio": b"not audio", "codec": "flac"}
    stream = ss.ShardStream(data, epochs=1, shuffle=False, max_batch_size=6).load_audio(sample_rate=RATE)
    loader = ss.Loader(stream.norm_wav(target_db=-25))
    loader.exclude(["clip0001"])
    loader.skip(1, 1)
    page = page_of(loader, 0, tmp_path / "batch.html")
    assert [clip["title"][3:] for clip in page.clips] == [row["key"] for row in loader.which(0)]
    assert "4 of 6 planned; 1 damaged, 1 left out" in page.text
    assert "excluded" in page.text
    assert "Damaged (decode): " in page.text
    bad = next(clip for clip in page.clips if clip["title"].endswith("clip0003"))
    assert list(bad["steps"]) == ["read", "load_audio"]
    assert bad["steps"]["load_audio"]["sounds"] == []
    (lost,) = [row for _ in [list(loader)] for row in loader.damaged]
    assert lost["message"] in page.text
    assert (lost["first_frame"], lost["num_frames"], lost["draw"]) == (0, RATE, 0)
    empty = page_of(loader, 1, tmp_path / "empty.html")
    assert empty.clips == []
    assert empty.text.count("skipped") == 6
    assert "nothing of it is delivered" in empty.text


def test_the_page_is_bounded_and_says_what_is_missing(tmp_path: Path) -> None:
    loader = ss.Loader(ss.ShardStream(memory([2.0] * 9), epochs=1).load_audio(sample_rate=RATE))
    rows = loader.which(0)
    builder = loader._builder
    _, planned, _ = next(iter(ss.loader.view(loader._planner.walk(), 0, 0, 1)))  # type: ignore[attr-defined]
    path = tmp_path / "batch.html"

    def write(**bounds: int) -> Page:
        write_batch_page(path, builder.root, builder.all_stages, planned, rows, [], **bounds)
        return Page(path)

    page = write(most_bytes=20_000)  # a clip is 5.4 kB
    assert 3 <= len(page.clips) < 6
    assert path.stat().st_size < 40_000
    assert f"{9 - len(page.clips)} of 9 clips are only listed" in page.text
    assert "The page is full" in page.text
    assert all(row["key"] in page.text for row in rows)
    few = write(most_clips=2)
    assert len(few.clips) == 2
    assert [attributes["href"] for tag, attributes in few.tags if tag == "a"] == ["#clip-1", "#clip-2"]
    assert "7 of 9 clips are only listed" in Page(path).text


def test_a_place_where_no_file_can_be_written(tmp_path: Path) -> None:
    loader = ss.Loader(ss.ShardStream(memory([1.0]), epochs=1).load_audio(sample_rate=RATE))
    for path in (tmp_path, tmp_path / "no" / "batch.html"):
        with pytest.raises(UsageError, match=r"batch\.html"):
            loader.which(0, html=path)


def test_the_command(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "batch.html"
    assert main(["which", str(sample_set), "--batch", "1", "--batch-seconds", "6", "--json", "--html", str(path)]) == 0
    shown = capsys.readouterr()
    rows = [json.loads(line) for line in shown.out.splitlines()]
    assert shown.err == f"{path}: {len(rows)} clips, {path.stat().st_size / 1e6:.1f} MB; open it in a browser\n"
    page = Page(path)
    assert [clip["title"].partition(" ")[2] for clip in page.clips] == [row["key"] for row in rows]
    lengths = [len(clip["steps"]["load_audio"]["sounds"][0][0]) for clip in page.clips]
    assert lengths == [row["num_frames"] for row in rows]
    assert main(["view", str(sample_set), "--batch", "1", "--batch-seconds", "6", "--html", f"{path}2"]) == 0
    assert capsys.readouterr() == ("", shown.err.replace("batch.html", "batch.html2"))
    assert Path(f"{path}2").read_bytes() == path.read_bytes()


def test_pictures() -> None:
    image = pytest.importorskip("PIL.Image")

    def pixels(png: bytes) -> Any:
        return np.asarray(image.open(io.BytesIO(png)).convert("RGB")).astype(int)

    feat_FD = np.linspace(-1, 1, 12, dtype=np.float32).reshape(4, 3)
    feat_FD[2, 1] = np.nan
    shown = pixels(draw_features(feat_FD, scale_of(feat_FD)))
    assert shown.shape == (3, 4, 3)
    red = (shown[..., 0] > 200) & (shown[..., 1:] < 60).all(axis=-1)
    assert np.argwhere(red).tolist() == [[1, 2]]  # bin 1 from below, frame 2
    light = np.delete(shown.sum(axis=-1)[::-1].T.ravel(), 7)  # without the red one
    assert (np.diff(light) >= 0).all()
    assert light[-1] > 3 * light[0]
    long_FD = np.zeros((2500, 600), bool)
    long_FD[1300, 0] = True
    mask = pixels(draw_mask(long_FD))
    assert mask.shape[:2] == (200, 834)
    assert np.argwhere(mask[..., 2] == 0).tolist() == [[199, 433]]
    assert scale_of(np.append(np.zeros(999), 1e6)) == (0.0, 0.0)  # of one value in a thousand all others would be dark
    uneven = draw_features(np.ones((1501, 1), np.float32), Scale(0.0, 1.0))  # the last of the neighbours is alone
    assert len(np.unique(pixels(uneven).reshape(-1, 3), axis=0)) == 1
    means = draw_features(np.repeat(np.arange(2.0), 1500)[:, None].astype(np.float32), scale_of(np.arange(2.0)))
    assert len(np.unique(pixels(means).reshape(-1, 3), axis=0)) == 2
    wave = pixels(draw_waveform(np.array([0, 100, -100, 50, 0], np.int16), 100, 160))
    rows = [np.flatnonzero(wave[:, column, 0] < 100).tolist() for column in range(5)]
    assert rows == [[24], [0], [47], [12], [24]]
    wave = pixels(draw_waveform(np.array([0, 0, 100, -100], np.int16), 100, 2))
    assert (wave[..., 0] < 100).sum(axis=0).tolist() == [1, 48]


def test_what_16_bits_cannot_hold_is_told(tmp_path: Path) -> None:
    wav = torch.tensor([0.5, 1.5, -2.0, float("nan")] * 100)
    stream = ss.ShardStream({"loud": {"wav": wav, "sample_rate": 8000}}, epochs=1).load_audio(sample_rate=8000)
    page = page_of(ss.Loader(stream), 0, tmp_path / "batch.html")
    sound, rate = page.clips[0]["steps"]["read"]["sounds"][0]
    assert (sound[:4].tolist(), rate) == ([16384, 32767, -32768, 0], 8000)
    assert as_int16(np.arange(-3, 4, dtype=np.float32) * 32765 / 3 / 32768)[[0, -1]].tolist() == [-32765, 32765]
    assert "200 samples beyond full scale" in page.text
    assert "100 samples are not finite" in page.text
