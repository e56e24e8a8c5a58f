"""Several sets by weight: the shares are the asked ones, each set's epochs are exact, and a cursor remembers all."""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from streams import RATE, clips, cuts, delivered
from synthetic_index import make_synthetic_index

from s3prl_stream.cli import build_parser
from s3prl_stream.cli.stream_options import sets_from
from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.plan.cursor import MOST_CHANGES
from s3prl_stream.plan.mix import Change, MixPlanner
from s3prl_stream.plan.planner import view
from s3prl_stream.sample import PlannedBatch
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet, open_shards
from s3prl_stream.shards.weights import by_temperature, normalised
from s3prl_stream.stream import ShardStream


def mixed(lengths: Sequence[Sequence[float]], weights: Sequence[float], **memory: Any) -> ShardSet:
    """One set in memory for each list of lengths, by weight."""
    names = "abcdefgh"
    members = [MemoryShards(clips(one, seed), names[seed], **memory) for seed, one in enumerate(lengths)]
    return ShardSet(members, normalised(dict(zip(names, weights, strict=False))))


def batches_of(stream: ShardStream, count: int) -> list[PlannedBatch]:
    planner = stream.planner()
    return [planned for _, planned, _ in itertools.islice(view(planner.walk(), 0, 0, 1), count)]


def by_set_and_epoch(batches: Iterator[PlannedBatch] | list[PlannedBatch]) -> dict[tuple[int, int], Counter[str]]:
    found: dict[tuple[int, int], Counter[str]] = {}
    for planned in batches:
        for item in planned.items:
            found.setdefault((item.set_index, item.epoch), Counter())[item.key] += 1
    return found


lengths = st.lists(st.lists(st.floats(0.2, 6.0), min_size=1, max_size=60), min_size=1, max_size=4)
settings = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**40),
        "max_batch_seconds": st.floats(8.0, 40.0),
        "max_batch_size": st.one_of(st.none(), st.integers(1, 9)),
        "run": st.integers(1, 4),
        "block_samples": st.integers(4, 80),
    }
)


def test_the_plan_of_a_mix_is_pinned() -> None:
    """Golden: a change here is a change of PLAN_VERSION, for it would re-order every run in progress."""
    shards = mixed([[1.0, 2.0, 3.0] * 8, [2.0] * 5], [0.7, 0.3], samples_per_shard=7)
    batches = batches_of(ShardStream(shards, max_batch_seconds=12.0, seed=7), 3)
    found = [[(item.set_index, item.epoch, int(item.key[4:])) for item in planned.items] for planned in batches]
    assert found == [
        [(0, 0, 20), (0, 0, 23), (0, 0, 17), (0, 0, 2)],
        [(1, 2, 2), (1, 1, 2), (1, 0, 4), (1, 0, 3), (1, 0, 2), (0, 0, 1)],
        [(1, 1, 3), (0, 0, 10), (0, 0, 4), (1, 1, 0), (0, 0, 16), (0, 0, 13)],
    ]
    three = [[1.0, 2.0, 3.0] * 8, [2.5] * 9, [0.7] * 15]
    for digest, seconds, weights, cut in (
        ("899e52c9af2afcf3", [[1.0] * 30, [1.0] * 20], [0.5, 0.5], {}),
        ("01ecdf11ebf56963", three, [0.5, 0.3, 0.2], {"run": 3, "block_samples": 12}),
        ("f558b04fc91dea5d", three, [0.5, 0.3, 0.2], {"crop_seconds": 1.5}),
        ("1e90c0a3ec63b8de", three, [0.6, 0.3, 0.1], {"epochs": 2, "stop": "first"}),
        ("9bdc75c0e68b12b7", three, [0.6, 0.3, 0.1], {"epochs": 2, "stop": "all"}),
    ):
        stream = ShardStream(mixed(seconds, weights, samples_per_shard=7), max_batch_seconds=12.0, seed=7, **cut)
        told = repr([[(i.set_index, i.epoch, i.key, i.first_frame) for i in b.items] for b in batches_of(stream, 60)])
        assert hashlib.blake2b(told.encode(), digest_size=8).hexdigest() == digest, cut


