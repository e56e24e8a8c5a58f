"""What a ShardStream makes of its settings, and of clips that are too long, too short or not selected."""

from __future__ import annotations

import pickle
from typing import Any

import pyarrow.compute
import pytest
from streams import RATE, clips, memory

import s3prl_stream as ss
from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.plan.planner import START
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet


def stream(data: Any, **settings: Any) -> Any:
    return ss.ShardStream(data, **{"epochs": 1, **settings}).load_audio(sample_rate=RATE)


@pytest.mark.parametrize("epochs", [1, None])
def test_an_epoch_without_a_batch_is_an_error_not_an_endless_search(epochs: int | None) -> None:
    loader = ss.Loader(stream(clips([9.0, 9.0]), epochs=epochs, max_batch_seconds=5.0, too_long="skip"))
    with pytest.raises(UsageError, match="epoch 0 has no batch"):
        next(iter(loader))


def test_every_clip_that_is_too_long_is_listed_once_on_every_rank() -> None:
    data = MemoryShards(clips([9.0] * 4 + [1.0] * 4 + [8.0]), samples_per_shard=4)  # a block of long clips alone
    settings = {"block_samples": 4, "epochs": 3, "max_batch_seconds": 5.0, "too_long": "skip"}
    for rank in (0, 1):
        loader = ss.Loader(stream(data, **settings), rank=rank, world_size=2)
        list(loader)
        assert sorted(loader.too_long) == ["clip0000", "clip0001", "clip0002", "clip0003", "clip0008"]


def test_clips_of_one_key_in_two_sets_are_two_that_are_too_long() -> None:
    two = ShardSet([MemoryShards(clips([9.0, 1.0]), name) for name in ("one", "two")])
    loader = ss.Loader(stream(two, epochs=2, max_batch_seconds=5.0, too_long="skip"))
    list(loader)
    assert loader.too_long == ["clip0000", "clip0000"]


def test_pieces_that_fit_no_batch_once_stages_may_stretch_them_say_why() -> None:
    chunks = stream(clips([3.0]), chunk_seconds=10.0, max_batch_seconds=10.0).perturb_speed(factors=(0.8, 1.0))
    with pytest.raises(
        UsageError, match=r"chunk_seconds=10.0 does not fit max_batch_seconds=8.0, which is 10.0 divided"
    ):
        ss.Loader(chunks)


@pytest.mark.parametrize("budget", [float("inf"), float("nan"), 0, True, "60", None])
def test_a_budget_that_is_none_is_refused(budget: Any) -> None:
    with pytest.raises(UsageError, match=f"max_batch_seconds={budget!r} is no number above 0"):
        ss.ShardStream(clips([1.0]), max_batch_seconds=budget)


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({"key_range": 0.5}, "key_range: 0.5 is no range"),
        ({"max_consecutive_failures": -1}, "max_consecutive_failures: -1 must be"),
    ],
)
def test_settings_that_are_none_are_named(settings: dict[str, Any], found: str) -> None:
    with pytest.raises(UsageError, match=found):
        stream(clips([1.0]), **settings)


def test_rows_that_are_not_selected_are_read_too() -> None:
    step = ss.ShardStream(memory([1.0] * 32), where="speaker == 's1'").planner().step(START)
    assert step is not None
    assert (step.plan.num_index_rows, len(step.plan.seconds)) == (32, 5)


def test_a_column_is_that_of_the_selected_rows_of_every_shard() -> None:
    chosen = ss.ShardStream(memory([1.0] * 40), where="speaker == 's1'")
    assert list(chosen.column("key")) == [f"clip{number:04d}" for number in range(40) if number % 7 == 1]


def test_a_collated_chain_is_no_chain_for_a_loader() -> None:
    with pytest.raises(ChainError, match=r"give the chain before .collate\(\)"):
        ss.Loader(stream(clips([1.0])).collate())


def test_a_budget_of_less_than_a_frame_gives_single_frames() -> None:
    found = ss.ShardStream(clips([0.005]), epochs=1, max_batch_seconds=1e-9).load_audio(sample_rate=RATE)
    assert [len(sample["wav"]) for sample in found] == [1] * 5


def test_a_worker_is_sent_no_selection_and_makes_the_same_where_it_plans() -> None:
    data = memory([1.0] * 4000)
    plain = len(pickle.dumps(stream(data)))
    for choice in (
        {"balance": "speaker"},
        {"where": pyarrow.compute.field("speaker") == "s1", "subset": "50%", "key_range": (0.1, 1)},
    ):
        chosen = stream(data, **choice)
        sent = pickle.dumps(chosen)
        assert len(sent) < plain + 1000  # a number for each clip would be 16 000
        assert [one["key"] for one in pickle.loads(sent)] == [one["key"] for one in chosen]
