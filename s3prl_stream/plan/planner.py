"""Planners: block after block of global batches, from the index alone.

Any block is a pure function of (index, selection, settings, position), so planning can begin anywhere. Only the
position of a block depends on the blocks before it: that is what a cursor remembers.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.hashing import hash64
from s3prl_stream.one_thread import OneThread, result_within
from s3prl_stream.plan.batches import Batches, first_of_runs, group_runs, make_batches
from s3prl_stream.plan.blocks import EpochBlocks, epoch_blocks, shard_identities
from s3prl_stream.plan.gather import Gathered, gather
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.sample import Item, PlannedBatch
from s3prl_stream.shards.member import I64
from s3prl_stream.shards.selection import Selection
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.sign_of_life import SignOfLife
from s3prl_stream.stores.kept import Kept
from s3prl_stream.stores.wanted import reading_while


class LanePosition(NamedTuple):
    """How far one set of a mix has been taken: its own epoch, block and run, and what it is owed."""

    epoch: int = 0
    block: int = 0
    run: int = 0
    owed_us: int = 0  # microseconds of audio that rounding to whole runs has left open; negative: taken in advance


class Position(NamedTuple):
    """Where a block begins: the global number of its first batch, its epoch, its number in the epoch.

    In a mix, `epoch` is 0, blocks are counted through, and `lanes` says where each set stands.
    """

    batch: int
    epoch: int
    block: int
    lanes: tuple[LanePosition, ...] = ()


START = Position(0, 0, 0)
"""Where the first block begins, but for the lanes of a mix."""


class BlockPlan:
    """The batches of one block."""

    def __init__(self, gathered: Gathered, batches: Batches) -> None:
        self.gathered, self.batches = gathered, batches
        self.shards = gathered.shards
        self.seconds = gathered.seconds

    @property
    def num_batches(self) -> int:
        return len(self.batches.edges)

    @property
    def num_index_rows(self) -> int:
        """Rows of the index from which this block was planned."""
        return sum(len(shard.rows.frames) for shard in self.shards)

    def stretches_of(self, batch: int) -> I64:
        """Numbers of the stretches in batch `batch` of this block."""
        start, stop = self.batches.edges[batch]
        return self.batches.sequence[start:stop]

    def items(self, batch: int) -> list[Item]:
        """What a worker needs to read and decode batch `batch` of this block."""
        on, found, items = self.stretches_of(batch), self.gathered, []
        columns = (found.shard, found.row, found.first_frame, found.num_frames, found.draw)
        for number, at, first_frame, num_frames, draw in zip(*(one[on].tolist() for one in columns), strict=True):
            set_index, shard, rows, epoch = self.shards[number]
            items.append(
                Item(
                    set_index=set_index,
                    shard=shard,
                    offset=int(rows.offset[at]),
                    size=int(rows.size[at]),
                    crc32c=int(rows.crc32c[at]),
                    key=str(rows.key[at]),
                    first_frame=first_frame,
                    num_frames=num_frames,
                    clip_frames=int(rows.frames[at]),
                    epoch=epoch,
                    draw=draw,
                )
            )
        return items

    def seconds_by_set(self, num_sets: int) -> npt.NDArray[np.float64]:
        """[sets] seconds of audio in this block; without padding."""
        set_of_shard = np.array([shard.set_index for shard in self.shards], dtype=np.int64)
        of_stretch = set_of_shard[self.gathered.shard]
        return np.bincount(of_stretch, weights=self.seconds, minlength=num_sets).astype(np.float64)

    def seconds_of(self, batch: int) -> list[float]:
        """Seconds of audio of each item of batch `batch` of this block."""
        seconds: list[float] = self.seconds[self.stretches_of(batch)].tolist()
        return seconds

    def clips(self, on: I64 | slice = slice(None)) -> I64:
        """[2, clips] position in `shards` and row of the clips of these stretches: each once, in the order of bytes."""
        return np.unique(np.stack([self.gathered.shard[on], self.gathered.row[on]]), axis=1)

    def clips_too_long(self) -> list[tuple[int, str]]:
        """(set index, key) of the clips left out by `too_long="skip"`."""
        places = ((self.shards[number], row) for number, row in self.gathered.too_long.tolist())
        return [(shard.set_index, str(shard.rows.key[row])) for shard, row in places]


class Step(NamedTuple):
    """A planned block, and where the next one begins; None: it was the last."""

    plan: BlockPlan
    following: Position | None


class Planner:
    """Plans a ShardSet under settings and a selection. Reads the index only, a block at a time.

    Two kinds of planner give blocks: `EpochPlanner` (every clip of all sets once an epoch) and `mix.MixPlanner` (sets
    by weight, each with its own epochs).
    """

    def __init__(self, shards: ShardSet, settings: PlanSettings, selection: Selection) -> None:
        self.shards = shards
        self.settings = settings
        self.selection = selection
        self.start = START

    def step(self, position: Position) -> Step | None:
        """The block at a position; None: the stream has ended before it."""
        raise NotImplementedError

    def walk(
        self, start: Position | None = None, longest_wait_seconds: float | None = None
    ) -> Iterator[tuple[Position, Step]]:
        """Blocks from `start` on, each planned in a thread while the one before it is used; stops at a finite end.

        Raises:
            StuckLoader: a block took longer than the longest wait (None: as long as it takes).
        """
        wanted = True

        def plan(position: Position) -> Step | None:
            with reading_while(lambda: wanted):
                return self.step(position)

        with OneThread("planner") as thread:
            position: Position | None = self.start if start is None else start
            coming = thread.submit(plan, position) if position is not None else None
            try:
                while position is not None and coming is not None:
                    what = f"planning block {position.block} of epoch {position.epoch}"
                    if (step := result_within(coming, longest_wait_seconds, what)) is None:
                        break
                    here, position = position, step.following
                    coming = None if position is None else thread.submit(plan, position)
                    yield here, step
            finally:
                wanted = False  # or the end would wait for a store that nobody waits for
                del coming  # its error holds this frame, which must not hold the error

    def num_batches(self) -> int:
        """Global batches from beginning to end; plans all of it. Only for a stream with an end."""
        return sum(step.plan.num_batches for _, step in self.walk())


class EpochPlanner(Planner):
    """Every selected clip of all sets once an epoch."""

    def __init__(self, shards: ShardSet, settings: PlanSettings, selection: Selection) -> None:
        super().__init__(shards, settings, selection)
        self._identities = shard_identities(shards.members)
        self._epoch_blocks: Kept[int, EpochBlocks] = Kept(1)
        self._batches_in_epoch: dict[int, int] = {}
        self._first_of_epoch: dict[int, int] = {}

    def blocks(self, epoch: int) -> EpochBlocks:
        counts = self.selection.counts
        return self._epoch_blocks.get(epoch, lambda: epoch_blocks(self._identities, counts, self.settings, epoch))

    def plan_block(self, epoch: int, block: int) -> BlockPlan:
        """One block, from its index rows."""
        numbers = self.blocks(epoch).block(block).tolist()
        shards = zip(numbers, self.shards.rows_of(numbers), strict=True)
        return arrange(gather(self.shards, self.selection, self.settings, shards, epoch), self.settings, epoch, block)

    def step(self, position: Position) -> Step | None:
        """The block at a position.

        Raises:
            UsageError: an epoch without a single batch.
        """
        batch, epoch, block, _ = position
        if self.settings.epochs is not None and epoch >= self.settings.epochs:
            return None
        if not 0 <= block < len(self.blocks(epoch)):
            raise StateError(
                f"the cursor is damaged: block {block} of epoch {epoch}, of {len(self.blocks(epoch))} blocks"
            )
        plan = self.plan_block(epoch, block)
        if block == 0:
            self._first_of_epoch = {epoch: batch}
        batch += plan.num_batches
        last_of_epoch = block + 1 == len(self.blocks(epoch))
        if last_of_epoch and batch == self._first_of_epoch.get(epoch):  # an endless stream would look for one for ever
            raise UsageError(
                f"epoch {epoch} has no batch: each of the {len(self.selection)} selected clips is longer "
                f'than max_batch_seconds={self.settings.max_batch_seconds}. Raise it, or use too_long="split".'
            )
        if last_of_epoch and epoch + 1 == self.settings.epochs:
            return Step(plan, None)
        return Step(plan, Position(batch, epoch + 1, 0) if last_of_epoch else Position(batch, epoch, block + 1))

    def batches_in_epoch(self, epoch: int) -> int:
        """Number of batches in one epoch; plans all of it the first time it is asked."""
        if epoch not in self._batches_in_epoch:
            found, life, blocks = 0, SignOfLife(), len(self.blocks(epoch))
            for block in range(blocks):
                found += self.plan_block(epoch, block).num_batches
                life.tell("planning epoch %d: block %d of %d", epoch, block + 1, blocks)
            self._batches_in_epoch[epoch] = found
        return self._batches_in_epoch[epoch]

    def num_batches(self) -> int:
        """Global batches of all epochs."""
        return sum(self.batches_in_epoch(epoch) for epoch in range(self.settings.epochs or 0))


def arrange(gathered: Gathered, settings: PlanSettings, epoch: int, block: int) -> BlockPlan:
    """The arithmetic from stretches to batches. Pure."""
    seconds = gathered.seconds
    if not len(seconds):
        return BlockPlan(gathered, Batches(np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=np.int64)))
    run_of = group_runs(seconds, gathered.shard, settings, epoch)
    random = hash64("run", settings.seed, epoch, gathered.identities[first_of_runs(run_of)])
    return BlockPlan(gathered, make_batches(seconds, run_of, random, settings, (epoch, block)))


def view(
    blocks: Iterable[tuple[Position, Step]], next_batch: int, rank: int, world_size: int
) -> Iterator[tuple[Position | None, PlannedBatch, list[float]]]:
    """The batches of one rank from global batch `next_batch` on: b belongs to rank b % world_size.

    Every rank gets the same number of batches without asking the others: at a finite end, the ranks that the last
    round does not reach get a batch without items.

    Args:
        blocks: as `Planner.walk` gives them, from one at or before `next_batch`.
        next_batch: the first batch not yet handed out.
        rank, world_size: of data parallelism.

    Yields:
        (where its block begins, the batch, seconds of audio of each item). Of a batch without items the block is the
        last one; None: there was none.
    """
    position, end = None, next_batch
    for position, step in blocks:
        block = step.plan
        end = position.batch + block.num_batches
        first = max(next_batch, position.batch)
        first += (rank - first) % world_size
        for batch in range(first, end, world_size):
            in_block = batch - position.batch
            yield position, PlannedBatch(batch, block.items(in_block)), block.seconds_of(in_block)
    end = max(end, next_batch)
    missing = -(end - next_batch) % world_size  # batches that the last round lacks
    for batch in range(end, end + missing):
        if batch % world_size == rank:
            yield position, PlannedBatch(batch, []), []
