"""The plan's promises, on random indexes: exactly once, within the budget, a pure function, equal rounds."""

from __future__ import annotations

import hashlib
import itertools
import json
from collections import Counter
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from streams import RATE, cuts, durations, memory, settings

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import hash64
from s3prl_stream.plan.batches import MAX_BUCKET_RATIO, group_runs, make_batches
from s3prl_stream.plan.blocks import epoch_blocks
from s3prl_stream.plan.planner import START, EpochPlanner, view
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.sample import Item
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.stream import ShardStream


def planner_of(seconds: list[float], **given_settings: Any) -> EpochPlanner:
    return ShardStream(memory(seconds), **given_settings).planner()


def items_of_epoch(planner: EpochPlanner, epoch: int) -> list[list[Item]]:
    blocks = [planner.plan_block(epoch, number) for number in range(len(planner.blocks(epoch)))]
    return [block.items(batch) for block in blocks for batch in range(block.num_batches)]


MANY = [0.5 + n % 9 for n in range(90)]
TIGHT = {"seed": 3, "shuffle": True, "max_batch_seconds": 20.0, "max_batch_size": 4, "run": 3, "block_samples": 32}
"""Settings that all bind, on some blocks of shards."""


@given(durations, settings)
@example(MANY, TIGHT)
@hypothesis_settings(max_examples=60)
def test_every_clip_once_and_within_the_budget(seconds: list[float], given_settings: dict[str, Any]) -> None:
    planner = planner_of(seconds, **given_settings)
    for epoch in (0, 1):
        batches = items_of_epoch(planner, epoch)
        assert sorted(item.key for batch in batches for item in batch) == [f"clip{n:04d}" for n in range(len(seconds))]
        for batch in batches:
            longest = max(item.num_frames for item in batch) / RATE
            assert len(batch) * longest <= given_settings["max_batch_seconds"] + 1e-6
            assert len(batch) <= (given_settings["max_batch_size"] or len(batch))


@given(durations, settings, st.floats(0.5, 4.0))
@example(MANY[:20], TIGHT, 2.5)
@hypothesis_settings(max_examples=60)
def test_chunks_cover_every_frame_once(
    seconds: list[float], given_settings: dict[str, Any], chunk_seconds: float
) -> None:
    planner = planner_of(seconds, **given_settings, chunk_seconds=chunk_seconds)
    covered: Counter[tuple[str, int]] = Counter()
    for batch in items_of_epoch(planner, 0):
        for item in batch:
            assert 0 < item.num_frames <= round(chunk_seconds * RATE)
            covered.update((item.key, frame) for frame in range(item.first_frame, item.first_frame + item.num_frames))
    frames = [round(length * RATE) for length in seconds]
    assert sum(covered.values()) == len(covered) == sum(frames)


@given(durations, settings)
@example(MANY, TIGHT)
@hypothesis_settings(max_examples=30)
def test_one_crop_of_each_clip_inside_it(seconds: list[float], given_settings: dict[str, Any]) -> None:
    planner = planner_of(seconds, **given_settings, crop_seconds=1.5)
    items = [item for batch in items_of_epoch(planner, 3) for item in batch]
    assert len({item.key for item in items}) == len(items) == len(seconds)
    for item in items:
        assert item.num_frames == min(item.clip_frames, 1500)
        assert 0 <= item.first_frame <= item.clip_frames - item.num_frames


def test_crops_in_proportion_to_length() -> None:
    seconds = [1.0, 3.0, 6.0] * 200
    planner = planner_of(seconds, crop_seconds=1.0, crops="per_seconds")
    crops = [item for batch in items_of_epoch(planner, 0) for item in batch]
    drawn = Counter(int(item.key[4:]) % 3 for item in crops)
    assert drawn == {0: 200, 1: 600, 2: 1200}
    places = {(item.key, item.first_frame) for item in crops}
    assert len(places) > 0.98 * len(crops)  # each drawn for itself
    fractional = planner_of([2.5] * 2000, crop_seconds=1.0, crops="per_seconds")
    count = sum(len(batch) for batch in items_of_epoch(fractional, 0))
    assert abs(count / 2000 - 2.5) < 4 * 0.5 / np.sqrt(2000)
    copies = Counter((item.key, item.draw) for batch in items_of_epoch(fractional, 0) for item in batch)
    assert max(copies.values()) == 1  # so that no two crops share their random draws


