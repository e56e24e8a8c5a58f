"""A lane of a mix: one set's own endless order, off which runs are taken.

Its shards come by a hash of the epoch, in blocks of its own, the runs of a block shuffled. Nothing is passed over, so
within each of its epochs every clip is delivered once.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import hash64
from s3prl_stream.plan.batches import concatenate_runs, first_of_runs, group_runs, make_batches
from s3prl_stream.plan.blocks import EpochBlocks, epoch_blocks, shard_identities
from s3prl_stream.plan.gather import Gathered, gather, joined
from s3prl_stream.plan.planner import BlockPlan, LanePosition
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.shards.member import I64, Rows
from s3prl_stream.shards.selection import Selection
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.stores.kept import Kept


class LaneBlock(NamedTuple):
    """One block of a lane, its runs in the order in which they are taken."""

    gathered: Gathered
    sequence: I64  # [N] stretches, run by run
    end_us: I64  # [runs] microseconds up to and with each run
    end_stretch: I64  # [runs] stretches up to and with each run


class Piece(NamedTuple):
    block: LaneBlock
    first_run: int
    stop_run: int


class Lane:
    """The endless order of one set.

    Args:
        shards: all sets.
        selection, settings: of the stream.
        rows_of: the index rows of shards by their global numbers.
        index: which set.
        first_shard: its first one's global number.
    """

    def __init__(
        self,
        shards: ShardSet,
        selection: Selection,
        settings: PlanSettings,
        rows_of: Callable[[Sequence[int]], list[Rows]],
        *,
        index: int,
        first_shard: int,
    ) -> None:
        self.shards, self.selection, self.settings, self.rows_of = shards, selection, settings, rows_of
        self.first_shard = first_shard
        member = shards.members[index]
        self.name = member.name
        self.identities = shard_identities([member])
        self.counts = selection.counts[first_shard : first_shard + len(member.shard_names)]
        self.num_samples = int(self.counts.sum())
        mean = float(member.shard_seconds.sum()) / max(int(member.shard_samples.sum()), 1)
        if settings.crop_seconds is not None and settings.crops == "per_clip":
            mean = min(mean, settings.crop_seconds)
        self.mean_seconds = max(mean, 1e-3)
        self._kept_epoch: Kept[int, EpochBlocks] = Kept(1)
        self._kept_block: Kept[tuple[int, int], LaneBlock] = Kept(1)

    def take(self, at: LanePosition, due_us: int) -> tuple[list[Piece], LanePosition]:
        """Runs from a position on until `due_us` is reached or passed, and where the lane then stands."""
        pieces: list[Piece] = []
        epoch, number, run, _ = at
        fruitless_epochs = 0
        while due_us > 0:
            block = self._lane_block(epoch, number)
            before = int(block.end_us[run - 1]) if run else 0
            stop = min(int(np.searchsorted(block.end_us, before + due_us)) + 1, len(block.end_us))
            if stop > run:
                pieces.append(Piece(block, run, stop))
                given_us = int(block.end_us[stop - 1]) - before
                due_us -= given_us
                if given_us:
                    fruitless_epochs = 0
            run = stop
            if run >= len(block.end_us):
                epoch, number, run = self._after(epoch, number)
                fruitless_epochs += number == 0
                if fruitless_epochs > 1:
                    raise UsageError(
                        f"set {self.name}: each of its {self.num_samples} selected "
                        f"clips is longer than max_batch_seconds={self.settings.max_batch_seconds}, or has no "
                        'audio. Raise it, use too_long="split", or leave the set out.'
                    )
        return pieces, LanePosition(epoch, number, run, due_us)

    def left_us(self, at: LanePosition, epochs: int, enough_us: int) -> int:
        """Microseconds from a position to the end of the last epoch; counted no further than beyond `enough_us`."""
        epoch, number, run, _ = at
        left = 0
        while epoch < epochs and left <= enough_us:
            ends = self._lane_block(epoch, number).end_us
            if len(ends):
                left += int(ends[-1]) - (int(ends[run - 1]) if run else 0)
            epoch, number, run = self._after(epoch, number)
        return left

    def _after(self, epoch: int, number: int) -> tuple[int, int, int]:
        return (epoch, number + 1, 0) if number + 1 < len(self._blocks(epoch)) else (epoch + 1, 0, 0)

    def _blocks(self, epoch: int) -> EpochBlocks:
        size = max(self.settings.block_samples // len(self.shards.members), 1)
        smaller = dataclasses.replace(self.settings, block_samples=size)
        return self._kept_epoch.get(epoch, lambda: epoch_blocks(self.identities, self.counts, smaller, epoch))

    def shards_to_read(self, at: LanePosition) -> list[int]:
        """Global numbers of the shards whose rows are needed at a position; none if its block is planned."""
        return [] if (at.epoch, at.block) in self._kept_block else self._shards(at.epoch, at.block)

    def _lane_block(self, epoch: int, number: int) -> LaneBlock:
        return self._kept_block.get((epoch, number), lambda: self._plan(epoch, number))

    def _shards(self, epoch: int, number: int) -> list[int]:
        return [self.first_shard + local for local in self._blocks(epoch).block(number).tolist()]

    def _plan(self, epoch: int, number: int) -> LaneBlock:
        settings = self.settings
        shards = self._shards(epoch, number)
        rows = zip(shards, self.rows_of(shards), strict=True)
        gathered = gather(self.shards, self.selection, settings, rows, epoch)
        if not len(gathered.seconds):
            nothing = np.zeros(0, dtype=np.int64)
            return LaneBlock(gathered, nothing, nothing, nothing)
        run_of = group_runs(gathered.seconds, gathered.shard, settings, epoch)
        first = first_of_runs(run_of)
        order = np.argsort(hash64("lane", settings.seed, epoch, gathered.identities[first]), kind="stable")
        sequence = concatenate_runs(order, first, len(run_of))
        end_stretch = np.cumsum(np.diff(first, append=len(run_of))[order])
        end_us = np.cumsum(np.round(gathered.seconds * 1e6).astype(np.int64)[sequence])[end_stretch - 1]
        return LaneBlock(gathered, sequence, end_us, end_stretch)


def join(pieces: list[Piece], settings: PlanSettings, number: int) -> BlockPlan:
    """Pieces of lanes -> one block of batches."""
    parts, sizes = [], []
    for block, first, stop in pieces:
        begin = int(block.end_stretch[first - 1]) if first else 0
        parts.append((block.gathered, block.sequence[begin : int(block.end_stretch[stop - 1])]))
        sizes.append(np.diff(block.end_stretch[first:stop], prepend=begin))
    together, size = joined(parts), np.concatenate(sizes)
    run_of = np.repeat(np.arange(len(size)), size)
    first_of_run = first_of_runs(run_of)
    # a small set may pass more than one of its epochs in one block: two epochs of a clip are two draws
    epoch = np.array([one.epoch for one in together.shards])[together.shard[first_of_run]]
    random = hash64("run", settings.seed, epoch, together.identities[first_of_run])
    return BlockPlan(together, make_batches(together.seconds, run_of, random, settings, ("mix", number)))
