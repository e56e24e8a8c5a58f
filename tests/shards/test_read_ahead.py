"""Which batches are read ahead, in which order, and how many bytes of them at most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from streams import memory

from s3prl_stream.sample import Item, PlannedBatch
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.read_ahead import ReadAhead, Task, with_coming
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.stores.store import Ahead
from s3prl_stream.stores.wanted import still_wanted


def planned(count: int, size: int = 10) -> Iterator[PlannedBatch]:
    for number in range(count):
        yield PlannedBatch(number, [Item(0, 0, number * 100, size, -1, f"k{number}", 0, 1, 1, 0, 0)])


@given(st.integers(0, 30), st.integers(1, 4), st.integers(0, 5))
def test_each_builder_is_told_once_what_comes_to_it(count: int, num_builders: int, depth: int) -> None:
    tasks = list(with_coming(planned(count), num_builders, depth))
    assert [task.planned.number for task in tasks] == list(range(count))
    for builder in range(num_builders):
        known: list[int] = []
        for turn, task in enumerate(tasks[builder::num_builders]):
            assert task.planned.number in known or turn == 0 or depth == 0
            known += [batch.number for batch in task.coming]
            until = task.planned.number + depth * num_builders
            if depth:
                assert known == list(range(builder + num_builders, min(until + 1, count), num_builders))
            else:
                assert known == []


def test_an_error_of_the_plan_comes_after_what_was_planned_before_it() -> None:
    def failing() -> Iterator[PlannedBatch]:
        yield from planned(5)
        raise OSError("no index")

    tasks = with_coming(failing(), 2, 3)
    assert [next(tasks).planned.number for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(OSError, match="no index"):
        next(tasks)


class Recorded(MemoryShards):
    """A set that notes what is begun and forgotten."""

    is_remote = True

    def __init__(self) -> None:
        super().__init__({"key": {"wav": [0.0]}})
        self.under_way: list[str] = []
        self.most_bytes = 0

    def read_ahead(self, items: Sequence[Item]) -> Ahead:
        noted, names = self, [item.key for item in items]

        class Noted:
            def close(self) -> None:
                for name in names:
                    noted.under_way.remove(name)

        self.under_way += names
        self.most_bytes = max(self.most_bytes, sum(item.size for item in items) * len(self.under_way))
        return Noted()


def test_batches_begin_in_their_order_as_far_as_the_budget_goes() -> None:
    shards = Recorded()
    ahead = ReadAhead(ShardSet([shards]), budget_bytes=35)
    seen = []
    for task in with_coming(planned(7), 1, 5):
        with ahead.reading(task):
            assert task.planned.number == int(shards.under_way[0][1:])
            seen.append([int(name[1:]) for name in shards.under_way])
            assert ahead.num_bytes == 10 * len(shards.under_way) <= 35
    assert seen == [[0, 1, 2], [1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 6], [5, 6], [6]]
    assert shards.under_way == []


def test_a_batch_larger_than_the_budget_is_read_alone() -> None:
    shards = Recorded()
    ahead = ReadAhead(ShardSet([shards]), budget_bytes=5)
    for task in with_coming(planned(3), 1, 2):
        with ahead.reading(task):
            assert shards.under_way == [f"k{task.planned.number}"]


def test_stretches_of_one_clip_count_once() -> None:
    shards = Recorded()
    ahead = ReadAhead(ShardSet([shards]))
    item = next(planned(1)).items[0]
    with ahead.reading(Task(PlannedBatch(0, [item, item._replace(first_frame=5)]))):
        assert ahead.num_bytes == item.size


def test_closing_forgets_and_a_failed_batch_does_too() -> None:
    shards = Recorded()
    ahead = ReadAhead(ShardSet([shards]))
    first, second, *_ = with_coming(planned(9), 1, 3)
    with pytest.raises(OSError, match="broken"), ahead.reading(first):
        raise OSError("broken")
    assert shards.under_way == ["k1", "k2", "k3"]
    with ahead.reading(second):
        assert still_wanted()
        ahead.give_up()
        assert not still_wanted()
    assert still_wanted()
    ahead.close()
    assert shards.under_way == []


def test_a_wrong_hint_is_forgotten_when_its_batch_never_comes() -> None:
    shards = Recorded()
    ahead = ReadAhead(ShardSet([shards]))
    one, other, *_ = planned(9)
    with ahead.reading(Task(one, [other])):
        pass
    assert shards.under_way == ["k1"]
    ahead.close()
    assert shards.under_way == []


def test_local_sets_cost_nothing() -> None:
    shards = ShardSet([memory([1.0] * 4)])
    ahead = ReadAhead(shards)
    assert not shards.is_remote
    for task in with_coming(planned(5), 1, 0):
        assert task.coming == []
        with ahead.reading(task):
            assert ahead.num_bytes == 0