@given(lengths, settings, st.data())
@hypothesis_settings(max_examples=60)
def test_each_set_is_delivered_exactly_once_in_each_of_its_epochs(
    seconds: list[list[float]], given_settings: dict[str, Any], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.floats(0.05, 1.0), min_size=len(seconds), max_size=len(seconds)))
    stop, epochs = data.draw(st.sampled_from(["first", "all"])), data.draw(st.integers(1, 3))
    stream = ShardStream(mixed(seconds, weights, samples_per_shard=7), epochs=epochs, stop=stop, **given_settings)
    found = by_set_and_epoch(batches_of(stream, 10**6))
    whole = set()
    for index, one in enumerate(seconds):
        seen = sorted(epoch for member, epoch in found if member == index)
        for epoch in seen:
            assert max(found[index, epoch].values()) == 1
            complete = len(found[index, epoch]) == len(one)
            assert complete or epoch == seen[-1], "an epoch begins only when the one before it is complete"
        if len([e for e in seen if len(found[index, e]) == len(one)]) >= epochs:
            whole.add(index)
    assert whole if stop == "first" else whole == set(range(len(seconds)))
    if stop == "first":  # it ends with the first, not after it
        assert all(epoch < epochs for _, epoch in found)
    assert len(stream) == sum(sum(counts.values()) for counts in found.values())


@given(lengths, settings, cuts, st.data())
@hypothesis_settings(max_examples=12)
def test_resume_chains_on_changing_ranks_deliver_the_ledger(
    seconds: list[list[float]], given_settings: dict[str, Any], cut: dict[str, Any], data: st.DataObject
) -> None:
    weights = data.draw(st.lists(st.floats(0.05, 1.0), min_size=len(seconds), max_size=len(seconds)))
    shards = mixed(seconds, weights, samples_per_shard=7)
    stream = ShardStream(shards, **given_settings, **cut).load_audio(sample_rate=RATE)
    ledger = [delivered(batch) for batch in itertools.islice(Loader(stream), 20)]
    got: list[Any] = []
    state = None
    while len(got) < 20:
        world = data.draw(st.integers(1, 3))
        rounds = data.draw(st.integers(2, 8))
        loaders = [Loader(stream, rank=rank, world_size=world) for rank in range(world)]
        if state is not None:
            for loader in loaders:
                loader.load_state_dict(json.loads(json.dumps(state)))
        ranks = [[delivered(batch) for batch in itertools.islice(loader, rounds)] for loader in loaders]
        got += [batch for together in zip(*ranks, strict=True) for batch in sorted(together)]
        states = [loader.state_dict() for loader in loaders]
        assert all(one == states[0] for one in states)
        state = states[0]
    assert got[:20] == ledger


@pytest.mark.parametrize("run", [1, 4])
def test_realised_shares_over_many_batches(tmp_path: Path, run: int) -> None:
    """Shares of the delivered seconds, whatever the sets' sizes and lengths."""
    wanted = {"large": 0.5, "small": 0.3, "tiny": 0.2}
    for name, shards, clips_a_shard in (("large", 8, 1250), ("small", 1, 1250), ("tiny", 1, 50)):
        make_synthetic_index(tmp_path / name, shards, samples_per_shard=clips_a_shard, name=name)
    shards = open_shards({str(tmp_path / name): weight for name, weight in wanted.items()})
    planner = ShardStream(shards, max_batch_seconds=60.0, run=run).planner()
    totals, count = np.zeros(3), 0
    for _, step in planner.walk():
        totals += step.plan.seconds_by_set(3)
        count += step.plan.num_batches
        if count >= 10_000:
            break
    shares = totals / totals.sum()
    assert np.abs(shares - list(wanted.values())).max() < 0.01


def test_what_whole_runs_leave_open_is_carried_on() -> None:
    shards = mixed([[3.0] * 40, [7.0] * 40], [0.6, 0.4], samples_per_shard=8)
    planner = ShardStream(shards, max_batch_seconds=30.0, block_samples=6).planner()
    totals = np.zeros(2)
    for _, step in itertools.islice(planner.walk(), 100):
        totals += step.plan.seconds_by_set(2)
        assert abs(totals[0] / 0.6 - totals[1] / 0.4) <= 3.0 / 0.6 + 7.0 / 0.4  # a clip of each, to the end


