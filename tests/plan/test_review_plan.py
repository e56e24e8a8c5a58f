"""Corners of the plan, the cursor and the selection that a review found wrong once."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from streams import RATE, clips, memory

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import ChainError, StateError, UsageError
from s3prl_stream.plan.planner import START
from s3prl_stream.plan.quality import measure
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.store import MAX_OPEN_FILES, LocalStore
from s3prl_stream.shards.synthetic import make_synthetic_index


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
        loader.prefetch = prefetch
    for _ in zip(*loaders, strict=True):
        states = [loader.state_dict() for loader in loaders]
        assert all(state == states[0] for state in states)


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


def test_what_changes_the_plan_of_samples_in_memory_changes_their_fingerprint() -> None:
    data = clips([1.0] * 9)
    faster = {key: {**sample, "sample_rate": 2 * RATE} for key, sample in data.items()}
    sets = [MemoryShards(data), MemoryShards(data, samples_per_shard=3), MemoryShards(faster)]
    assert len({one.fingerprint for one in sets}) == 3
    assert MemoryShards(data).fingerprint == sets[0].fingerprint


def test_an_amount_by_column_is_shared_by_the_values_that_where_kept() -> None:
    chosen = ss.ShardStream(clips([1.0] * 700), where="speaker in ('s0', 's1')", subset="70s by speaker")
    assert len(chosen.selection) == 70


@pytest.mark.parametrize(
    "where", ["speaker in (1, 'x')", f"seconds > 1{'0' * 40}", f"seconds in (1{'0' * 40},)", "speaker in ()", 5]
)
def test_a_where_that_arrow_cannot_take_is_one_line(where: Any) -> None:
    with pytest.raises(UsageError, match="where: ") as caught:
        ss.ShardStream(clips([1.0, 2.0]), where=where)
    assert "\n" not in str(caught.value)


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


@pytest.mark.parametrize(
    "sample", [{"wav": 5}, {"wav": np.zeros(9), "sample_rate": 0}, {"wav": [], "sample_rate": None}]
)
def test_a_sample_in_memory_without_a_length_is_named(sample: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"'a' has a wav of type \w+ and sample_rate"):
        MemoryShards({"a": sample})


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


def test_metadata_of_several_kinds_become_text_in_memory() -> None:
    data = {"a": {"wav": np.zeros(9), "label": 1}, "b": {"wav": np.zeros(9), "label": "x"}}
    assert len(ss.ShardStream(data, where="label == 'x'").selection) == 1


def test_the_quality_of_samples_in_memory_can_be_measured() -> None:
    found = measure(ss.ShardStream(memory([1.0 + n % 3 for n in range(100)]), max_batch_seconds=20.0).planner())
    assert found.clips == 100
    assert found.speakers_vs_uniform == pytest.approx(1.0, abs=0.15)
    two = ShardSet([MemoryShards(clips([length] * 30), name) for name, length in (("one", 1.0), ("two", 3.0))])
    assert measure(ss.ShardStream(two, max_batch_seconds=9.0).planner()).share_of_set == {"one": 0.25, "two": 0.75}


def test_several_sets_are_not_inspected_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        make_synthetic_index(tmp_path / name, 1, samples_per_shard=5, name=name)
    assert main(["inspect", f"{tmp_path}/{{a,b}}"]) == 2
    assert "2 sets; inspect them one by one" in capsys.readouterr().err


def test_no_blocks_to_measure_is_wrong_use(sample_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(sample_set), "--blocks", "0"]) == 2
    assert "--blocks 0" in capsys.readouterr().err


def test_files_are_read_from_several_threads_while_others_let_go_of_them(tmp_path: Path) -> None:
    names = [f"{number:03d}" for number in range(2 * MAX_OPEN_FILES)]
    for name in names:
        (tmp_path / name).write_text(name)
    files = LocalStore(tmp_path)
    wrong: list[str] = []

    def read_all(step: int) -> None:
        for at in range(0, 3 * len(names) * step, step):
            name = names[at % len(names)]
            if files.read(name, 0, 3) != name.encode():
                wrong.append(name)

    threads = [threading.Thread(target=read_all, args=(step,)) for step in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
