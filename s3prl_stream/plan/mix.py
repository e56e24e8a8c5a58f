"""Several sets by weight: a block takes from each set's lane what the set is due.

Each set is a *lane* with epochs of its own (`lane.py`). A block takes runs off each lane until the lane has had its
share of the block's seconds; what rounding to whole runs leaves open is carried on, so the shares are exact in the long
run however long the clips are.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from s3prl_stream.errors import UsageError
from s3prl_stream.plan.lane import Lane, join
from s3prl_stream.plan.planner import START, EpochPlanner, LanePosition, Planner, Position, Step
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.shards.member import Rows
from s3prl_stream.shards.selection import Selection
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.weights import Weights
from s3prl_stream.stores.kept import Kept

MOST_CACHED_ROWS = 64
"""Index rows of this many shards are kept: a small set is drawn from again and again."""


End: TypeAlias = tuple[int, str] | tuple[()]
"""`epochs` and `stop` of a mix; (): it has no end."""


class Change(NamedTuple):
    """How blocks are planned that begin at or after global batch `first_batch`, until the next change."""

    first_batch: int
    weights: Weights  # one a set, in the order of the sets; they sum to 1
    end: End | None = None
    """Where the last block is cut; None: where the stream's own is (older states do not say)."""


class MixPlanner(Planner):
    """Plans a ShardSet whose sets have weights.

    `changes` is the history of weights and ends, oldest first; a loader that resumes a run replaces it.

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
        self.changes = [Change(0, shards.weights, self._end)]
        self._lanes: list[Lane] = []
        first_shard = 0
        for index, member in enumerate(shards.members):
            lane = Lane(shards, selection, settings, self.rows_of, index=index, first_shard=first_shard)
            if shards.weights[index] > 0 and not lane.num_samples:
                raise UsageError(f"set {member.name}: nothing of it is selected, and its weight is not 0")
            self._lanes.append(lane)
            first_shard += len(member.shard_names)
        self.start = START._replace(lanes=(LanePosition(),) * len(self._lanes))
        self._rows: Kept[int, Rows] = Kept(MOST_CACHED_ROWS)

    @property
    def _end(self) -> End:
        epochs, stop = self.settings.epochs, self.settings.stop
        return () if epochs is None or stop is None else (epochs, stop)

    def change_at(self, batch: int) -> Change:
        """The weights and the end of a block that begins at global batch `batch`.

        Raises:
            UsageError: they are not known any more: a cursor remembers the last changes only.
        """
        for change in reversed(self.changes):
            if change.first_batch <= batch:
                return change
        raise UsageError(f"the weights of the mix before batch {self.changes[0].first_batch} are not known any more")

    def go_on_from(self, history: Sequence[Change], since: int) -> None:
        """Follow a run's history; where this stream's own weights or end differ from its last, they hold `since`.

        Args:
            history: all by which a block may have been planned of which batches were handed over.
            since: a global batch; blocks that begin before it keep their weights, and are cut where they were.
        """
        self.changes = [*history]
        last, own = self.changes[-1], Change(since, self.shards.weights or (), self._end)
        if last.weights != own.weights or last.end not in (None, own.end):
            self.changes.append(own)

    def step(self, position: Position) -> Step | None:
        """The block at a position.

        Raises:
            UsageError: a set of which no clip fits a batch, or none has audio.
        """
        weights, end = self.change_at(position.batch)[1:]
        if self._has_ended(position.lanes, weights):
            return None
        shares = [round(self._block_us(weights) * weight) for weight in weights]
        due = [lane.owed_us + share for lane, share in zip(position.lanes, shares, strict=True)]
        while max(due) <= 0:  # every lane has given long runs in advance
            due = [one + share for one, share in zip(due, shares, strict=True)]
        due = self._cut_at_end(position.lanes, due, self._end if end is None else end)
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
        plan = join(pieces, self.settings, position.block)
        batch = position.batch + plan.num_batches
        following = Position(batch, 0, position.block + 1, lanes)
        return Step(plan, None if self._has_ended(lanes, self.change_at(batch).weights) else following)

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

    def _cut_at_end(self, lanes: Sequence[LanePosition], due: list[int], end: End) -> list[int]:
        """What each lane gives to the last block: shares of it, up to where the set that ends the mix ends."""
        if not end:
            return due
        epochs, stop = end
        left = [
            (lane.left_us(at, epochs, us), us)
            for lane, at, us in zip(self._lanes, lanes, due, strict=True)
            if us > 0 and at.epoch < epochs
        ]
        ends = [(available, us) for available, us in left if available <= us]
        if not ends or (stop == "all" and len(ends) < len(left)):
            return due
        choose = min if stop == "first" else max
        available, us = choose(ends, key=lambda end: end[0] / end[1])
        return [-(-one * available // us) if one > 0 else one for one in due]


def planner_of(shards: ShardSet, settings: PlanSettings, selection: Selection) -> Planner:
    """Of a mix where the sets have weights, else of every clip once an epoch."""
    return (EpochPlanner if shards.weights is None else MixPlanner)(shards, settings, selection)