def test_a_long_clip_is_paid_back_however_many_blocks_it_takes() -> None:
    lengths = [[60.0, *[0.5] * 40], [40.0, *[0.5] * 30]]
    planner = ShardStream(mixed(lengths, [0.6, 0.4]), max_batch_seconds=60.0, block_samples=2).planner()
    totals = np.zeros(2)
    steps = [step for _, step in itertools.islice(planner.walk(), 400)]
    assert len(steps) == 400  # it does not end where no set is due
    for step in steps:
        totals += step.plan.seconds_by_set(2)
        assert abs(totals[0] / 0.6 - totals[1] / 0.4) <= 60.0 / 0.6 + 40.0 / 0.4


def test_fifty_clips_beside_a_hundred_thousand(tmp_path: Path) -> None:
    make_synthetic_index(tmp_path / "large", 80, name="large")
    make_synthetic_index(tmp_path / "small", 1, samples_per_shard=50, name="small")
    shards = open_shards({str(tmp_path / "large"): 0.9, str(tmp_path / "small"): 0.1})
    stream = ShardStream(shards)
    found = by_set_and_epoch(batches_of(stream, 2000))
    small = [epoch for member, epoch in found if member == 1]
    assert len(small) > 10
    assert all(max(counts.values()) == 1 for counts in found.values())
    assert all(len(found[1, epoch]) == 50 for epoch in sorted(small)[: min(small[-1], 5)])


def test_new_weights_hold_from_the_block_after_the_state(tmp_path: Path) -> None:
    seconds = [[2.0] * 300, [2.0] * 300]
    settings: dict[str, Any] = {"block_samples": 50, "max_batch_seconds": 10.0}

    def loader_with(weights: list[float]) -> Loader:
        return Loader(ShardStream(mixed(seconds, weights), **settings).load_audio(sample_rate=RATE))

    def shares(batches: list[Any]) -> float:
        return sum(batch["set"].count("a") for batch in batches) / sum(len(batch["set"]) for batch in batches)

    first = loader_with([0.8, 0.2])
    before = list(itertools.islice(first, 25))
    second = loader_with([0.2, 0.8])
    second.load_state_dict(first.state_dict())
    rest = list(itertools.islice(second, 5))
    undisturbed = list(itertools.islice(loader_with([0.8, 0.2]), 30))
    assert [b["key"] for b in before + rest] == [b["key"] for b in undisturbed], "the begun block keeps its weights"
    after = list(itertools.islice(second, 60))
    assert abs(shares(before + rest) - 0.8) < 0.03
    assert abs(shares(after) - 0.2) < 0.03
    state = second.state_dict()
    assert [weights for _, weights in state["mix"]] == [[0.8, 0.2], [0.2, 0.8]]
    third = loader_with([0.2, 0.8])
    third.load_state_dict(json.loads(json.dumps(state)))
    assert third.state_dict()["mix"] == state["mix"]
    assert [row["key"] for row in third.which(3)] == before[3]["key"], "the past is planned with the past's weights"
    assert [row["key"] for row in third.which(70)] == (before + rest + after)[70]["key"]
    epochs = by_set_and_epoch_of_batches(before + rest + after)
    assert all(max(counts.values()) == 1 for counts in epochs.values())
    anew = loader_with([0.2, 0.8])
    anew.load_state_dict(loader_with([0.8, 0.2]).state_dict())
    assert next(iter(anew))["key"] == next(iter(loader_with([0.2, 0.8])))["key"], "nothing of the first was handed over"


def test_new_weights_leave_every_begun_block_alone() -> None:
    """A round of several ranks may reach into the next block; its clips are not planned a second time."""
    seconds, settings = [[2.0] * 30, [2.0] * 30], {"block_samples": 12, "max_batch_seconds": 6.0}

    def loaders(weights: list[float], world: int, state: Any = None) -> list[Loader]:
        stream = ShardStream(mixed(seconds, weights, samples_per_shard=5), **settings).load_audio(sample_rate=RATE)
        found = [Loader(stream, rank=rank, world_size=world) for rank in range(world)]
        for loader in found:
            if state is not None:
                loader.load_state_dict(json.loads(json.dumps(state)))
        return found

    ranks = loaders([0.8, 0.2], 3)
    got: list[Any] = []
    for together in itertools.islice(zip(*ranks, strict=True), 9):
        got += together
        first = ranks[0].state_dict()
        second = loaders([0.2, 0.8], 3, first)
        more = [next(iter(loader)) for loader in second]
        (third,) = loaders([0.6, 0.4], 1, second[0].state_dict())
        more += itertools.islice(third, 1)
        (third,) = loaders([0.6, 0.4], 1, third.state_dict())
        more += itertools.islice(third, 46)
        assert [batch["batch_index"] for batch in got + more] == list(range(len(got) + 50))
        found = by_set_and_epoch_of_batches(got + more)
        for (name, epoch), counts in found.items():
            assert max(counts.values()) == 1, "a clip came twice in an epoch"
            assert (name, epoch + 2) not in found or len(counts) == 30, "an epoch passed without a clip"
        assert ("a", 2) in found


