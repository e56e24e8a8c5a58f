"""Lengths from a table: what they save, when they are believed, and what a wrong one costs."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from apart import in_child
from audio.test_lengths import without_xing
from chaos.ranged_server import served
from streams import delivered
from tars import RATE, encoded, tar

import s3prl_stream as ss
from s3prl_stream.audio.lengths import clip_length
from s3prl_stream.hashing import key_hash
from s3prl_stream.indexing.foreign import IndexReport, index_tars
from s3prl_stream.indexing.table_lengths import FIRST_MEASURED, ONE_MEASURED_IN

NUM_TARS, NUM_CLIPS = 2, 12
KEYS = [f"i/k{number:03d}" for number in range(NUM_TARS * NUM_CLIPS)]  # of which each tar has one that is spot-checked
CHECKED = {key for at, key in enumerate(KEYS) if at % NUM_CLIPS < FIRST_MEASURED or not key_hash(key) % ONE_MEASURED_IN}


@functools.cache
def audio_of(kind: int, codec: str, seconds: int) -> bytes:
    data = encoded(codec.split()[0], seconds * RATE + 37 * kind, seed=kind)
    return without_xing(data) if codec == "mp3 without a count" else data


def make_tars(folder: Path, codec: str, seconds: int = 4) -> dict[str, float]:
    """Two tars; the duration of each clip."""
    folder.mkdir()
    durations = {}
    for shard in range(NUM_TARS):
        members = []
        for number in range(shard * NUM_CLIPS, (shard + 1) * NUM_CLIPS):
            data = audio_of(number % 3, codec, seconds)
            suffix = codec.split()[0]
            length = clip_length(lambda at, size, data=data: data[at : at + size], len(data), suffix)
            durations[KEYS[number]] = length.frames / length.sample_rate
            members += [(f"{KEYS[number]}.{suffix}", data), (f"{KEYS[number]}.json", b"{}")]
        (folder / f"x-{shard}.tar").write_bytes(tar(members))
    return durations


def rows_hashes(index: Path) -> list[str]:
    """Of each tar: of all that tells its clips but what a table says of them."""
    return [shard["rows_hash"] for shard in json.loads((index / "manifest.json").read_text())["shards"]]


def nemo(path: Path, durations: dict[str, float]) -> Path:
    rows = [{"audio_filepath": f"{key}.wav", "duration": seconds, "text": ""} for key, seconds in durations.items()]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def lhotse(path: Path, durations: dict[str, float]) -> Path:
    rows = [
        {"id": key.partition("/")[2], "start": 0, "duration": round(seconds, 8), "channel": 0, "supervisions": []}
        for key, seconds in durations.items()
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def counts(path: Path, durations: dict[str, float]) -> Path:
    rows = [f"{key},{round(seconds * RATE)},{RATE}\n" for key, seconds in durations.items()]
    path.write_text("".join(["key,num_samples,sampling_rate\n", *rows]))
    return path


def told(report: IndexReport) -> dict[str, Any]:
    assert report.table is not None
    return {name: report.table[name] for name in ("lengths_believed", "lengths_measured", "tars_that_differ")}


@pytest.mark.parametrize(
    ("codec", "table", "seconds", "requests_saved", "bytes_saved"),
    [("ogg", nemo, 12, 0.25, 0.3), ("opus", lhotse, 24, 0.25, 0.3), ("mp3", counts, 12, 0.25, 0.3),
     ("mp3 without a count", nemo, 12, 0.25, 0.3)],
)  # fmt: skip
@in_child
def test_what_a_table_saves(
    tmp_path: Path, codec: str, table: Any, seconds: int, requests_saved: float, bytes_saved: float
) -> None:
    path = table(tmp_path / "table", make_tars(tmp_path / "tars", codec, seconds))
    with served(tmp_path / "tars") as (url, proxy, _):
        used = []
        for durations in (None, path):
            before = len(proxy.requests)
            report = index_tars(
                f"{url}/x-{{0..1}}.tar", tmp_path / f"{durations is None}", name="s", durations=durations
            )
            gets = [one for one in proxy.requests[before:] if one.method == "GET"]
            used.append((len(gets), sum(one.bytes_sent for one in gets)))
    print(codec, used)
    assert told(report) == {
        "lengths_believed": len(KEYS) - len(CHECKED), "lengths_measured": len(CHECKED), "tars_that_differ": [],
    }  # fmt: skip
    assert report.manifest["indexed"]["lengths_of_table"] == len(KEYS) - len(CHECKED)
    measured, believed = (ss.open_shards(tmp_path / name) for name in ("True", "False"))
    assert rows_hashes(tmp_path / "False") == rows_hashes(tmp_path / "True")
    columns = ["key", "frames", "sample_rate", "offset", "size"]
    assert believed.table().select(columns).equals(measured.table().select(columns))
    assert used[1][0] <= used[0][0] * (1 - requests_saved)
    assert used[1][1] <= used[0][1] * (1 - bytes_saved)


def test_a_table_that_rounds_is_not_believed_and_another_tar_is(tmp_path: Path) -> None:
    durations = make_tars(tmp_path / "tars", "ogg")
    rounded = {key: round(seconds, 2 if key < KEYS[NUM_CLIPS] else 9) for key, seconds in durations.items()}
    report = index_tars(tmp_path / "tars", tmp_path / "a", name="s", durations=nemo(tmp_path / "t", rounded))
    assert told(report)["tars_that_differ"] == ["x-0.tar"]
    assert report.table is not None
    assert report.table["first_wrong_length"].startswith("x-0.tar: 'i/k00")
    assert "in the table, the audio has" in report.table["first_wrong_length"]
    assert told(report)["lengths_believed"] == len(set(KEYS[NUM_CLIPS:]) - CHECKED)
    ss.index_shards(tmp_path / "tars", tmp_path / "b", name="s")
    assert rows_hashes(tmp_path / "a") == rows_hashes(tmp_path / "b")


def test_what_the_table_does_not_tell_is_measured_and_full_measures_all(tmp_path: Path) -> None:
    durations = make_tars(tmp_path / "tars", "mp3")
    left = next(key for key in KEYS[:NUM_CLIPS] if key not in CHECKED)
    path = nemo(tmp_path / "t", {key: seconds for key, seconds in durations.items() if key != left})
    measured = ss.index_shards(tmp_path / "tars", tmp_path / "b", name="s")
    for full, believed in ((False, len(KEYS) - len(CHECKED) - 1), (True, 0)):
        report = index_tars(tmp_path / "tars", tmp_path / f"{full}", name="s", durations=path, full=full, num_workers=1)
        assert told(report)["lengths_believed"] == believed
        frames = ss.open_shards(tmp_path / f"{full}").table().column("frames")
        assert frames.equals(measured.table().column("frames"))


@pytest.mark.parametrize("cut", [{}, {"chunk_seconds": 1.5}, {"crop_seconds": 1.0}])
@pytest.mark.parametrize("codec", ["ogg", "mp3 without a count"])
def test_a_wrong_length_costs_its_clip_alone(tmp_path: Path, codec: str, cut: dict[str, float]) -> None:
    """One is told to be longer than it is, one shorter; both were believed."""
    durations = make_tars(tmp_path / "tars", codec)
    longer, shorter, *_ = [key for key in KEYS if key not in CHECKED]
    wrong = {**durations, longer: durations[longer] + 0.4, shorter: durations[shorter] - 0.4}
    report = index_tars(tmp_path / "tars", tmp_path / "a", name="s", durations=nemo(tmp_path / "t", wrong))
    assert told(report)["tars_that_differ"] == []
    loader = ss.Loader(ss.ShardStream(tmp_path / "a", epochs=1, max_batch_seconds=13.0, **cut).load_audio())
    batches = list(loader)
    got = {row[0] for batch in batches for row in delivered(batch)[1]}
    lost = {(one["key"], one["reason"]) for one in loader.damaged}
    escaped = {key: key.replace("/", "+") for key in (longer, shorter)}
    if not cut:
        assert lost == {(escaped[longer], "differs"), (escaped[shorter], "differs")}
        assert len(got) == len(KEYS) - 2
    elif codec == "ogg":  # whose header tells it to each piece
        assert {key for key, _ in lost} == set(escaped.values())
        assert len(got) == len(KEYS) - 2
    else:  # pieces that are decoded to the end of the clip tell
        assert {key for key, _ in lost} <= set(escaped.values())
        assert got >= {key.replace("/", "+") for key in durations} - set(escaped.values())
    assert all(len(batch["wav"]) == len(batch["key"]) for batch in batches)
    found = ss.verify(tmp_path / "a", full=True)
    assert {(one.key, one.reason) for one in found.findings} == {(key, "differs") for key in escaped.values()}


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from s3prl_stream.cli import main

    durations = make_tars(tmp_path / "tars", "ogg")
    for decimals, line in (
        (9, f"lengths: {len(KEYS) - len(CHECKED)} are the table's, {len(CHECKED)} were compared"),
        (1, "lengths: in 2 tars the table is wrong, and the audio was measured; such as x-0.tar: "),
    ):
        path = nemo(tmp_path / "t", {key: round(seconds, decimals) for key, seconds in durations.items()})
        out = str(tmp_path / f"{decimals}")
        assert main(["index", str(tmp_path / "tars"), "--out", out, "--workers", "0", "--durations", str(path)]) == 0
        assert line in capsys.readouterr().out
