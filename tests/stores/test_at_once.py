"""What a store is asked for at once: reads that do not wait for one another."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from apart import in_child
from synthetic_index import make_synthetic_index

import s3prl_stream as ss
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.stores.at_once import MOST_AT_ONCE, at_once
from s3prl_stream.stores.object_store import ObjectStore
from s3prl_stream.stores.wanted import reading_while, still_wanted


def together(number: int) -> Callable[[], None]:
    """A call that returns only while `number` calls are under way at once; else it is an error."""
    barrier = threading.Barrier(number, timeout=60)

    def meet() -> None:
        barrier.wait()

    return meet


def test_results_come_in_order_and_calls_overlap() -> None:
    meet = together(MOST_AT_ONCE)

    def double(number: int) -> int:
        meet()
        return 2 * number

    assert list(at_once(double, range(3 * MOST_AT_ONCE), is_remote=True)) == [*range(0, 6 * MOST_AT_ONCE, 2)]


def test_a_disk_is_asked_by_the_caller_one_by_one() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in range(9):
            taken.append(number)
            yield number

    results = at_once(lambda number: (number, threading.current_thread()), items(), is_remote=False)
    assert next(results) == (0, threading.main_thread())
    assert taken == [0]


def test_an_error_comes_where_it_would_have_come() -> None:
    def inverse(number: int) -> float:
        return 1 / (number - 2)

    results = at_once(inverse, range(9), is_remote=True)
    assert [next(results), next(results)] == [-0.5, -1.0]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("ended_by", ["whoever reads", "whoever it is read for"])
def test_what_nobody_waits_for_is_given_up(ended_by: str) -> None:
    begun, still = threading.Event(), True

    def endless(number: int) -> int:
        while number and still_wanted():
            begun.set()
        return number

    with reading_while(lambda: still):
        results = at_once(endless, range(MOST_AT_ONCE), is_remote=True)
        assert next(results) == 0
        assert begun.wait(60)
        if ended_by == "whoever reads":
            results.close()
        else:
            still = False
            assert next(results) == 1


@in_child
def test_index_parts_of_a_store_are_fetched_at_once(tmp_path: Path) -> None:
    make_synthetic_index(tmp_path / "set", 40, samples_per_shard=5)
    expected = np.concatenate([one.column("frames") for one in ShardFolder(tmp_path / "set").batches(["frames"])])
    remote = ShardFolder(ObjectStore((tmp_path / "set").as_uri()))
    meet, read_whole = together(3), ObjectStore.read_whole

    def read(store: ObjectStore, name: str, *, at_most: int) -> bytes:
        meet()
        return read_whole(store, name, at_most=at_most)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ObjectStore, "read_whole", read)
        found = np.concatenate([one.column("frames") for one in remote.batches(["frames"])])
    assert (found == expected).all()


@pytest.mark.parametrize("mixed", [False, True])
def test_the_rows_of_a_block_are_fetched_at_once(monkeypatch: pytest.MonkeyPatch, mixed: bool) -> None:
    clips = [{"wav": np.zeros(16_000, np.int16)}] * 8
    members = [MemoryShards(clips, name) for name in "abcd"]
    shards = ShardSet(members, (0.25,) * 4 if mixed else None)
    expected = next(ss.ShardStream(shards, max_batch_seconds=4.0).planned()).items
    meet, rows = together(4), ShardSet.rows

    def read(these: ShardSet, shard: int) -> object:
        meet()
        return rows(these, shard)

    monkeypatch.setattr(ShardSet, "rows", read)
    monkeypatch.setattr(MemoryShards, "is_remote", True)
    planner = ss.ShardStream(shards, max_batch_seconds=4.0, run=1).planner()
    step = planner.step(planner.start)
    assert step is not None
    assert step.plan.items(0) == expected


def test_several_sets_of_a_store_are_opened_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from s3prl_stream.shards import folder, shardset

    for name in "abc":
        make_synthetic_index(tmp_path / name, 1, samples_per_shard=5, name=name)
    meet, read = together(3), folder.read_manifest

    def read_manifest(store: object) -> object:
        meet()
        return read(store)  # type: ignore[arg-type]

    monkeypatch.setattr(folder, "read_manifest", read_manifest)
    monkeypatch.setattr(shardset, "is_remote", lambda _: True)
    assert ss.open_shards([tmp_path / name for name in "abc"]).name == "a+b+c"