def by_set_and_epoch_of_batches(batches: list[Any]) -> dict[tuple[str, int], Counter[str]]:
    found: dict[tuple[str, int], Counter[str]] = {}
    for batch in batches:
        for name, epoch, key in zip(batch["set"], batch["epoch"].tolist(), batch["key"], strict=True):
            found.setdefault((name, epoch), Counter())[key] += 1
    return found


def test_the_loader_counts_the_realised_mix() -> None:
    stream = ShardStream(mixed([[1.0] * 40, [3.0] * 40], [0.25, 0.75]), block_samples=20, max_batch_seconds=12.0)
    loader = Loader(stream.load_audio(sample_rate=RATE))
    heard = {"a": 0.0, "b": 0.0}
    for batch in itertools.islice(loader, 30):
        for name, length in zip(batch["set"], batch["wav_len"].tolist(), strict=True):
            heard[name] += length / RATE / 3600
    assert loader.hours_by_set == pytest.approx(heard)
    assert heard["b"] / sum(heard.values()) == pytest.approx(0.75, abs=0.03)


def test_cursor_of_23_sets_is_small_however_often_the_weights_changed() -> None:
    members = [MemoryShards(clips([1.0] * 6, number), f"voxpopuli_{number:02d}") for number in range(23)]
    state: dict[str, Any] = {}
    for temperature in (1.0, 2.0, 3.0, 4.0):
        shards = ShardSet(members, by_temperature([float(number + 1) for number in range(23)], temperature))
        loader = Loader(ShardStream(shards, block_samples=30).load_audio(sample_rate=RATE))
        if state:
            loader.load_state_dict(state)
        list(itertools.islice(loader, 20))
        state = loader.state_dict()
        assert len(json.dumps(state)) < 4096
    assert state["mix"][-1][1] == list(shards.weights or ())
    assert len(state["mix"]) > 1, "the newest that fit"
    keys = [(row["set"], row["key"]) for row in shards.table().to_pylist()]
    loader.exclude(keys[:50])
    with pytest.raises(UsageError, match="of the cursor, of at most"):
        loader.exclude(keys)
    with pytest.raises(UsageError, match="of the cursor, of at most"):
        [loader.skip(number, number) for number in range(100, 1000, 2)]
    state = loader.state_dict()
    assert 3500 < len(json.dumps(state)) < 4096
    Loader(ShardStream(shards, block_samples=30).load_audio(sample_rate=RATE)).load_state_dict(state)


def test_weights_that_change_at_every_batch_of_a_block() -> None:
    state: dict[str, Any] = {}
    for number in range(12):
        shards = mixed([[1.0] * 40, [1.0] * 40], [1, 1 + number])
        loader = Loader(ShardStream(shards, max_batch_seconds=3.0).load_audio(sample_rate=RATE))
        if state:
            loader.load_state_dict(state)
        assert next(iter(loader))["batch_index"] == number
        state = loader.state_dict()
    with pytest.raises(StateError, match=r"damaged.*mix"):
        loader.load_state_dict({name: value for name, value in state.items() if name != "mix"})


def test_the_last_changes_of_the_weights_are_remembered() -> None:
    state: dict[str, Any] = {}
    for number in range(MOST_CHANGES + 4):
        shards = mixed([[1.0] * 40, [1.0] * 40], [1, 1 + number])
        loader = Loader(ShardStream(shards, max_batch_seconds=3.0, block_samples=6).load_audio(sample_rate=RATE))
        if state:
            loader.load_state_dict(state)
        state = [loader.state_dict() for _ in zip(range(6), loader, strict=False)][-1]
    assert len(state["mix"]) == MOST_CHANGES
    loader.load_state_dict(state)
    assert next(iter(loader))["batch_index"] == state["next_batch"]
    with pytest.raises(UsageError, match=f"before batch {state['mix'][0][0]} are not known any more"):
        loader.which(0)


