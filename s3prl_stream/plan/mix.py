"""Several sets by weight: each set is a lane with its own epochs, and a block takes from each lane what it is due.

A lane is the set's own endless order: its shards by a hash of the epoch, in blocks of its own, the runs of a block
shuffled. A block of the mix takes runs off each lane until the lane has had its share of the block's seconds; what
rounding to whole runs leaves open is carried on, so the shares are exact in the long run however long the clips are.
Nothing of a lane is passed over, so within each set's epoch every clip is delivered once.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import U64, hash64
from s3prl_stream.plan.batches import concatenate_runs, first_of_runs, group_runs, make_batches
from s3prl_stream.plan.blocks import EpochBlocks, epoch_blocks, shard_identities
from s3prl_stream.plan.gather import Gathered, PlannedShard, gather
from s3prl_stream.plan.planner import START, BlockPlan, EpochPlanner, LanePosition, Planner, Position, Step
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.plan.stretches import Stretches
from s3prl_stream.shards.kept import Kept
from s3prl_stream.shards.member import I64, Rows
from s3prl_stream.shards.selection import Selection
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.weights import Weights

MOST_CACHED_ROWS = 64
"""Index rows of this many shards are kept: a small set is drawn from again and again."""


class Change(NamedTuple):
    """From the first block that begins at or after global batch `first_batch`, sets are mixed by `weights`."""

    first_batch: int
    weights: Weights  # one a set, in the order of the sets; they sum to 1


class MixPlanner(Planner):
    """Plans a ShardSet whose sets have weights.

    `changes` is the history of the weights, oldest first; a loader that resumes a run replaces it.

    Raises:
        UsageError: a set with a weight of which nothing is selected; settings that a mix cannot have.
    """

    def __init__(self, shards: ShardSet, settings: PlanSettings, selection: Selection) -> None:
        super().__init__(shards, settings, selection)
        if shards.weights is None:
            raise UsageError("a mix needs weights: open_shards({set: weight, ...}), or temperature=")
        if not settings.shuffle:
            raise UsageError("a mix by weights is shuffled; read the sets one by one with shuffle=False")
        if selection.with_replacement:
            raise UsageError("balance= and weights both say how often a clip is drawn; use one of them")
        if (settings.epochs is None) != (settings.stop is None):
            raise UsageError('a mix with epochs= says where it ends: stop="first" or stop="all" (and only such a mix)')
        self.changes = [Change(0, shards.weights)]
        identities = shard_identities(shards)
        self._lanes = []
        first = 0
        for index, member in enumerate(shards.members):
            on = slice(first, first + len(member.shard_names))
            lane = _Lane(self, index, first, identities[on], selection.counts[on])
            if shards.weights[index] > 0 and not lane.num_samples:
                raise UsageError(f"set {member.name}: nothing of it is selected, and its weight is not 0")
            self._lanes.append(lane)
            first = on.stop
        self.start = START._replace(lanes=(LanePosition(),) * len(self._lanes))
        self._rows: Kept[int, Rows] = Kept(MOST_CACHED_ROWS)

    def weights_at(self, batch: int) -> Weights:
        """The weights of a block that begins at global batch `batch`.

        Raises:
            UsageError: they are not known any more: a cursor remembers the last changes only.
        """
        for change in reversed(self.changes):
            if change.first_batch <= batch:
                return change.weights
        raise UsageError(f"the weights of the mix before batch {self.changes[0].first_batch} are not known any more")

    def change_weights(self, history: Sequence[Change], since: int) -> None:
        """Follow a run's history of weights; where this set's own weights differ from its last, they hold `since`.

        Args:
            history: all weights by which a block may have been planned of which batches were handed over.
            since: a global batch; blocks that begin before it keep their weights.
        """
        self.changes = [*history]
        if self.changes[-1].weights != self.shards.weights and self.shards.weights is not None:
            self.changes.append(Change(since, self.shards.weights))

    def step(self, position: Position) -> Step | None:
        """The block at a position.

        Raises:
            UsageError: a set of which no clip fits a batch, or none has audio.
        """
        weights = self.weights_at(position.batch)
        if self._has_ended(position.lanes, weights):
            return None
        shares = [round(self._block_us(weights) * weight) for weight in weights]
        due = [lane.owed_us + share for lane, share in zip(position.lanes, shares, strict=True)]
        while max(due) <= 0:  # every lane has given long runs in advance
            due = [one + share for one, share in zip(due, shares, strict=True)]
        due = self._cut_at_end(position.lanes, due)
        if max(due) <= 0:  # too_long="skip" leaves nothing of the set that ends the mix
            if position.block:
                return None
            raise UsageError(
                f"mix: not one selected clip of a set fits max_batch_seconds={self.settings.max_batch_seconds}, or "
                'none has audio. Raise it, use too_long="split", or leave the set out.'
            )
        self._read_ahead(position.lanes, due)
        taken = [lane.take(at, us) for lane, at, us in zip(self._lanes, position.lanes, due, strict=True)]
        pieces = [piece for lane_pieces, _ in taken for piece in lane_pieces]
        lanes = tuple(at for _, at in taken)
        plan = _join(pieces, self.settings, position.block)
        batch = position.batch + plan.num_batches
        following = Position(batch, 0, position.block + 1, lanes)
        return Step(plan, None if self._has_ended(lanes, self.weights_at(batch)) else following)

    def rows_of(self, shards: Sequence[int]) -> list[Rows]:
        """Index rows of shards by their global numbers, kept for a while."""
        missing = [shard for shard in shards if shard not in self._rows]
        read = dict(zip(missing, self.shards.rows_of(missing), strict=True))

        def rows(shard: int) -> Rows:
            return read[shard] if shard in read else self.shards.rows(shard)

        return [self._rows.get(shard, functools.partial(rows, shard)) for shard in shards]

    def _read_ahead(self, lanes: Sequence[LanePosition], due: Sequence[int]) -> None:
        """The rows of what each lane takes first, of all lanes at once: in a store each would wait for its own."""
        coming = [
            shard
            for lane, at, us in zip(self._lanes, lanes, due, strict=True)
            if us > 0
            for shard in lane.shards_to_read(at)
        ]
        self.rows_of(coming[:MOST_CACHED_ROWS])

    def _block_us(self, weights: Weights) -> float:
        """Microseconds of audio in a block: about `block_samples` clips, and at least one set not twice in it."""
        used = [(lane, weight) for lane, weight in zip(self._lanes, weights, strict=True) if weight > 0]
        clips_a_second = sum(weight / lane.mean_seconds for lane, weight in used)
        whole_set = max(lane.num_samples * lane.mean_seconds / weight for lane, weight in used)
        return min(self.settings.block_samples / clips_a_second, whole_set) * 1e6

    def _has_ended(self, lanes: Sequence[LanePosition], weights: Weights) -> bool:
        epochs = self.settings.epochs
        if epochs is None:
            return False
        done = [lane.epoch >= epochs for lane, weight in zip(lanes, weights, strict=True) if weight > 0]
        return any(done) if self.settings.stop == "first" else all(done)

    def _cut_at_end(self, lanes: Sequence[LanePosition], due: list[int]) -> list[int]:
        """What each lane gives to the last block: shares of it, up to where the set that ends the mix ends."""
        epochs = self.settings.epochs
        if epochs is None:
            return due
        left = [
            (lane.left_us(at, epochs, us), us)
            for lane, at, us in zip(self._lanes, lanes, due, strict=True)
            if us > 0 and at.epoch < epochs
        ]
        ends = [(available, us) for available, us in left if available <= us]
        if not ends or (self.settings.stop == "all" and len(ends) < len(left)):
            return due
        choose = min if self.settings.stop == "first" else max
        available, us = choose(ends, key=lambda end: end[0] / end[1])
        return [-(-one * available // us) if one > 0 else one for one in due]


class _LaneBlock(NamedTuple):
    """One block of a lane, its runs in the order in which they are taken."""

    gathered: Gathered
    sequence: I64  # [N] stretches, run by run
    end_us: I64  # [runs] microseconds up to and with each run
    end_stretch: I64  # [runs] stretches up to and with each run


class _Piece(NamedTuple):
    block: _LaneBlock
    first_run: int
    stop_run: int


class _Lane:
    """The order of one set of a mix."""

    def __init__(self, planner: MixPlanner, index: int, first_shard: int, identities: U64, counts: I64) -> None:
        self.planner = planner
        self.index = index
        self.first_shard = first_shard
        self.identities = identities
        self.counts = counts
        self.num_samples = int(counts.sum())
        member = planner.shards.members[index]
        mean = float(member.shard_seconds.sum()) / max(int(member.shard_samples.sum()), 1)
        settings = planner.settings
        if settings.crop_seconds is not None and settings.crops == "per_clip":
            mean = min(mean, settings.crop_seconds)
        self.mean_seconds = max(mean, 1e-3)
        self._kept_epoch: Kept[int, EpochBlocks] = Kept(1)
        self._kept_block: Kept[tuple[int, int], _LaneBlock] = Kept(1)

    def take(self, at: LanePosition, due_us: int) -> tuple[list[_Piece], LanePosition]:
        """Runs from a position on until `due_us` is reached or passed, and where the lane then stands."""
        pieces: list[_Piece] = []
        epoch, number, run, _ = at
        fruitless_epochs = 0
        while due_us > 0:
            block = self._lane_block(epoch, number)
            before = int(block.end_us[run - 1]) if run else 0
            stop = min(int(np.searchsorted(block.end_us, before + due_us)) + 1, len(block.end_us))
            if stop > run:
                pieces.append(_Piece(block, run, stop))
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
                        f"set {self.planner.shards.members[self.index].name}: each of its {self.num_samples} selected "
                        f"clips is longer than max_batch_seconds={self.planner.settings.max_batch_seconds}, or has no "
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
        settings = self.planner.settings
        size = max(settings.block_samples // len(self.planner.shards.members), 1)
        smaller = dataclasses.replace(settings, block_samples=size)
        return self._kept_epoch.get(epoch, lambda: epoch_blocks(self.identities, self.counts, smaller, epoch))

    def shards_to_read(self, at: LanePosition) -> list[int]:
        """Global numbers of the shards whose rows are needed at a position; none if its block is planned."""
        return [] if (at.epoch, at.block) in self._kept_block else self._shards(at.epoch, at.block)

    def _lane_block(self, epoch: int, number: int) -> _LaneBlock:
        return self._kept_block.get((epoch, number), lambda: self._plan(epoch, number))

    def _shards(self, epoch: int, number: int) -> list[int]:
        return [self.first_shard + local for local in self._blocks(epoch).block(number).tolist()]

    def _plan(self, epoch: int, number: int) -> _LaneBlock:
        planner, settings = self.planner, self.planner.settings
        shards = self._shards(epoch, number)
        rows = zip(shards, planner.rows_of(shards), strict=True)
        gathered = gather(planner.shards, planner.selection, settings, rows, epoch)
        if not len(gathered.seconds):
            nothing = np.zeros(0, dtype=np.int64)
            return _LaneBlock(gathered, nothing, nothing, nothing)
        run_of = group_runs(gathered.seconds, gathered.shard_of_row[gathered.stretches.row], settings, epoch)
        first = first_of_runs(run_of)
        order = np.argsort(hash64("lane", settings.seed, epoch, gathered.identities[first]), kind="stable")
        sequence = concatenate_runs(order, first, len(run_of))
        end_stretch = np.cumsum(np.diff(first, append=len(run_of))[order])
        end_us = np.cumsum(np.round(gathered.seconds * 1e6).astype(np.int64)[sequence])[end_stretch - 1]
        return _LaneBlock(gathered, sequence, end_us, end_stretch)


def _join(pieces: list[_Piece], settings: PlanSettings, number: int) -> BlockPlan:
    """Pieces of lanes -> one block of batches."""
    shards: list[PlannedShard] = []
    columns: dict[str, list[npt.NDArray[np.generic]]] = {}
    num_rows = num_runs = 0
    for block, first, stop in pieces:
        gathered = block.gathered
        begin = int(block.end_stretch[first - 1]) if first else 0
        on = block.sequence[begin : int(block.end_stretch[stop - 1])]
        sizes = np.diff(block.end_stretch[first:stop], prepend=begin)
        found = {
            "shard_of_row": gathered.shard_of_row + len(shards),
            "row_in_shard": gathered.row_in_shard,
            "row": gathered.stretches.row[on] + num_rows,
            "first_frame": gathered.stretches.first_frame[on],
            "num_frames": gathered.stretches.num_frames[on],
            "draw": gathered.stretches.draw[on],
            "seconds": gathered.seconds[on],
            "identities": gathered.identities[on],
            "run_of": np.repeat(np.arange(num_runs, num_runs + len(sizes)), sizes),
            "epoch": np.full(len(on), gathered.shards[0].epoch),
            "too_long": gathered.too_long + num_rows,
        }
        for name, values in found.items():
            columns.setdefault(name, []).append(values)
        shards += gathered.shards
        num_rows += len(gathered.row_in_shard)
        num_runs += len(sizes)
    all_of = {name: np.concatenate(values) for name, values in columns.items()}
    stretches = Stretches(all_of["row"], all_of["first_frame"], all_of["num_frames"], all_of["draw"])
    together = Gathered(
        shards=shards,
        shard_of_row=all_of["shard_of_row"],
        row_in_shard=all_of["row_in_shard"],
        stretches=stretches,
        seconds=all_of["seconds"],
        identities=all_of["identities"],
        too_long=all_of["too_long"],
    )
    first_of_run = first_of_runs(all_of["run_of"])
    # a small set may pass more than one of its epochs in one block: two epochs of a clip are two draws
    random = hash64("run", settings.seed, all_of["epoch"][first_of_run], together.identities[first_of_run])
    return BlockPlan(together, make_batches(together.seconds, all_of["run_of"], random, settings, ("mix", number)))


def planner_of(shards: ShardSet, settings: PlanSettings, selection: Selection) -> Planner:
    """Of a mix where the sets have weights, else of every clip once an epoch."""
    return (EpochPlanner if shards.weights is None else MixPlanner)(shards, settings, selection)