def test_a_crop_begins_anywhere_and_elsewhere_in_each_epoch_and_seed() -> None:
    def places(epoch: int, **given_settings: Any) -> list[int]:
        planner = planner_of([1.501] * 300, crop_seconds=1.5, **given_settings)
        found = {item.key: item.first_frame for batch in items_of_epoch(planner, epoch) for item in batch}
        return [found[key] for key in sorted(found)]

    first, *others = places(0), places(1), places(0, seed=1)
    assert 100 < sum(first) < 200  # frame 0 or 1, each for half of the clips
    assert all(100 < sum(np.not_equal(first, other)) < 200 for other in others)


def test_seconds_are_of_each_clips_own_rate() -> None:
    wav = np.zeros(8000, dtype=np.int16)
    data = MemoryShards({"a": {"wav": wav, "sample_rate": 2000}, "b": {"wav": wav, "sample_rate": 1000}})

    def frames(**given_settings: Any) -> dict[str, list[int]]:
        planner = ShardStream(data, **given_settings).planner()
        assert isinstance(planner, EpochPlanner)
        items = [item for batch in items_of_epoch(planner, 0) for item in batch]
        return {key: [item.num_frames for item in items if item.key == key] for key in "ab"}

    assert frames(chunk_seconds=2.0) == {"a": [4000] * 2, "b": [2000] * 4}
    assert frames(crop_seconds=2.0) == {"a": [4000], "b": [2000]}
    assert frames(max_batch_seconds=5.0) == {"a": [8000], "b": [4000] * 2}
    block = ShardStream(data, shuffle=False).planner().step(START)
    assert block is not None
    assert block.plan.seconds.tolist() == [4.0, 8.0]


def test_a_batch_may_be_as_full_as_allowed() -> None:
    """Though 3 * 0.1 is more than 0.3, and 1.001 * 1000 less than 1001."""
    assert [len(batch) for batch in items_of_epoch(planner_of([0.1] * 9, max_batch_seconds=0.3), 0)] == [3] * 3
    for policy in ("split", "crop", "skip"):
        ((item,),) = items_of_epoch(planner_of([1.001], max_batch_seconds=1.001, too_long=policy), 0)
        assert item.num_frames == 1001


def test_blocks_are_whole_shards_with_clips_and_the_last_is_no_crumb() -> None:
    def blocks(counts: list[int]) -> list[list[int]]:
        cut = PlanSettings(shuffle=False, block_samples=40)
        found = epoch_blocks(np.arange(len(counts), dtype=np.uint64), np.array(counts), cut, 0)
        return [found.block(number).tolist() for number in range(len(found))]

    assert blocks([10] * 6) == [[0, 1, 2, 3], [4, 5]]
    assert blocks([10] * 5) == [[0, 1, 2, 3, 4]]
    assert blocks([0, 30, 0, 20, 30]) == [[1], [3, 4]]


steps = st.integers(1, 2)  # to the next shard
groups = st.tuples(steps, st.sampled_from([1.0, 1.12, 4.0]), st.integers(1, 30))


@given(st.lists(groups, min_size=1, max_size=5), st.integers(3, 6), st.integers(0, 2**40))
@hypothesis_settings(max_examples=40)
def test_runs_are_neighbours_of_one_shard_and_like_duration(
    found: list[tuple[int, float, int]], run: int, seed: int
) -> None:
    shards = np.repeat(np.cumsum([on for on, _, _ in found]), [count for _, _, count in found])
    seconds = np.repeat([length for _, length, _ in found], [count for _, _, count in found])
    for epoch in (0, 1):
        run_of = group_runs(seconds, shards, PlanSettings(run=run, seed=seed), epoch)
        seen = 0
        for _, group in itertools.groupby(zip(shards, seconds, run_of, strict=True), key=lambda row: row[:2]):
            sizes = Counter(int(number) for _, _, number in group)
            wanted = max(round(sizes.total() / run), 1)
            assert list(sizes) == list(range(seen, seen + wanted))
            assert max(sizes.values()) <= np.ceil(1.5 * sizes.total() / wanted)
            seen += wanted


@given(st.lists(st.lists(st.floats(0.2, 9.0), min_size=1, max_size=4), min_size=1, max_size=40), st.integers(0, 99))
@hypothesis_settings(max_examples=40)
def test_runs_of_a_bucket_are_alike_in_their_longest_clips(runs: list[list[float]], seed: int) -> None:
    """What a batch is padded to; so a clip is not put beside much longer ones for a short neighbour."""
    seconds, run_of = np.concatenate(runs), np.repeat(np.arange(len(runs)), [len(run) for run in runs])
    found = make_batches(seconds, run_of, hash64("run", seed, np.arange(len(runs))), PlanSettings(), (0, 0))
    longest = np.array([max(run) for run in runs])[run_of[found.sequence]]
    assert (np.maximum.accumulate(longest) <= MAX_BUCKET_RATIO * longest).all()