def test_a_loader_that_was_at_its_end_goes_on_with_a_state_of_other_weights() -> None:
    def loader_with(weights: list[float]) -> Loader:
        stream = ShardStream(mixed([[2.0] * 30, [2.0] * 60], weights), **settings)
        return Loader(stream.load_audio(sample_rate=RATE))

    settings: dict[str, Any] = {"max_batch_seconds": 6.0, "block_samples": 12, "epochs": 1, "stop": "all"}
    first = loader_with([0.02, 0.98])
    states = [first.state_dict() for _ in zip(range(36), first, strict=False)]
    used, fresh = loader_with([0.5, 0.5]), loader_with([0.5, 0.5])
    assert len(list(used)) < 45
    for loader in (used, fresh):
        loader.load_state_dict(states[-1])
    for one, other in zip(used, fresh, strict=True):
        assert delivered(one) == delivered(other)
        assert used.state_dict() == fresh.state_dict()
    assert used.state_dict()["next_batch"] > 50


@pytest.mark.parametrize("stop", ["first", "all"])
@pytest.mark.parametrize(("before", "then"), [(1, 3), (None, 1)])
def test_a_begun_block_ends_where_it_was_planned_to(before: int | None, then: int, stop: str) -> None:
    """The last block of a finite mix is cut. What was handed over of it is not planned anew when the end is another."""

    def loader(epochs: int | None, state: Any = None) -> Loader:
        shards = mixed([[1.0, 2.0] * 20, [1.0, 1.5] * 12], [0.6, 0.4], samples_per_shard=7)
        ends: dict[str, Any] = {"epochs": epochs, "stop": epochs and stop}
        stream = ShardStream(shards, max_batch_seconds=8.0, block_samples=24, **ends).load_audio(sample_rate=RATE)
        found = Loader(stream)
        if state is not None:
            found.load_state_dict(json.loads(json.dumps(state)))
        return found

    got: list[Any] = []
    first = loader(before)
    for batch in itertools.islice(first, 20):
        got.append(batch)
        middle = loader(then, first.state_dict())
        some = list(itertools.islice(middle, 1))  # in that block still, or behind it
        rest = list(loader(then, middle.state_dict()))
        found = by_set_and_epoch_of_batches([*got, *some, *rest])
        assert all(max(counts.values()) == 1 for counts in found.values()), "a clip came twice in an epoch"
        whole = {place for place, counts in found.items() if len(counts) == {"a": 40, "b": 24}[place[0]]}
        assert all((name, epoch - 1) in whole for name, epoch in found if epoch)
        assert (any if stop == "first" else all)((name, then - 1) in whole for name in "ab")


def test_temperature() -> None:
    hours = [100.0, 10.0, 1.0]
    assert by_temperature(hours, 1.0) == pytest.approx([amount / 111 for amount in hours])
    assert by_temperature(hours, math.inf) == pytest.approx([1 / 3] * 3)
    square_roots = [math.sqrt(amount) for amount in hours]
    assert by_temperature(hours, 2.0) == pytest.approx([root / sum(square_roots) for root in square_roots])
    for wrong in (0, -1.0, math.nan, True, "2"):
        with pytest.raises(UsageError, match="temperature"):
            by_temperature(hours, wrong)  # type: ignore[arg-type]


def test_how_the_command_line_mixes(tmp_path: Path) -> None:
    sets = [str(tmp_path / name) for name in ("large", "small")]
    for folder, samples in zip(sets, (90, 10), strict=True):
        make_synthetic_index(folder, 1, samples_per_shard=samples, name=Path(folder).name)

    def opened(*words: str) -> ShardSet:
        args = build_parser("plan").parse_args(["plan", *sets, *words])
        return sets_from(args.set, args)

    assert opened().weights is None
    assert opened("--weights", "1,3").weights == (0.25, 0.75)
    hours = [member.shard_seconds.sum() for member in opened().members]
    assert opened("--temperature", "2").weights == pytest.approx(by_temperature(hours, 2.0))
    for words, said in (
        (("--weights", "1,3", "--temperature", "2"), "use one of them"),
        (("--weights", "1"), "--weights 1: 1 weights for 2 sets"),
        (("--weights", "1,x"), "--weights 1,x: give numbers"),
    ):
        with pytest.raises(UsageError, match=said):
            opened(*words)
    with pytest.raises(UsageError, match="2 weights for 1 sets"):
        sets_from([sets[0]] * 2, build_parser("plan").parse_args(["plan", *sets, "--weights", "1,3"]))


