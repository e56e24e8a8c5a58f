"""The cursor: the same on every rank, good for more epochs, and refused by another stream."""

from __future__ import annotations

import json
from typing import Any

import pytest
from streams import RATE, clips, memory

import s3prl_stream as ss
from s3prl_stream.errors import StateError
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet


def stream(data: Any, **settings: Any) -> Any:
    return ss.ShardStream(data, **{"epochs": 1, **settings}).load_audio(sample_rate=RATE)


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
def test_more_epochs_after_the_end_lose_no_batch(world_size: int) -> None:
    data = memory([2.0] * 25)
    every = [batch["key"] for batch in ss.Loader(stream(data, epochs=2, max_batch_seconds=10.0))]
    got: dict[int, list[str]] = {}
    states = []
    for rank in range(world_size):
        loader = ss.Loader(stream(data, max_batch_seconds=10.0), rank=rank, world_size=world_size)
        got.update({batch["batch_index"]: batch["key"] for batch in loader if batch["key"]})
        states.append(loader.state_dict())
    longer = ss.Loader(stream(data, epochs=2, max_batch_seconds=10.0))
    longer.load_state_dict(states[0])
    for batch in longer:
        assert batch["batch_index"] not in got
        got[batch["batch_index"]] = batch["key"]
    assert [got[number] for number in sorted(got)] == every


def test_every_rank_has_the_same_state_after_every_round() -> None:
    data = memory([0.5 + n % 9 for n in range(150)])
    settings = {"epochs": 2, "max_batch_seconds": 20.0, "block_samples": 32}
    world_size = 5
    loaders = [ss.Loader(stream(data, **settings), rank=rank, world_size=world_size) for rank in range(world_size)]
    for loader, prefetch in zip(loaders, (1, 2, 8, 30, 3), strict=True):  # plan ahead unequally far
        loader._build_ahead.prefetch = prefetch
    for _ in zip(*loaders, strict=True):
        states = [loader.state_dict() for loader in loaders]
        assert all(state == states[0] for state in states)
        assert len(json.dumps(states[0])) < 4096


def test_the_order_of_the_stages_belongs_to_the_stream() -> None:
    begin = stream(clips([1.0, 2.0]))
    state = ss.Loader(begin.add_noise().norm_wav()).state_dict()
    with pytest.raises(StateError, match="order was"):
        ss.Loader(begin.norm_wav().add_noise()).load_state_dict(state)


@pytest.mark.parametrize("settings", [{"shuffle": False}, {"epochs": None}, {}])
def test_a_state_is_of_sets_in_their_order_where_that_counts(settings: dict[str, Any]) -> None:
    members = [MemoryShards(clips([1.0 + n % 3 for n in range(20)], seed), name) for seed, name in enumerate("ba")]
    weights = (0.5, 0.5) if "epochs" in settings else None

    def loader(order: list[MemoryShards]) -> ss.Loader:
        return ss.Loader(stream(ShardSet(order, weights), max_batch_seconds=5.0, **settings))

    first = loader(members)
    begun = iter(first)
    for _ in range(5):
        next(begun)
    state = first.state_dict()
    swapped = loader(members[::-1])
    if settings:
        with pytest.raises(StateError, match="the order of the sets was b, a, is a, b"):
            swapped.load_state_dict(state)
        if weights is not None:  # the order counts for the one and not for the other: of it nothing is to be said
            without = ss.Loader(stream(ShardSet(members), max_batch_seconds=5.0, **settings))
            with pytest.raises(StateError, match=r"mixed was True, is False \(whether .* but not before\)$"):
                without.load_state_dict(state)
        del state["order_of_sets"]  # as of older states
        loader(members).load_state_dict(state)
    else:  # shards of all sets are shuffled together
        swapped.load_state_dict(state)
        assert [next(iter(swapped))["key"] for _ in range(5)] == [next(begun)["key"] for _ in range(5)]
        first.load_state_dict(state)
        assert first.receipt is not None
        assert swapped.receipt is not None
        assert first.receipt.fingerprint == swapped.receipt.fingerprint


def test_a_selection_is_known_by_the_order_of_the_sets_and_the_refusal_says_so() -> None:
    members = [MemoryShards(clips([1.0 + n % 3 for n in range(20)], seed), name) for seed, name in enumerate("ba")]
    for weights in (None, (0.5, 0.5)):
        first, swapped = (
            ss.Loader(stream(ShardSet(order, weights), max_batch_seconds=5.0, epochs=None, subset="50%"))
            for order in (members, members[::-1])
        )
        said = r"selection was .* give them in the order that was\)" + "; the order of the sets was b, a" * bool(
            weights
        )
        with pytest.raises(StateError, match=said):
            swapped.load_state_dict(first.state_dict())


@pytest.mark.parametrize("missing", ["anchor", "next_batch", "identity", "plan_version"])
def test_a_cursor_with_a_piece_missing_is_refused(missing: str) -> None:
    loader = ss.Loader(stream(clips([1.0])))
    state = loader.state_dict()
    del state[missing]
    said = "plan version None" if missing == "plan_version" else f"the cursor is damaged .*{missing}"
    with pytest.raises(StateError, match=said):
        loader.load_state_dict(state)


@pytest.mark.parametrize("wrong", [-1, 1.5, None, "0", [], {}])
def test_a_cursor_of_what_are_no_numbers_is_refused(wrong: object) -> None:
    loader = ss.Loader(stream(clips([1.0])))
    state = loader.state_dict()
    for damaged in (
        {**state, "next_batch": wrong},
        *({**state, "anchor": {**state["anchor"], name: wrong}} for name in ("batch", "epoch", "block")),
    ):
        with pytest.raises(StateError, match="the cursor is damaged"):
            loader.load_state_dict(damaged)


def test_a_cursor_that_lies_before_its_anchor_is_refused() -> None:
    loader = ss.Loader(stream(clips([1.0])))
    state = loader.state_dict()
    with pytest.raises(StateError, match=r"the cursor is damaged .*batch 2 lies before the block"):
        loader.load_state_dict({**state, "next_batch": 2, "anchor": {**state["anchor"], "batch": 3}})


def test_a_cursor_in_a_block_that_there_is_not_is_refused() -> None:
    loader = ss.Loader(stream(clips([1.0])))
    state = loader.state_dict()
    loader.load_state_dict({**state, "anchor": {**state["anchor"], "block": 1 << 62}})
    with pytest.raises(StateError, match=r"the cursor is damaged: block \d+ of epoch 0, of 1 blocks"):
        next(iter(loader))
