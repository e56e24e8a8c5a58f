"""The planner: block after block of global batches, from the index alone.

Any block is a pure function of (index, selection, settings, epoch, block), so planning can begin anywhere. Only the
global number of a block's first batch depends on the blocks before it: that is what a cursor remembers.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import U64, hash64, uniform
from s3prl_stream.plan.batches import Batches, make_batches
from s3prl_stream.plan.blocks import EpochBlocks, epoch_blocks, shard_identities
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.plan.stretches import Stretches, cut_clips
from s3prl_stream.sample import Item, PlannedBatch
from s3prl_stream.shards.member import I64, Rows
from s3prl_stream.shards.selection import Selection
from s3prl_stream.shards.shardset import ShardSet


class Position(NamedTuple):
    """Where a block begins: the global number of its first batch, its epoch, its number in the epoch."""

    batch: int
    epoch: int
    block: int


START = Position(0, 0, 0)


class BlockPlan:
    """The batches of one block. S shards, R rows, N stretches."""

    def __init__(
        self,
        epoch: int,
        shards: list[tuple[int, int, Rows]],  # (set index, shard number in the set, its rows)
        shard_of_row: I64,  # [R], position in `shards`
        row_in_shard: I64,  # [R]
        stretches: Stretches,
        seconds: npt.NDArray[np.float64],  # [N]
        batches: Batches,
        too_long: I64,  # rows left out
    ) -> None:
        self.epoch = epoch
        self.shards = shards
        self.shard_of_row = shard_of_row
        self.row_in_shard = row_in_shard
        self.stretches = stretches
        self.seconds = seconds
        self.batches = batches
        self.too_long = too_long

    @property
    def num_batches(self) -> int:
        """Number of batches in this block."""
        return len(self.batches.edges)

    def stretches_of(self, batch: int) -> I64:
        """Numbers of the stretches in batch `batch` of this block."""
        start, stop = self.batches.edges[batch]
        return self.batches.sequence[start:stop]

    def items(self, batch: int) -> list[Item]:
        """What a worker needs to read and decode batch `batch` of this block."""
        items = []
        for stretch in self.stretches_of(batch).tolist():
            row = self.stretches.row[stretch]
            set_index, shard, rows = self.shards[self.shard_of_row[row]]
            at = int(self.row_in_shard[row])
            items.append(
                Item(
                    set_index=set_index,
                    shard=shard,
                    offset=int(rows.offset[at]),
                    size=int(rows.size[at]),
                    crc32c=int(rows.crc32c[at]),
                    key=str(rows.key[at]),
                    first_frame=int(self.stretches.first_frame[stretch]),
                    num_frames=int(self.stretches.num_frames[stretch]),
                    clip_frames=int(rows.frames[at]),
                    epoch=self.epoch,
                    draw=int(self.stretches.draw[stretch]),
                )
            )
        return items

    def keys_too_long(self) -> list[str]:
        """Keys of the clips left out by `too_long="skip"`."""
        return [str(self.shards[self.shard_of_row[row]][2].key[int(self.row_in_shard[row])]) for row in self.too_long]


class Planner:
    """Plans a ShardSet under settings and a selection. Reads the index only, a block at a time."""

    def __init__(self, shards: ShardSet, settings: PlanSettings, selection: Selection) -> None:
        self.shards = shards
        self.settings = settings
        self.selection = selection
        self._identities = shard_identities(shards)
        self._epoch_blocks: tuple[int, EpochBlocks] | None = None
        self._batches_in_epoch: dict[int, int] = {}
        self._lock = threading.Lock()

    def blocks(self, epoch: int) -> EpochBlocks:
        """The blocks of an epoch."""
        with self._lock:
            if self._epoch_blocks is None or self._epoch_blocks[0] != epoch:
                found = epoch_blocks(self._identities, self.selection, self.settings, epoch)
                self._epoch_blocks = (epoch, found)
            return self._epoch_blocks[1]

    def plan_block(self, epoch: int, block: int) -> BlockPlan:
        """One block, from its index rows."""
        shards, keep, weights = [], [], []
        for number in self.blocks(epoch).block(block).tolist():
            member, local = self.shards.locate(number)
            rows = self.shards.rows(number)
            shards.append((member, local, rows))
            mask = self.selection.mask(number)
            keep.append(np.arange(len(rows.frames)) if mask is None else np.flatnonzero(mask))
            weights.append(self.selection.weights(number))
        return arrange(self.shards, shards, keep, weights, self.settings, epoch, block)

    def walk(self, start: Position = START) -> Iterator[tuple[Position, BlockPlan]]:
        """Blocks from `start` on, each planned in a thread while the one before it is used; stops after `epochs`.

        Raises:
            UsageError: an epoch without a single batch.
        """
        with ThreadPoolExecutor(max_workers=1, thread_name_prefix="planner") as thread:
            epoch, block, batch = start.epoch, start.block, start.batch
            first_of_epoch = -1  # unknown where the walk begins inside an epoch
            following = thread.submit(self._plan_or_none, epoch, block)
            while (plan := following.result()) is not None:
                position = Position(batch, epoch, block)
                if block == 0:
                    first_of_epoch = batch
                batch += plan.num_batches
                epoch, block = (epoch, block + 1) if block + 1 < len(self.blocks(epoch)) else (epoch + 1, 0)
                if block == 0 and batch == first_of_epoch:  # an endless stream would look for one for ever
                    raise UsageError(
                        f"epoch {epoch - 1} has no batch: each of the {len(self.selection)} selected clips is longer "
                        f'than max_batch_seconds={self.settings.max_batch_seconds}. Raise it, or use too_long="split".'
                    )
                following = thread.submit(self._plan_or_none, epoch, block)
                yield position, plan

    def _plan_or_none(self, epoch: int, block: int) -> BlockPlan | None:
        if self.settings.epochs is not None and epoch >= self.settings.epochs:
            return None
        return self.plan_block(epoch, block)

    def is_last(self, epoch: int, block: int) -> bool:
        """True of the last block of a stream with an end."""
        return epoch + 1 == self.settings.epochs and block + 1 == len(self.blocks(epoch))

    def batches_in_epoch(self, epoch: int) -> int:
        """Number of batches in one epoch; plans all of it the first time it is asked."""
        if epoch not in self._batches_in_epoch:
            blocks = range(len(self.blocks(epoch)))
            self._batches_in_epoch[epoch] = sum(self.plan_block(epoch, block).num_batches for block in blocks)
        return self._batches_in_epoch[epoch]


def arrange(
    shard_set: ShardSet,
    shards: list[tuple[int, int, Rows]],
    keep: list[I64],
    weights: list[npt.NDArray[np.float32] | None],
    settings: PlanSettings,
    epoch: int,
    block: int,
) -> BlockPlan:
    """The arithmetic of one block: rows in, batches out. Pure.

    Args:
        shard_set: for the names of the sets.
        shards: (set index, shard number in its set, rows) of each shard, in the epoch's order.
        keep: selected rows of each shard.
        weights: expected draws of every row of each shard, or None for once each.
        settings, epoch, block: where in the plan.
    """
    shard_of_row = np.repeat(np.arange(len(shards)), [len(rows) for rows in keep])
    row_in_shard = np.concatenate(keep)
    frames, sample_rate = _gather(shards, keep, "frames"), _gather(shards, keep, "sample_rate")
    names = [shard_set.members[member].name for member, _, _ in shards]
    identities = np.concatenate(
        [hash64(name, rows.key_hash[on]) for name, (_, _, rows), on in zip(names, shards, keep, strict=True)]
    )
    draws: I64 = np.ones(len(frames), dtype=np.int64)
    if any(one is not None for one in weights):
        expected = np.concatenate([w[on] for w, on in zip(weights, keep, strict=True) if w is not None])
        draws = np.floor(expected + uniform(hash64("draws", settings.seed, epoch, identities))).astype(np.int64)
    stretches, too_long = cut_clips(frames, sample_rate, identities, draws, settings, epoch)
    seconds = stretches.num_frames / sample_rate[stretches.row]
    stretch_identities: U64 = hash64(identities[stretches.row], stretches.first_frame, stretches.draw)
    if len(seconds):
        batches = make_batches(seconds, shard_of_row[stretches.row], stretch_identities, settings, epoch, block)
    else:
        batches = Batches(np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=np.int64))
    return BlockPlan(epoch, shards, shard_of_row, row_in_shard, stretches, seconds, batches, too_long)


def _gather(shards: list[tuple[int, int, Rows]], keep: list[I64], name: str) -> I64:
    return np.concatenate([getattr(rows, name)[on] for (_, _, rows), on in zip(shards, keep, strict=True)])


def view(
    planner: Planner,
    start: Position,
    next_batch: int,
    rank: int,
    world_size: int,
    on_block: Callable[[Position, BlockPlan], None] | None = None,
) -> Iterator[tuple[Position, PlannedBatch, BlockPlan | None]]:
    """The batches of one rank from global batch `next_batch` on: b belongs to rank b % world_size.

    Every rank gets the same number of batches without asking the others: at a finite end, the ranks that the last
    round does not reach get a batch without items (and no block).

    Args:
        planner: of the whole stream.
        start: the beginning of a block at or before `next_batch`.
        next_batch: the first batch not yet handed out.
        rank, world_size: of data parallelism.
        on_block: called with every block that is passed, whether or not it holds a batch of this rank.
    """
    position, end = start, next_batch
    for position, block in planner.walk(start):
        if on_block is not None:
            on_block(position, block)
        end = position.batch + block.num_batches
        first = max(next_batch, position.batch)
        first += (rank - first) % world_size
        for batch in range(first, end, world_size):
            yield position, PlannedBatch(batch, block.items(batch - position.batch)), block
    end = max(end, next_batch)
    missing = -(end - next_batch) % world_size  # batches that the last round lacks
    for batch in range(end, end + missing):
        if batch % world_size == rank:
            yield position, PlannedBatch(batch, []), None