def test_what_a_mix_refuses() -> None:
    shards = mixed([[1.0] * 9, [2.0] * 9], [1, 1])
    for wrong, words in (
        ({"shuffle": False}, "shuffled"),
        ({"epochs": 2}, "stop="),
        ({"stop": "first"}, "epochs="),
        ({"balance": "speaker"}, "balance"),
        ({"where": "frames == 1000"}, "set b: nothing of it is selected"),
        ({"stop": "last", "epochs": 1}, "first, all"),
    ):
        with pytest.raises(UsageError, match=words):
            ShardStream(shards, **wrong)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="by weight"):
        ShardStream(shards.members[0], epochs=1, stop="all")
    assert normalised({"a": np.int64(1), "b": np.float32(3)}) == (0.25, 0.75)
    for weights, words in (
        ({}, "no shard sets"),
        ({"a": -1.0}, "-1.0"),
        ({"a": 0.0}, "all weights are 0"),
        ({"a": "much"}, "much"),
    ):
        with pytest.raises(UsageError, match=words):
            normalised(weights)
    loader = Loader(ShardStream(shards).load_audio(sample_rate=RATE))
    with pytest.raises(UsageError, match="no epoch"):
        loader.batches_in_epoch(0)
    with pytest.raises(TypeError):
        len(loader)


@pytest.mark.parametrize("length", [9.0, 0.0])
def test_a_set_of_which_nothing_fits_is_named(length: float) -> None:
    stream = ShardStream(mixed([[1.0], [length]], [1, 1]), max_batch_seconds=5.0, too_long="skip")
    with pytest.raises(UsageError, match=r"set b: each of its 1 selected clips is longer than .* or has no audio"):
        batches_of(stream, 50)


def test_clips_that_are_too_long_are_listed_once_each() -> None:
    shards = mixed([[1.0, 9.0, 1.0, 8.0], [1.0, 1.0, 7.0]], [0.7, 0.3], samples_per_shard=2)
    cut: dict[str, Any] = {"max_batch_seconds": 5.0, "too_long": "skip", "epochs": 3, "stop": "all"}
    loader = Loader(ShardStream(shards, **cut).load_audio(sample_rate=RATE))
    list(loader)
    assert sorted(loader._known_too_long) == [(0, "clip0001"), (0, "clip0003"), (1, "clip0002")]
    assert sorted(loader.too_long) == ["clip0001", "clip0002", "clip0003"]


def test_a_cursor_of_a_mix_and_one_of_epochs_do_not_fit_each_other() -> None:
    weighted = mixed([[1.0] * 9, [2.0] * 9], [1, 1])
    plain = ShardSet(weighted.members)
    state = Loader(ShardStream(plain).load_audio(sample_rate=RATE)).state_dict()
    with pytest.raises(StateError, match="mixed was False, is True"):
        Loader(ShardStream(weighted).load_audio(sample_rate=RATE)).load_state_dict(state)


@pytest.mark.parametrize("cut", [{"stop": "all"}, {"stop": "first"}, {"stop": "all", "where": "frames == 1000"}])
def test_a_set_with_weight_0_rests(cut: dict[str, Any]) -> None:
    """And may have nothing selected."""
    stream = ShardStream(mixed([[1.0] * 9, [2.0] * 9], [1, 0]), epochs=2, max_batch_seconds=3.0, **cut)
    found = by_set_and_epoch(batches_of(stream, 100))
    assert {place: sum(counts.values()) for place, counts in found.items()} == {(0, 0): 9, (0, 1): 9}
    assert isinstance(stream.planner(), MixPlanner)


