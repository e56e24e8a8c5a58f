"""Other loaders, simulated: the batches are those of the rules, and `plan` prints them beside ours."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from streams import memory
from synthetic_index import make_synthetic_index

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import UsageError
from s3prl_stream.plan import decode_cores, old_loaders
from s3prl_stream.plan.decode_cores import measure_decode_cores
from s3prl_stream.plan.old_loaders import Clips, OldSettings, batches_of, gather_clips, parse_old, simulate
from s3prl_stream.plan.planner import EpochPlanner
from s3prl_stream.stream import ShardStream


def clips_of(seconds: list[float], per_shard: int = 8, num_speakers: int = 5) -> Clips:
    number = np.arange(len(seconds))
    lengths = np.array(seconds)
    return Clips(lengths, lengths, number // per_shard, number % num_speakers, True)


def planner_of(stream: ShardStream) -> EpochPlanner:
    planner = stream.planner()
    assert isinstance(planner, EpochPlanner)
    return planner


old = st.builds(
    OldSettings,
    batch_size=st.integers(1, 9),
    shuffle_buffer=st.integers(0, 40),
    max_duration=st.one_of(st.none(), st.floats(4.0, 40.0)),
    num_buckets=st.integers(1, 6),
    buffer_size=st.integers(1, 40),
    quadratic_duration=st.one_of(st.none(), st.floats(5.0, 40.0)),
)


@given(st.lists(st.floats(0.2, 9.0), min_size=1, max_size=80), old, st.integers(0, 99))
@hypothesis_settings(max_examples=60)
def test_every_clip_once_within_the_budget(seconds: list[float], settings: OldSettings, seed: int) -> None:
    clips = clips_of(seconds)
    for epoch in range(2):
        batches = batches_of(clips, settings, seed, epoch)
        assert sorted(np.concatenate(batches).tolist()) == list(range(len(seconds)))
        assert settings.batch_size is not None
        assert max(map(len, batches)) <= settings.batch_size
        if settings.max_duration is not None:
            quadratic = settings.quadratic_duration
            cost = clips.seconds if quadratic is None else clips.seconds + clips.seconds**2 / quadratic
            for batch in batches:  # the last clip may be longer than those before it: so does Lhotse
                assert len(batch) == 1 or len(batch) * cost[batch[:-1]].max() <= settings.max_duration


def test_buckets_keep_to_their_own_lengths_and_may_go_over_by_the_last_clip() -> None:
    rng = np.random.default_rng(0)
    clips = clips_of(rng.uniform(1.0, 20.0, 2000).tolist(), per_shard=100)
    settings = OldSettings(max_duration=100.0, num_buckets=10)
    batches = batches_of(clips, settings, 0, 0)
    assert np.mean([np.ptp(clips.seconds[batch]) for batch in batches]) < 2.0  # uniform: 19
    means = [clips.seconds[batch].mean() for batch in batches]
    assert abs(np.corrcoef(means, np.arange(len(means)))[0, 1]) < 0.3  # any bucket at any time
    padded = np.array([len(batch) * clips.seconds[batch].max() for batch in batches])
    assert padded.max() < 130.0
    assert np.mean(padded <= 100.0) > 0.9
    small = batches_of(clips, OldSettings(max_duration=100.0, num_buckets=10, buffer_size=10), 0, 0)
    assert len(small) > 1.2 * len(batches)  # too small a buffer fills no batch


def test_a_buffer_holds_clips_back_and_never_lets_them_go_before_it_is_full() -> None:
    clips = clips_of([1.0] * 400, per_shard=400)
    in_order = np.concatenate(batches_of(clips, OldSettings(batch_size=7), 0, 0))
    assert in_order.tolist() == list(range(400))
    mixed = np.concatenate(batches_of(clips, OldSettings(batch_size=7, shuffle_buffer=50), 0, 0))
    assert (mixed <= np.arange(400) + 49).all()
    assert np.abs(mixed - np.arange(400)).mean() > 20


def test_measures_of_known_batches() -> None:
    quality = simulate(clips_of([1.0, 3.0, 1.0, 3.0], per_shard=2), OldSettings(batch_size=2))
    assert (quality.batches, quality.clips, quality.clips_per_batch) == (2, 4, 2.0)
    assert quality.padding == pytest.approx(1 - 8 / 12)
    assert (quality.budget_filled, quality.largest_batch_seconds) == (1.0, 6.0)
    assert quality.repeated_pairs == 1.0  # without a buffer neighbours meet in every epoch
    assert quality.speakers_per_batch == 2.0
    assert quality.reads_per_hour == pytest.approx(2 / (8 / 3600))
    part = clips_of([1.0, 3.0])._replace(is_whole_set=False, speaker=None)
    quality = simulate(part, OldSettings(batch_size=2))
    assert (quality.repeated_pairs, quality.speakers_per_batch, quality.speakers_vs_uniform) == (None, None, None)


def test_measures_of_buckets_speakers_and_a_buffer() -> None:
    clips = clips_of([1.0] * 8)._replace(speaker=np.repeat([0, 1], 4))
    assert simulate(clips, OldSettings(max_duration=10.0)).budget_filled == pytest.approx(0.8)
    apart = simulate(clips, OldSettings(batch_size=4))
    assert (apart.speakers_per_batch, apart.clips_per_batch) == (1.0, 4.0)
    assert apart.speakers_vs_uniform is not None
    assert apart.speakers_vs_uniform < 1
    many = clips_of([1.0] * 400, per_shard=20)
    mixed = simulate(many, OldSettings(batch_size=8, shuffle_buffer=200)).repeated_pairs
    assert mixed is not None
    assert mixed < 0.2  # another epoch, another order
    orders = [np.concatenate(batches_of(many, OldSettings(batch_size=20), 0, epoch))[::20].tolist() for epoch in (0, 1)]
    assert orders[0] != orders[1] != list(range(0, 400, 20))


def test_of_a_large_set_whole_blocks_are_simulated(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = ShardStream(memory([1.0] * 64), block_samples=16, max_batch_seconds=9.0)
    whole = gather_clips(planner_of(stream))
    assert (len(whole.seconds), len(np.unique(whole.shard)), whole.is_whole_set) == (64, 4, True)
    monkeypatch.setattr(old_loaders, "MAX_CLIPS", 20)
    part = gather_clips(planner_of(stream))
    assert (len(part.seconds), len(np.unique(part.shard)), part.is_whole_set) == (32, 2, False)


def test_clips_are_those_of_the_stream(sample_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen = ShardStream(sample_set, where="speaker != 'ada'", crop_seconds=0.4)
    clips = gather_clips(planner_of(chosen))
    rows = [row for row in chosen.shards.table().to_pylist() if row["speaker"] != "ada"]
    assert sorted(clips.whole_seconds) == pytest.approx(sorted(row["seconds"] for row in rows))
    assert sorted(clips.seconds) == pytest.approx(sorted(min(row["seconds"], 0.4) for row in rows))
    assert clips.speaker is not None
    assert (len(np.unique(clips.speaker)), len(np.unique(clips.shard))) == (len({row["speaker"] for row in rows}), 5)
    quality = simulate(clips, OldSettings(batch_size=8))
    assert quality.decoded_seconds == pytest.approx(sum(clips.whole_seconds) / sum(clips.seconds))
    cores = measure_decode_cores(planner_of(chosen))
    assert cores is not None
    assert cores.clips == 16
    assert min(cores.here, cores.whole_by_libsndfile) > 0
    assert decode_cores._cpu_seconds(lambda: None) < 0.01  # of the work alone, and of this thread
    ss.extract(sample_set, "fbank80", tmp_path, where="seconds < 0.4", device="cpu")
    assert measure_decode_cores(planner_of(ShardStream(tmp_path))) is None
    monkeypatch.setattr(decode_cores, "_cpu_seconds", lambda work: {"here": 2.0, "whole": 3.0}[work.__name__])
    known = measure_decode_cores(planner_of(chosen))
    assert known is not None
    assert known.whole_by_libsndfile == pytest.approx(1.5 * known.here)
    assert 16 * min(clips.seconds) <= 2.0 / known.here * decode_cores.AT_SPEED <= 16 * 0.4 + 1e-6  # used, of 16 clips


def test_an_index_without_its_tars(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_synthetic_index(tmp_path / "set", 2)
    assert main(["plan", str(tmp_path / "set"), "--old", "batch_size=16"]) == 0
    shown = capsys.readouterr().out
    assert re.search(r"^decode cores +- +-$", shown, re.MULTILINE)
    assert re.search(r"^decode cores: not measured: .*No such file", shown, re.MULTILINE)


def test_settings_have_the_names_of_the_old_loader() -> None:
    assert parse_old("batch_size=16,shuffle_n=2048") == OldSettings(batch_size=16, shuffle_buffer=2048)
    assert parse_old("batch_duration=600, num_buckets=30,bucket_buffer_size=10000,shuffle_buffer_size=10000") == (
        OldSettings(max_duration=600.0, num_buckets=30, buffer_size=10_000, shuffle_buffer=10_000)
    )
    assert parse_old("max_duration=240.5,max_cuts=32,quadratic_duration=15").rule == "buckets"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("batch=3", "'batch=3' is not known"),
        ("batchsize=3", "Known are batch_size, max_cuts"),
        ("batch_size=many", "batch_size is 'many', expected a number"),
        ("batch_size=0", "greater than 0"),
        ("batch_size=2.5", "expected a whole number"),
        ("max_duration=inf", "expected a number"),
        ("shuffle_buffer=10", "give batch_size"),
        ("batch_size=4,num_buckets=3", "give batch_size .* or max_duration"),
    ],
)
def test_settings_that_are_none(text: str, match: str) -> None:
    with pytest.raises(UsageError, match=match):
        parse_old(text)


def test_the_command(sample_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["plan", str(sample_set), "--batch-seconds", "60"]
    both = ["--old", "batch_size=16,shuffle_buffer=100", "--old", "max_duration=60,num_buckets=8"]
    assert main([*words, *both]) == 0
    shown = capsys.readouterr().out
    assert "fixed: batches of 16 clips, after a shuffle buffer of 100; simulated on 336 clips" in shown
    assert "buckets: batches of 60 padded seconds; 8 buckets, 20000 clips in them" in shown
    for name in (
        "padding",
        "budget filled",
        "repeated pairs",
        "speakers per batch",
        "reads an audio hour",
        "decode cores",
    ):
        assert len([line for line in shown.splitlines() if line.startswith(name) and len(line.split()) < 9]) >= 2, name
    assert main([*words, *both, "--whole-epoch", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["batches_in_epoch"] == planner_of(ShardStream(sample_set, max_batch_seconds=60.0)).batches_in_epoch(0)
    largest = found["old"][0]["largest_batch_seconds"]
    assert re.findall("for batches as large as .*", shown) == [
        f"for batches as large as the old loader's: --batch-seconds {largest:.0f}"  # those of the other are
    ]
    assert [one["rule"] for one in found["old"]] == ["fixed", "buckets"]
    assert found["old"][0]["padding"] > 0.5 > found["padding"]
    assert main([*words, "--old", "batch_size=none"]) == 2
    for option in (["--old", "batch_size=3"], ["--whole-epoch"]):
        assert main(["plan", str(sample_set), "--weights", "1.0", *option]) == 2
        assert f"{option[0]}: a mix by weights has no epoch" in capsys.readouterr().err