@pytest.mark.parametrize(("policy", "expected"), [("split", [4, 4, 3]), ("crop", [10, 3]), ("skip", [3])])
def test_clips_longer_than_a_batch_follow_the_policy(policy: str, expected: list[int]) -> None:
    limit = 10.0 if policy == "crop" else 4.0 if policy == "split" else 5.0
    planner = planner_of([8.0 if policy == "split" else 12.0, 3.0], max_batch_seconds=limit, too_long=policy)
    block = planner.plan_block(0, 0)
    found = [item.num_frames // RATE for batch in range(block.num_batches) for item in block.items(batch)]
    assert sorted(found, reverse=True) == expected
    assert block.clips_too_long() == ([(0, "clip0000")] if policy == "skip" else [])


@given(durations, settings, cuts, st.integers(1, 5), st.integers(0, 9))
@example(MANY, TIGHT, {}, 4, 6)
@example([1.0], TIGHT, {}, 3, 4)  # beyond the end
@hypothesis_settings(max_examples=60)
def test_ranks_are_views_with_equally_many_batches(
    seconds: list[float], given_settings: dict[str, Any], cut: dict[str, Any], world_size: int, begin: int
) -> None:
    planner = planner_of(seconds, **given_settings, **cut, epochs=2)
    alone = [planned for _, planned, _ in view(planner.walk(), 0, 0, 1)]
    assert [planned.number for planned in alone] == list(range(len(alone)))
    ranks = [[planned for _, planned, _ in view(planner.walk(), begin, rank, world_size)] for rank in range(world_size)]
    assert len({len(planned) for planned in ranks}) == 1
    together = sorted((planned for rank in ranks for planned in rank), key=lambda planned: planned.number)
    alone = alone[begin:]
    assert together[: len(alone)] == alone
    assert all(not planned.items for planned in together[len(alone) :])
    assert len(together) - len(alone) < world_size


@given(durations, settings, cuts, st.data())
@hypothesis_settings(max_examples=60)
def test_resume_chains_with_changing_ranks_deliver_the_ledger(
    seconds: list[float], given_settings: dict[str, Any], cut: dict[str, Any], data: st.DataObject
) -> None:
    planner = planner_of(seconds, **given_settings, **cut, epochs=2)
    ledger = [planned for _, planned, _ in view(planner.walk(), 0, 0, 1)]
    anchors = [position for position, _ in planner.walk()]
    got, next_batch = [], 0
    while next_batch < len(ledger):
        world_size = data.draw(st.integers(1, 4))
        rounds = data.draw(st.integers(1, max(len(ledger) // 3, 1)))
        anchor = max(position for position in anchors if position.batch <= next_batch)
        for rank in range(world_size):
            mine = view(planner.walk(anchor), next_batch, rank, world_size)
            got += [planned for _, (_, planned, _) in zip(range(rounds), mine, strict=False)]
        next_batch += rounds * world_size
    assert sorted((planned for planned in got if planned.items), key=lambda planned: planned.number) == ledger


def test_another_seed_or_epoch_is_another_order() -> None:
    seconds = [1.0 + n % 5 for n in range(200)]
    first = planner_of(seconds, max_batch_seconds=20.0)
    other = planner_of(seconds, max_batch_seconds=20.0, seed=1)
    keys = [
        [item.key for batch in items_of_epoch(p, e) for item in batch] for p, e in ((first, 0), (first, 1), (other, 0))
    ]
    assert keys[0] != keys[1] != keys[2] != keys[0]
    assert items_of_epoch(planner_of(seconds, max_batch_seconds=20.0), 0) == items_of_epoch(first, 0)
    negative = planner_of(seconds, max_batch_seconds=20.0, seed=-1)
    assert items_of_epoch(negative, 0) != items_of_epoch(other, 0)


def test_without_shuffle_the_order_is_that_of_the_set() -> None:
    planner = planner_of([3.0, 1.0, 2.0] * 20, shuffle=False)
    keys = [item.key for batch in items_of_epoch(planner, 0) for item in batch]
    assert keys == sorted(keys)


def test_the_plan_is_pinned() -> None:
    """Golden: a change here is a change of PLAN_VERSION, for it would re-order every run in progress."""
    planner = planner_of([0.5 + (n * 7919 % 97) / 10 for n in range(60)], max_batch_seconds=30.0, run=2, seed=7)
    numbers = [[int(item.key[4:]) for item in batch] for batch in items_of_epoch(planner, 1)[:3]]
    assert numbers == GOLDEN
    # clips of one duration lie together, so that runs begin at a phase
    planner = planner_of([1.0 + n // 16 for n in range(64)], max_batch_seconds=20.0, run=4, seed=7)
    numbers = [[int(item.key[4:]) for item in batch] for batch in items_of_epoch(planner, 1)[:3]]
    assert numbers == GOLDEN_RUNS
    # whole epochs, of clips of which some run over a jump of duration, and of all that is drawn
    for digest, seconds, cut in PINNED:
        planner = planner_of(seconds, **{"run": 4, "seed": 7, "max_batch_seconds": 12.0, "block_samples": 32, **cut})
        batches = [items_of_epoch(planner, epoch) for epoch in (1, 2)]
        told = repr([[(i.key, i.first_frame, i.num_frames, i.draw) for i in one] for epoch in batches for one in epoch])
        assert hashlib.blake2b(told.encode(), digest_size=8).hexdigest() == digest, cut


PINNED: list[tuple[str, list[float], dict[str, Any]]] = [
    ("dde14c5724a8f271", [1.01**n for n in range(80)], {}),
    ("7fa5a43281caa00b", MANY, {"chunk_seconds": 2.0}),
    ("bf482437214340ef", MANY, {"crop_seconds": 1.5}),
    ("c6031276d548335c", MANY, {"crop_seconds": 1.5, "crops": "per_seconds", "balance": "speaker"}),
    ("a07b3362e9803f76", MANY, {"max_batch_seconds": 6.0, "balance": "speaker"}),
    ("5986e14a30269cdf", MANY, {"max_batch_seconds": 6.0, "too_long": "crop", "max_batch_size": 3}),
]
GOLDEN = [[12, 23, 26, 37], [24, 35, 13, 49, 32, 21], [59, 6, 17]]
GOLDEN_RUNS = [[49, 50, 51, 60, 61], [30, 31, 20, 21, 22, 23], [37, 38, 39, 40, 48]]


def test_balance_draws_each_value_equally_often() -> None:
    data = memory([1.0] * 700, samples_per_shard=100)
    for sample in data._samples:
        sample["label"] = "rare" if sample["key"].endswith("7") else "common"
    planner = ShardStream(data, balance="label", max_batch_seconds=20.0).planner()
    drawn: Counter[bool] = Counter()
    for epoch in range(4):
        drawn.update(item.key.endswith("7") for batch in items_of_epoch(planner, epoch) for item in batch)
    assert abs(drawn[True] / sum(drawn.values()) - 0.5) < 0.03
    assert abs(sum(drawn.values()) / 4 - 700) < 40


@pytest.mark.parametrize("balance", [None, "speaker"])
def test_what_is_not_selected_is_not_planned(balance: str | None) -> None:
    """Of two speakers with as many clips, balance draws each clip once."""
    planner = planner_of([1.0] * 70, where="speaker in ('s1', 's4')", balance=balance)
    keys = sorted(item.key for batch in items_of_epoch(planner, 0) for item in batch)
    assert keys == [f"clip{number:04d}" for number in range(70) if number % 7 in (1, 4)]


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_batch_seconds": 0.0},
        {"max_batch_size": 0},
        {"epochs": 0},
        {"run": 0},
        {"crops": "some"},
        {"too_long": "explode"},
        {"chunk_seconds": 2.0, "crop_seconds": 2.0},
        {"chunk_seconds": 500.0},
        {"crop_seconds": 500.0},
        {"crop_seconds": -1.0},
        {"block_samples": 0},
        {"block_samples": 10**20},
        {"max_batch_seconds": 1e30},
        {"run": 1.5},
        {"epochs": True},
        {"seed": 1.5},
        {"shuffle": "no"},
        {"crop_seconds": "2"},
    ],
)
def test_settings_out_of_range_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        PlanSettings(**wrong)


def test_the_largest_budget_at_the_highest_rate_is_planned() -> None:
    wav = np.zeros(100, dtype=np.int16)
    data = MemoryShards({name: {"wav": wav, "sample_rate": 2**31 - 1} for name in "abc"})
    most = {"block_samples": 10**9, "run": 10**9, "max_batch_size": 10**9}
    assert ShardStream(data, max_batch_seconds=1e9, **most).planner().batches_in_epoch(0) == 1


def test_numbers_of_numpy_are_settings() -> None:
    counted = PlanSettings(seed=np.int64(3), epochs=np.int32(2), crop_seconds=np.float32(0.5))  # type: ignore[arg-type]
    assert json.loads(json.dumps(counted.identity())) == PlanSettings(seed=3, crop_seconds=0.5).identity()