@pytest.mark.parametrize("stop", ["first", "all"])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_left_of_a_set_may_be_too_long_for_any_batch(stop: str, seed: int) -> None:
    """A block of the first set holds one clip, and the last blocks of its epoch may all be skipped."""
    shards = mixed([[1.0, 30.0, 1.0, 30.0, 30.0], [1.0] * 9], [0.5, 0.5], samples_per_shard=1)
    cut: dict[str, Any] = {"max_batch_seconds": 3.0, "block_samples": 2, "too_long": "skip"}
    stream = ShardStream(shards, seed=seed, epochs=2, stop=stop, **cut)
    found = by_set_and_epoch(batches_of(stream, 10**6))
    ends, keys = (0, ["clip0000", "clip0002"]) if stop == "first" else (1, [f"clip{number:04d}" for number in range(9)])
    assert [found[ends, epoch] for epoch in range(2)] == [Counter(keys)] * 2
    ranks = [[batch["batch_index"] for batch in Loader(stream, rank=rank, world_size=2)] for rank in range(2)]
    assert len(ranks[0]) == len(ranks[1]) == len(Loader(stream, rank=0, world_size=2))


@pytest.mark.parametrize("weights", [[1 - 1e-12, 1e-12], [0.5, 0.5]])
def test_a_set_of_which_no_clip_fits_is_refused_in_a_finite_mix(weights: list[float]) -> None:
    shards = mixed([[2.5, 8.0], [1.0]], weights, samples_per_shard=1)
    stream = ShardStream(shards, max_batch_seconds=2.0, epochs=2, too_long="skip", stop="first")
    with pytest.raises(UsageError, match="max_batch_seconds"):
        list(Loader(stream))


@pytest.mark.parametrize("stop", ["first", "all"])
def test_the_last_block_gives_every_set_its_share_up_to_where_the_mix_ends(stop: str) -> None:
    weights = (0.6, 0.4)
    for count in range(15, 35):
        shards = mixed([[1.0] * 30, [1.0] * count], weights, samples_per_shard=7)
        stream = ShardStream(shards, epochs=1, stop=stop, max_batch_seconds=5.0, block_samples=16)
        found = Counter(item.set_index for planned in batches_of(stream, 10**6) for item in planned.items)
        ends = (min if stop == "first" else max)(30 / weights[0], count / weights[1])
        assert all(abs(found[index] - weights[index] * ends) < 2 for index in range(2)), (count, found)


def test_weights_that_hold_from_the_end_on_decide_whether_it_is_one() -> None:
    """The set that has had its epoch rests from there on, so the mix ends with the other."""
    shards = mixed([[1.0] * 6, [1.0] * 20], [0.5, 0.5])
    planner = ShardStream(shards, epochs=1, stop="first", max_batch_seconds=2.0).planner()
    assert isinstance(planner, MixPlanner)
    end = planner.num_batches()
    planner.changes = [*planner.changes, Change(end, (0.0, 1.0))]
    found = [item.key for _, planned, _ in view(planner.walk(), end, 0, 1) for item in planned.items]
    assert found
    before = [item for _, planned, _ in view(planner.walk(), 0, 0, 1) for item in planned.items]
    assert Counter(item.set_index for item in before) == {0: 6, 1: 20}


@pytest.mark.parametrize("weights", [None, (0.5, 0.5)])
def test_a_state_from_behind_the_end_that_is_asked_for_now_is_at_its_end(weights: tuple[float, float] | None) -> None:
    def loader(epochs: int) -> Loader:
        shards = ShardSet(mixed([[1.0] * 6, [1.0] * 6], [1, 1]).members, weights)
        stop = None if weights is None else "first"
        return Loader(ShardStream(shards, epochs=epochs, stop=stop, max_batch_seconds=2.0).load_audio(sample_rate=RATE))

    long, short = loader(5), loader(2)
    state = [long.state_dict() for _ in long][-2]
    short.load_state_dict(state)
    assert list(short) == []


def test_a_block_that_has_been_given_in_advance_is_passed_over() -> None:
    """A clip of 4 s is two blocks of a set whose clips have 2 s on average: then nothing at all is due."""
    stream = ShardStream(mixed([[4.0, 1.0, 1.0]], [1], samples_per_shard=1), max_batch_seconds=4.0, block_samples=1)
    assert len(batches_of(stream, 30)) == 30


def test_numbers_that_cannot_be_summed_or_divided_by_are_no_weights() -> None:
    for weight in (1e308, 10**400):
        with pytest.raises(UsageError, match=r"set a: weight 1\S+ must be a number from 0 on, below 1e300"):
            normalised({"a": weight, "b": weight})
    with pytest.raises(UsageError, match="none of the sets has any audio"):
        by_temperature([0.0, 0.0], 2.0)
