"""The comparison with other loaders: what needs none of them. The rest is a measurement, `tools/bench peers`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import s3prl_stream as ss

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from peers import clips, compare, measure, tables, two_days
from peers.loaders import PEERS

DECODERS = ("dr_flac", "soundfile", clips.INT16)


def test_clips_are_those_of_the_set(sample_set: Path) -> None:
    shards = ss.open_shards(sample_set)
    rows = shards.table().to_pylist()
    found = {clip.key: clip for clip in clips.read_clips(sample_set)}
    assert len(found) == len(rows)
    for row in rows:
        clip = found[row["key"]]
        assert clip.seconds == pytest.approx(row["frames"] / row["sample_rate"])
        assert clip.speaker == row["speaker"]


@pytest.mark.parametrize("decoder", DECODERS)
def test_all_decoders_give_the_same_waveform(sample_set: Path, decoder: str) -> None:
    clip = next(clips.read_clips(sample_set))
    wav = clips.decode(clip.flac, decoder)
    assert len(wav) == round(clip.seconds * clips.SAMPLE_RATE)
    scale = 32768 if decoder == clips.INT16 else 1
    assert (wav == scale * clips.decode(clip.flac, "dr_flac")).all()


def test_each_loader_is_measured_by_the_same_decoder_and_peers_once_more_by_their_usual_one() -> None:
    names = [*compare.OURS, "webdataset"]
    assert [compare.decoder_of(name) for name in names] == ["dr_flac", clips.INT16, "dr_flac"]
    for timed_only, of_peer in ((False, "speed-cpu-usual"), (True, "speed-cpu")):
        alone = [compare.case_of(name, 0, timed_only) for name in names]
        assert alone == ["speed-cpu", "speed-cpu", of_peer]
        assert {compare.case_of(name, 2, timed_only) for name in names} == {"speed"}


def test_each_loader_is_held_against_a_bare_decode_to_what_it_gives() -> None:
    def rounds(cpu: float, bare: float, **usual: dict[str, float]) -> list[dict[str, object]]:
        common = {"hours_per_second": 2.0, "first_batch_s": 3.0, "peak_mb": 500.0, **usual}
        return [{**cpu_of(cpu, bare), **common}, {**cpu_of(cpu + 1, bare), **common}]

    def cpu_of(cpu: float, bare: float) -> dict[str, float]:
        return {"cpu_s_per_hour": cpu, "decode_cpu_s_per_hour": bare}

    with_workers = [{"hours_per_second": 4.0}]
    speeds = {
        ("s3prl_stream", 0): rounds(5.0, 3.0),
        ("s3prl_stream, int16", 0): rounds(3.5, 2.0),
        ("webdataset", 0): rounds(6.0, 3.5, soundfile=cpu_of(9.0, 4.0)),
        **{(name, 2): with_workers for name in ("s3prl_stream", "s3prl_stream, int16", "webdataset")},
    }
    bare = compare.bare_decoding(speeds)
    assert {decoder: one["each"] for decoder, one in bare.items()} == {
        "dr_flac": [3.0, 3.0, 3.5, 3.5],
        clips.INT16: [2.0, 2.0],
        "soundfile": [4.0, 4.0],
    }
    found = {name: compare.costs(name, speeds) for name, workers in speeds if workers}
    over = {name: one["dr_flac"]["overhead_cpu_s_per_hour"]["each"] for name, one in found.items()}
    assert over == {"s3prl_stream": [2.0, 3.0], "s3prl_stream, int16": [1.5, 2.5], "webdataset": [2.5, 3.5]}
    assert found["webdataset"]["soundfile"]["overhead_cpu_s_per_hour"]["each"] == [5.0, 5.0]
    assert "soundfile" not in found["s3prl_stream"]
    assert found["webdataset"]["hours_per_second_0_workers"]["each"] == [2.0, 2.0]
    assert found["webdataset"]["hours_per_second_2_workers"]["each"] == [4.0]


def test_figures_of_known_batches() -> None:
    about = {key: (1.0, key[0], 0, 100) for key in ("a1", "a2", "b1", "b2")}
    first = [(["a1", "b1"], [1.0, 3.0]), (["a2", "b2"], [2.0, 2.0])]
    second = [(["a1", "b1"], [1.0, 3.0]), (["a2"], [2.0]), (["b2"], [2.0])]
    found = compare.quality([first, second], about)
    assert found["padding"] == pytest.approx(1 - 8 / 10)
    assert found["filled"] == pytest.approx(5 / 6)
    assert found["used"] == pytest.approx((8 / 2) / 6)
    assert found["repeated_pairs"] == 0.5
    assert compare.ledger(["a1", "a1", "b1"], about) == {"twice": 1, "lost": 2}
    two_epochs = ["a1", "b1", "a1", "a2", "b2", "a2", "b1", "b2"]
    assert compare.ledger(two_epochs, about) == {"twice": 0, "lost": 0}
    assert compare.ledger([*two_epochs[:-1], "a1"], about) == {"twice": 1, "lost": 1}
    assert compare.ledger(two_epochs[:-1], about) == {"twice": 3, "lost": 0}


def test_every_loader_of_the_table_is_there() -> None:
    assert [*compare.OURS, *compare.PEERS] == list(PEERS)


def spread(median: float) -> dict[str, float]:
    return {"median": median, "min": median - 0.01, "max": median + 0.01}


def measured(overhead: float, store: dict[str, object] | None, **more: object) -> dict[str, object]:
    cost = {"overhead_cpu_s_per_hour": spread(overhead)}
    speed = {f"hours_per_second_{workers}_workers": spread(1.0 / overhead) for workers in (0, 2)}
    waste = {"padding": 0.1, "filled": 0.9, "used": 0.81, "repeated_pairs": 0.2, "speakers_of_uniform": 1.0}
    two_workers = {"twice": 1, "lost": 2}
    times = {"first_batch_s": spread(2.0), "peak_mb": spread(500.0), **speed, **waste, "two_workers": two_workers}
    return {"dr_flac": cost, **times, **({} if store is None else {"store": store}), **more}


def test_the_section_for_the_readme_has_every_figure_and_marks_the_best() -> None:
    resumed = {share: {"requests": 10 * place, "mb_read_again": 0.5 * place} for place, share in enumerate("abc")}
    asked = {"requests_per_hour": 84.0, "mb_per_hour": 64.0, "mb_per_hour_of_audio": 63.0, "resumed": resumed}
    soundfile = {"overhead_cpu_s_per_hour": spread(0.4)}
    loaders = {
        "s3prl_stream": measured(0.1, asked, padding=0.02, resumed_0_workers={"twice": 0, "lost": 0}),
        "s3prl_stream, int16": measured(0.09, None),
        "files + DataLoader": measured(0.2, {"why_not": "reads no store"}),
        "webdataset": measured(0.05, {**asked, "requests_per_hour": 5.0, "resumed": {}}),
        "HF datasets": measured(
            0.3, asked, soundfile=soundfile, padding=0.2, resumed_2_workers={"twice": 0, "lost": 128}
        ),
    }
    bare = {decoder: spread(0.3) for decoder in DECODERS}
    found = {
        "loaders": loaders,
        "bare_decode_cpu_s_per_hour": bare,
        "versions": {"torch": "2.11.0"},
        "date": "2026-11-25",
    }
    about = {"commit": "abc1234", "machine": "2 x CPU", "python": "3.11", "clips": 10, "hours": 1.5, "rounds": 5}
    lines = tables.section({**found, **about}).splitlines()
    rows = {line.split(" | ")[0].strip("| "): [] for line in lines if line.startswith("| ")}
    for line in lines:
        if line.startswith("| "):
            name, *cells = line.strip("| ").split(" | ")
            rows[name] += cells
    assert rows["webdataset"][:3] == ["**0.05 (0.04 to 0.06)**", "-", "**20.00 (19.99 to 20.01)**"]
    waste = ["**2.0%**", "**0.90**", "**0.81**", "**0.20**", "**1.00**", "1 / 2", "0 / 0", "no resume"]
    assert rows["s3prl_stream"][6:14] == waste
    assert rows["s3prl_stream"][14:] == ["84", "**64.0**", "0.0 / 0.5 / 1.0", "0 / 10 / 20"]
    assert rows["webdataset"][14:] == ["**5**", "**64.0**", "no resume: all of it", "-"]
    assert rows["files + DataLoader"][14:] == ["reads no store", "-", "-", "-"]
    text = " ".join(lines)
    assert "HF datasets: its shuffle buffer is not in its state." in text
    assert "Lhotse" not in text
    assert "Ours is 2.00 of the smallest peer's (webdataset), with both spreads 1.50 to 2.75." in text
    assert lines[-1] == (
        "Ahead of us: webdataset in over dr_flac, CPU s/h (it reads without checksums); webdataset in h/s, 0 workers; "
        "webdataset in h/s, 2 workers; webdataset in requests an hour (one for a shard, so look at what is read again)."
    )
    assert "2026-11-25, commit abc1234, 2 x CPU: 10 clips, 1.50 h" in text


def test_each_batch_of_a_loader_is_held_against_decoding_its_clips_alone(
    sample_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bodies = {clip.key: clip.flac for clip in clips.read_clips(sample_set)}
    first, second, *_ = bodies
    happened: list[object] = []
    used = 0.0  # CPU seconds
    monkeypatch.setattr(measure, "stay_on_one_cpu", lambda: None)  # the tests that follow need both
    monkeypatch.setattr(measure, "cpu_seconds", lambda: used)
    monkeypatch.setattr(measure.time, "thread_time", lambda: used)

    def decode(flac: bytes, decoder: str) -> None:
        nonlocal used
        happened.append((flac, decoder))
        used += 2.0

    monkeypatch.setattr(clips, "decode", decode)

    class TwoBatches:
        decoder = "dr_flac"

        def batches(self, epoch: int) -> Iterator[clips.Batch]:
            nonlocal used
            happened.append(epoch)
            used += 5.0 + epoch
            yield clips.Batch([first], [1800.0], None)
            used += 0.5
            yield clips.Batch([second], [1800.0], None)

    peer = TwoBatches()
    found = measure.cpu(peer, measure.Floor(sample_set, "dr_flac"), (1, 2))
    alone = [(bodies[first], "dr_flac"), (bodies[second], "dr_flac")]
    assert happened == [1, *alone, 2, *alone]
    assert found == {"cpu_s_per_hour": 7.0, "decode_cpu_s_per_hour": 4.0}  # an hour an epoch
    happened.clear()
    measure.cpu_by_usual_decoder(peer, sample_set, 3)
    assert peer.decoder == "soundfile"
    assert happened[1:] == [3, *((flac, "soundfile") for flac, _ in alone)]  # behind one that imports it


def test_every_file_is_forgotten_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    contents = {tmp_path / "a.tar": b"a" * 3_000_000, tmp_path / "below" / "b": b"", tmp_path / "below" / "c": b"c"}
    for path, content in contents.items():
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content)
    forgotten: list[int] = []
    forget = os.posix_fadvise

    def counting(file: int, *args: int) -> None:
        forgotten.append(os.fstat(file).st_size)
        forget(file, *args)

    monkeypatch.setattr(os, "posix_fadvise", counting)
    compare.read_anew([tmp_path, tmp_path / "none"])
    assert sorted(forgotten) == [0, 1, 3_000_000]
    assert all(path.read_bytes() == content for path, content in contents.items())


def test_two_days_agree_where_the_later_ratio_is_within_the_earlier_spread() -> None:
    def run(ours: float, theirs: float, date: str) -> dict[str, object]:
        loaders = {"s3prl_stream": measured(ours, None), "webdataset": measured(theirs, None)}
        for one in loaders.values():
            one["dr_flac"]["cpu_s_per_hour"] = spread(0.5)
        return {"loaders": loaders, "date": date, "commit": "abc1234"}

    earlier, later = run(0.10, 0.20, "2026-11-25"), run(0.12, 0.20, "2026-11-26")
    found = {one.figure: one for one in two_days.agreements(earlier, later)}
    over = found["over dr_flac"]
    assert (over.earlier, over.later) == pytest.approx((0.5, 0.6))
    assert (over.lowest, over.highest) == pytest.approx((0.09 / 0.21, 0.11 / 0.19))
    assert not over.holds
    assert found["peak memory"].holds
    assert "3 of 6 ratios are within" in two_days.report(earlier, later)
    assert len([line for line in two_days.report(earlier, later).splitlines() if line.endswith("| outside |")]) == 3
    assert over._replace(later=0.584).holds  # 0.58 as printed, as the end of the spread
    assert not over._replace(later=0.586).holds


def test_joined_runs_have_the_spread_of_the_rounds_of_both() -> None:
    def run(each: list[float], commit: str, **more: object) -> dict[str, object]:
        loaders = {"s3prl_stream": {"peak_mb": compare.spread(each), "padding": 0.1 * len(each)}}
        same = {"clips": 2, "hours": 1.5, "machine": "2 x CPU", "python": "3.11", "versions": {"torch": "2.11.0"}}
        return {**same, "loaders": loaders, "rounds": len(each), "date": "2026-11-25", "commit": commit, **more}

    found = two_days.joined(run([3.0, 1.0, 2.0], "abc1234"), run([9.0, 4.0], "def5678"))
    each = [3.0, 1.0, 2.0, 9.0, 4.0]
    expected = {"peak_mb": {"median": 3.0, "min": 1.0, "max": 9.0, "each": each}, "padding": 0.2}
    assert found["loaders"] == {"s3prl_stream": expected}
    assert (found["rounds"], found["date"], found["commit"]) == (5, "2026-11-25", "abc1234 and def5678")
    timed_only = run([9.0], "def5678")
    del timed_only["loaders"]["s3prl_stream"]["padding"]  # type: ignore[index]
    assert two_days.joined(run([3.0], "abc1234"), timed_only)["loaders"]["s3prl_stream"]["padding"] == 0.1
    with pytest.raises(ValueError, match=r"differ in machine are not joined: 2 x CPU and 4 x CPU"):
        two_days.joined(run([1.0], "abc1234"), run([1.0], "def5678", machine="4 x CPU"))
