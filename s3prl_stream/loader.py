"""The loader: planned batches of one rank, built ahead, handed over in the order of the plan.

Which batches there are is the plan's business (`plan/planner.py`), how they are built that of `build_ahead.py`. Here is
what the consumer sees: the batches, where the stream stands after each of them, and what was handed over so far.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Collection, Generator, Iterable, Iterator, Mapping
from contextlib import closing
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
import torch.distributed

from s3prl_stream.arguments import one_number, whole_number
from s3prl_stream.at_exit import closed_at_exit
from s3prl_stream.build_ahead import BuildAhead, Delivery
from s3prl_stream.damage import Failures
from s3prl_stream.errors import UsageError
from s3prl_stream.launcher import launched
from s3prl_stream.pipes.stage import Source
from s3prl_stream.plan.anchors import Anchors
from s3prl_stream.plan.cursor import Cursor, fingerprint, make_cursor, read_cursor, room_for_withheld
from s3prl_stream.plan.mix import MixPlanner
from s3prl_stream.plan.planner import EpochPlanner, Position, Step, view
from s3prl_stream.plan.withheld import Withheld, hash_of
from s3prl_stream.receipt import Receipt, Topology
from s3prl_stream.sample import Batch, PlannedBatch
from s3prl_stream.settings import fitted
from s3prl_stream.shards.find_clips import check_clips, name_clips
from s3prl_stream.sign_of_life import SignOfLife
from s3prl_stream.stream import BatchBuilder, Built
from s3prl_stream.timing import Timing

_MOST_BLOCKS = 100_000
"""That `which` plans for a batch: half an hour of full ones."""

_MOST_LISTED = 10_000
"""Rows of `damaged`, and of `excluded`, of an endless stream: some 10 MB."""

_log = logging.getLogger(__name__)


class Loader:
    """Batches of a chain for one rank.

    Iterating again goes on after the last batch that was handed over; after a finite end it begins anew. An iterator
    that was begun before the newest one is refused when it is asked for more.

    Args:
        stream: a chain on a ShardStream.
        num_workers: worker processes; 0: one thread of this process.
        rank, world_size: of data parallelism; default: torch.distributed's, or 0 of 1.
        prefetch: batches built ahead, for each worker.
        pin_memory: for fast copies to a GPU. Worker processes' batches only: the consumer's own thread does not pin.
        stuck_after_seconds: if no batch comes for so long, print the stacks of all threads and workers and stop; None:
            wait for ever. The time that the consumer takes does not count.
        multiprocessing_context: "fork", "forkserver" or "spawn"; None: "forkserver" where a set lies in an object
            store, else torch's default.

    Attributes:
        damaged: a dict for each sample that could not be used so far (set, shard, key, offset, size, reason ...). Of an
            endless stream the newest 10 000; to have all, take them out as they come.
        excluded: what `skip` and `exclude` have left out so far: rows as of `which`, with the reason ("skipped",
            "excluded"); of an endless stream, too, the newest 10 000. Delivered, damaged and excluded together are what
            was planned.
        num_damaged, num_excluded: how many rows there were in all.
        seconds_by_set: seconds of audio of each set in the batch that was handed over last; what was damaged is none.
        hours_by_set: hours of audio that this rank has been handed of each set so far: the realised mix.
        receipt: what it took to go on from the state loaded last; None: none was.
        too_long: keys left out by `too_long="skip"`, each clip once, of the blocks seen so far.

    Raises:
        ChainError: the chain has no ShardStream at its root, or a stage cannot be sent to a worker.
        UsageError: a number out of range, or "fork" where an object store is used.
    """

    def __init__(
        self,
        stream: Source,
        *,
        num_workers: int = 0,
        rank: int | None = None,
        world_size: int | None = None,
        prefetch: int = 2,
        pin_memory: bool = False,
        stuck_after_seconds: float | None = 600.0,
        multiprocessing_context: str | None = None,
    ) -> None:
        self.stream = stream
        self.stuck_after_seconds = stuck_after_seconds
        if stuck_after_seconds not in (None, math.inf):
            self.stuck_after_seconds = one_number("Loader", "stuck_after_seconds", stuck_after_seconds, above=0)
        self.num_workers = num_workers = whole_number("Loader", "num_workers", num_workers, least=0)
        self.prefetch = prefetch = whole_number("Loader", "prefetch", prefetch, least=1)
        self.pin_memory = pin_memory
        self.multiprocessing_context = multiprocessing_context
        self.rank, self.world_size = _rank_and_world(rank, world_size)
        self._topology = Topology(self.world_size, num_workers, prefetch)
        self.damaged: list[dict[str, Any]] = []
        self.excluded: list[dict[str, Any]] = []
        self.num_damaged = self.num_excluded = 0
        self.too_long: list[str] = []
        self.seconds_by_set: dict[str, float] = {}
        self.hours_by_set: dict[str, float] = {}
        self._told_too_many: set[str] = set()
        self._known_too_long: set[tuple[int, str]] = set()
        self._builder = BatchBuilder(stream)
        self._build_ahead = BuildAhead(
            self._builder,
            num_workers=num_workers,
            prefetch=prefetch,
            pin_memory=pin_memory,
            longest_wait_seconds=self.stuck_after_seconds,
            multiprocessing_context=multiprocessing_context,
        )
        self._planner = self._builder.root.planner(self._builder.all_stages)
        self._next_batch = 0
        self._began_at = 0  # first batch of this iteration
        self._end: int | None = None  # number of batches of the stream, once it is known
        self._anchors = Anchors(self._planner.start)
        self.receipt: Receipt | None = None
        self._stage_seconds: dict[str, float] = {}
        self._waiting_seconds = self._working_seconds = 0.0
        self._withheld = Withheld()
        self._failures = Failures(self._builder.root.max_consecutive_failures)
        self._finished = False
        self._newest: object = None  # iteration

    # ---- iterating -----------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Batch]:
        return closed_at_exit(self._handed_over())

    def _handed_over(self) -> Generator[Batch]:
        if self._finished:
            self._next_batch, self._anchors, self._finished = 0, Anchors(self._planner.start), False
            self._withheld = self._withheld.from_the_beginning()
        self._newest = this = object()
        asked_at = perf_counter()
        while not self._finished:
            first = self._began_at = self._next_batch
            withheld = self._withheld
            with (
                closing(self._deliveries(first)) as deliveries,
                closing(self._build_ahead.built(deliveries)) as all_built,
            ):
                for rounds, (delivery, built) in enumerate(all_built, start=1):
                    self._waiting_seconds += perf_counter() - asked_at
                    batch = self._on_device(built.batch)
                    self._next_batch = first + rounds * self.world_size
                    self._count(delivery, built)
                    handed_at = perf_counter()
                    yield batch
                    asked_at = perf_counter()
                    self._working_seconds += asked_at - handed_at
                    if self._newest is not this:
                        raise UsageError(
                            "another iterator of this loader was begun and goes on from where this one stood; use one "
                            "at a time, or a Loader for each."
                        )
                    if self._withheld is not withheld:  # batches built ahead do not know of it: build them again
                        break
                else:
                    self._finished = True

    def __len__(self) -> int:
        """Batches that each rank gets from beginning to end; plans all of it the first time.

        Raises:
            TypeError: the stream is endless.
        """
        if self._planner.settings.epochs is None:
            raise TypeError("an endless stream has no length: give ShardStream epochs=, or ask batches_in_epoch(0)")
        return -(-self._planner.num_batches() // self.world_size)

    def batches_in_epoch(self, epoch: int) -> int:
        """Global batches in an epoch, over all ranks.

        Raises:
            UsageError: a mix by weights, in which each set has epochs of its own, or no number of an epoch.
        """
        if not isinstance(self._planner, EpochPlanner):
            raise UsageError("a mix by weights has no epoch: each of its sets has epochs of its own")
        return self._planner.batches_in_epoch(whole_number("batches_in_epoch", "epoch", epoch, least=0))

    def _deliveries(self, first: int) -> Generator[Delivery]:
        """What this rank is due from global batch `first` on."""
        for position, planned, seconds in view(self._blocks(first), first, self.rank, self.world_size):
            if self.receipt is not None and position is not None:
                in_block = planned.number - position.batch
                self.receipt.on_batch(planned, in_block, epoch=position.epoch, block=position.block)
            yield self._without_withheld(planned, seconds)

    def _blocks(self, first: int) -> Iterator[tuple[Position, Step]]:
        """The blocks from that on which holds global batch `first`; what each tells is noted."""
        for position, step in self._planner.walk(self._anchors.before(first), self.stuck_after_seconds):
            self._anchors.add(position, self._behind)
            if self.receipt is not None:
                self.receipt.on_block(step.plan.num_index_rows)
            if step.following is None:
                self._end = position.batch + step.plan.num_batches
            new = dict.fromkeys(clip for clip in step.plan.clips_too_long() if clip not in self._known_too_long)
            self._known_too_long.update(new)
            self.too_long.extend(key for _, key in new)
            yield position, step

    def _without_withheld(self, planned: PlannedBatch, seconds: list[float]) -> Delivery:
        """What is delivered of a planned batch."""
        if self._withheld == Withheld():
            return Delivery(planned, seconds, [])
        members = self._builder.root.shards.members
        reasons = [
            self._withheld.reason(planned.number, members[item.set_index].name, item.key) for item in planned.items
        ]
        kept = [place for place, reason in enumerate(reasons) if reason is None]
        excluded = [{**self._describe(planned, at), "reason": reason} for at, reason in enumerate(reasons) if reason]
        delivered = PlannedBatch(planned.number, [planned.items[place] for place in kept])
        return Delivery(delivered, [seconds[place] for place in kept], excluded)

    def _count(self, delivery: Delivery, built: Built) -> None:
        members = self._builder.root.shards.members
        self.seconds_by_set = {}
        for slot, (item, seconds) in enumerate(zip(delivery.planned.items, delivery.seconds, strict=True)):
            if slot not in built.damaged:
                name = members[item.set_index].name
                self.seconds_by_set[name] = self.seconds_by_set.get(name, 0.0) + seconds
        for name, seconds in self.seconds_by_set.items():
            self.hours_by_set[name] = self.hours_by_set.get(name, 0.0) + seconds / 3600
        for name, seconds in built.seconds.items():
            self._stage_seconds[name] = self._stage_seconds.get(name, 0.0) + seconds
        self.num_excluded += len(delivery.excluded)
        self.num_damaged += len(built.damaged)
        self._list(self.excluded, delivery.excluded, "excluded")
        self._list(self.damaged, built.damaged.values(), "damaged")
        self._failures.count(len(built.batch["key"]), built.damaged.values())

    def _list(self, rows: list[dict[str, Any]], new: Collection[dict[str, Any]], name: str) -> None:
        rows.extend(new)
        too_many = len(rows) - _MOST_LISTED
        if too_many > 0 and self._planner.settings.epochs is None:
            if name not in self._told_too_many:
                self._told_too_many.add(name)
                _log.warning(
                    "Loader.%s holds the newest %d rows from now on, num_%s counts all: take rows out of the list as "
                    "they come to have all of them",
                    *(name, _MOST_LISTED, name),
                )
            del rows[:too_many]

    def _on_device(self, batch: Batch) -> Batch:
        """The batch after the stages behind `.on`."""
        tail = self._builder.tail
        if tail is None:
            return batch
        began = perf_counter()
        moved = tail(batch)
        self._stage_seconds["on"] = self._stage_seconds.get("on", 0.0) + perf_counter() - began
        return moved

    # ---- state ---------------------------------------------------------------------------------

    def state_dict(self, *, after: int | None = None) -> dict[str, Any]:
        """The cursor: batches handed to the consumer, not prefetched. JSON-able, the same on every rank.

        About 1 kB mostly; below 4 kB for a mix of up to 30 sets.

        Args:
            after: of a consumer that fetches ahead of its work: the `batch_index` that it has done last. It is one of
                those handed over in this iteration; the cursor is what it was when that batch was.

        Raises:
            UsageError: no such batch has been handed over.
        """
        handed = self._next_batch
        if after is not None:  # the first round of this iteration may begin at any rank's batch
            after = whole_number("state_dict", "after", after, least=0)
            handed = self._began_at + ((after - self._began_at) // self.world_size + 1) * self.world_size
        if not self._began_at <= handed <= self._next_batch:
            raise UsageError(f"state_dict: batch {after} is none of those handed over since {self._began_at}")
        return make_cursor(self._builder.identity(), self._cursor(handed))

    def _cursor(self, handed: int) -> Cursor:
        # the ranks have planned ahead unequally far, but all of them past the first batch of the last round
        anchor = self._anchors.before(max(handed - self.world_size, self._began_at))
        # the empty batches of the last round are no batches of the plan: more epochs may follow it one day
        next_batch = handed if self._end is None else min(handed, max(self._end, self._began_at))
        changes = self._planner.changes if isinstance(self._planner, MixPlanner) else ()
        return Cursor(next_batch, anchor, changes, self._withheld, self._topology)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where another loader stood, whatever its ranks and workers were.

        A mix may go on with other weights, or to another end: they hold from the next block on of which nothing has
        been handed over.

        Raises:
            StateError: the state belongs to other data, settings, stages or another plan version.
        """
        identity = self._builder.identity()
        cursor = read_cursor(state, identity)
        self.receipt = Receipt(cursor.next_batch, fingerprint(identity), cursor.topology, self._topology)
        if isinstance(self._planner, MixPlanner):
            # not from the anchor's block on: a round of several ranks may have reached into the one behind it
            self._planner.go_on_from(cursor.changes, cursor.next_batch)
        self._next_batch = self._began_at = cursor.next_batch
        self._anchors = Anchors(self._planner.start, cursor.anchor)
        self._withheld = cursor.withheld
        self._end = None  # of a mix: it depends on the weights before, too
        self._finished = False

    # ---- leaving out ---------------------------------------------------------------------------

    def skip(self, first_batch: int, last_batch: int) -> None:
        """Do not deliver global batches `first_batch` to `last_batch`, both included.

        Every rank calls it, between two batches. The batches come empty, with weight 0: none changes its number. Their
        rows are listed in `excluded`, and the cursor remembers the range.

        Raises:
            UsageError: no range of batches, some of it has been handed over already, or the cursor is full.
        """
        first_batch, last_batch = (fitted("skip: a batch", one, int) for one in (first_batch, last_batch))
        if not 0 <= first_batch <= last_batch:
            raise UsageError(f"skip: {first_batch} to {last_batch} is no range of batches")
        begins = self._withheld.first_not_skipped(first_batch)
        if begins <= last_batch and begins < self._coming:
            raise UsageError(
                f"skip: batch {begins} has been handed over, the next is {self._coming}. Skip from there on, or go "
                "back to an older state."
            )
        if begins <= last_batch:
            self._withheld = self._withheld.skip(first_batch, last_batch, self._room)

    def exclude(self, clips: Iterable[str | tuple[str, str]]) -> None:
        """Deliver these clips no more, from the next batch on.

        Every rank calls it, between two batches. What was planned of the clips is listed in `excluded`, and the cursor
        remembers them. Reads the keys in the index, to tell a clip that is not there.

        Args:
            clips: (set, key) of each; the key alone where the stream has one set.

        Raises:
            UsageError: a clip that is in none of the sets, or the cursor is full.
        """
        shards = self._builder.root.shards
        new = [clip for clip in name_clips(shards, clips) if hash_of(*clip) not in self._withheld.excluded]
        if new:
            withheld = self._withheld.exclude(new, self._coming, self._room)
            check_clips(shards, new)
            self._withheld = withheld

    @property
    def _room(self) -> int:
        return room_for_withheld(self._builder.identity(), self._cursor(self._next_batch))

    @property
    def _behind(self) -> int:
        """A batch before which nothing of this iteration is asked for again: the first of the last round."""
        return max(self._next_batch - self.world_size, 0)

    @property
    def _coming(self) -> int:
        """The batch that is handed over next: after a finite end the first."""
        return 0 if self._finished else self._next_batch

    # ---- telling -------------------------------------------------------------------------------

    def timing(self) -> Timing:
        """Where the time went so far: seconds in each stage, and of the consumer's waiting."""
        return Timing(dict(self._stage_seconds), self._waiting_seconds, self._working_seconds)

    def which(self, batch_index: int, *, html: str | Path | None = None) -> list[dict[str, Any]]:
        """What global batch `batch_index` holds, without reading any audio; what is left out of it is not listed.

        Args:
            batch_index: from 0.
            html: a file for a page that plays the batch: each clip as it was read and as each stage left it, its draws,
                features and masks. For that it is read, and goes through the chain once more, in this process. Needs
                no network and no other file.

        Returns:
            A dict for each stretch: set, shard, key, offset and size (bytes), first_frame, num_frames, epoch, draw.

        Raises:
            UsageError: there is no such batch, or in an endless stream it lies more than 100 000 blocks ahead; the
                page cannot be written.
        """
        if (batch_index := fitted("which: batch_index", batch_index, int)) >= 0:
            for _, planned, seconds in view(self._blocks_up_to(batch_index), batch_index, 0, 1):
                delivered, _, left_out = self._without_withheld(planned, seconds)
                rows = [self._describe(delivered, at) for at in range(len(delivered.items))]
                if html is not None:
                    from s3prl_stream.batch_page.page import write_batch_page

                    builder = self._builder
                    write_batch_page(html, builder.root, builder.all_stages, delivered, rows, left_out)
                return rows
        raise UsageError(f"which: there is no batch {batch_index}")

    def _blocks_up_to(self, batch: int) -> Iterator[tuple[Position, Step]]:
        """Blocks from the nearest that is known on; UsageError where too many lie between it and a global batch."""
        life, start = SignOfLife(), self._anchors.before(batch)
        for passed, (position, step) in enumerate(self._planner.walk(start), start=1):
            life.tell("planning: batch %d of %d", position.batch, batch)
            end = position.batch + step.plan.num_batches
            left = (batch - end) * passed / max(end - start.batch, 1)
            if left > _MOST_BLOCKS and self._planner.settings.epochs is None:
                raise UsageError(
                    f"which: batch {batch} lies some {left:.2g} blocks behind batch {end}, and where a block begins "
                    f"follows from those before it; at most {_MOST_BLOCKS} are planned. Is the number right? Else load "
                    "the state of a loader that stood nearer."
                )
            if batch < end:
                self._anchors.add(position, self._behind)  # so that its neighbours cost less
            yield position, step

    def _describe(self, planned: PlannedBatch, at: int) -> dict[str, Any]:
        item = planned.items[at]._asdict()
        member = self._builder.root.shards.members[item.pop("set_index")]
        return {"batch_index": planned.number, "set": member.name, **item, "shard": member.shard_names[item["shard"]]}


def _rank_and_world(rank: int | None, world_size: int | None) -> tuple[int, int]:
    if (rank is None) != (world_size is None):
        raise UsageError(f"Loader: rank={rank} and world_size={world_size} are given together or not at all")
    if rank is None or world_size is None:
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            return torch.distributed.get_rank(), torch.distributed.get_world_size()
        if (launched_world := launched("WORLD_SIZE")) > 1:
            warnings.warn(
                f"Loader: WORLD_SIZE is {launched_world}, but torch.distributed is not initialised: this "
                "process gets all batches, and so does the others. Call init_process_group first, or give rank= "
                "and world_size=.",
                stacklevel=3,
            )
        return 0, 1
    world_size = whole_number("Loader", "world_size", world_size, least=1)
    return whole_number("Loader", "rank", rank, least=0, most=world_size - 1), world_size
