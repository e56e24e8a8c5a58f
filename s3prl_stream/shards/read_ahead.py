"""Batches that will be read soon: their requests are under way before anybody builds them, within a budget.

Who plans hands each builder the batches that come to it later along with the present one. They are hints: a wrong one
costs a request, never a batch.
"""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from s3prl_stream.sample import Item, PlannedBatch
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.stores.store import Ahead
from s3prl_stream.stores.wanted import reading_while

READ_AHEAD_BYTES = 64 << 20
"""Of samples, in each process: those of the batch that is being built and of those that come."""

READ_AHEAD_BATCHES = 8
"""Known ahead to each builder. At 4 MB a batch, the requests of 32 MB: more than 16 connections keep busy."""


class Task(NamedTuple):
    """What a builder is given."""

    planned: PlannedBatch
    coming: Sequence[PlannedBatch] = ()
    """Batches that the same builder will get later, each told once."""


def depth_of(shards: ShardSet) -> int:
    """How many batches ahead a builder should know: none of local sets."""
    return READ_AHEAD_BATCHES if shards.is_remote else 0


def with_coming(planned: Iterator[PlannedBatch], num_builders: int, depth: int) -> Iterator[Task]:
    """Tasks of builders that take turns, each with what comes `depth` turns later (the first ones: up to then).

    An error in planning comes where it would have come without looking ahead.
    """
    window: deque[PlannedBatch] = deque()
    failed: Exception | None = None
    exhausted = False
    first_turn = num_builders
    while True:
        while not exhausted and len(window) <= depth * num_builders:
            try:
                window.append(next(planned))
            except StopIteration:
                exhausted = True
            except Exception as error:
                exhausted, failed = True, error
        if not window:
            break
        turns = range(1 if first_turn > 0 else max(depth, 1), depth + 1)
        coming = [window[turn * num_builders] for turn in turns if turn * num_builders < len(window)]
        first_turn -= 1
        yield Task(window.popleft(), coming)
    if failed is not None:
        try:
            raise failed
        finally:
            del failed  # the error holds this frame, which must not hold the error


class ReadAhead:
    """Reads ahead for one builder.

    Args:
        shards: where the batches lie; local sets cost nothing here.
        budget_bytes: a batch is begun early only if the samples under way are no more than this with it.
    """

    def __init__(self, shards: ShardSet, budget_bytes: int = READ_AHEAD_BYTES) -> None:
        self._shards, self._budget_bytes = shards, budget_bytes
        self._waiting: deque[PlannedBatch] = deque()
        self._under_way: dict[int, tuple[int, Ahead]] = {}
        self._wanted = True

    @property
    def num_bytes(self) -> int:
        """Bytes of the samples that are under way, or here and not yet used."""
        return sum(size for size, _ in self._under_way.values())

    @contextlib.contextmanager
    def reading(self, task: Task) -> Iterator[None]:
        """Inside, the batch is built; others are read meanwhile."""
        if not self._shards.is_remote:
            yield
            return
        known = {batch.number for batch in self._waiting} | self._under_way.keys()
        self._waiting.extend(batch for batch in (task.planned, *task.coming) if batch.number not in known)
        self._begin_what_fits()
        try:
            with reading_while(lambda: self._wanted):
                yield
        finally:
            self._forget(task.planned.number)
            if self._wanted:
                self._begin_what_fits()

    def give_up(self) -> None:
        """Whoever waits inside `reading` stops soon, with a StreamError. Callable from any thread."""
        self._wanted = False

    def close(self) -> None:
        """Forget all that was read ahead."""
        self._waiting.clear()
        for number in list(self._under_way):
            self._forget(number)

    def _begin_what_fits(self) -> None:
        while self._waiting:
            batch = self._waiting[0]
            size = sum({_place(item): item.size for item in batch.items}.values())
            if self._under_way and self.num_bytes + size > self._budget_bytes:
                return
            self._waiting.popleft()
            self._under_way[batch.number] = (size, self._shards.read_ahead(batch.items))

    def _forget(self, number: int) -> None:
        if number in self._under_way:
            self._under_way.pop(number)[1].close()
        self._waiting = deque(batch for batch in self._waiting if batch.number != number)


def _place(item: Item) -> tuple[int, int, int]:
    return item.set_index, item.shard, item.offset
