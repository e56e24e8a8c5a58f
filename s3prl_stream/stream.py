"""`ShardStream`: the root of a chain. Plans a set and yields its samples; the Loader deals them to workers."""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple

from torch.utils.data import get_worker_info

from s3prl_stream.arguments import one_number
from s3prl_stream.at_exit import closed_at_exit
from s3prl_stream.batch_memory import BatchMemory, Row
from s3prl_stream.collate import collate
from s3prl_stream.damage import Damaged, Failures, row_of
from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.load_audio import LoadAudio
from s3prl_stream.pipes.run_stages import run_batch
from s3prl_stream.pipes.stage import Root, Source, Stage, chain_fingerprint, root_of, stages_of
from s3prl_stream.pipes.tail import split_at_device
from s3prl_stream.plan.mix import planner_of
from s3prl_stream.plan.planner import Planner, view
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.rng import identity
from s3prl_stream.sample import UNCUTTABLE_KEYS, Batch, PlannedBatch, Sample
from s3prl_stream.shards.npy import FRAMES_PER_SECOND
from s3prl_stream.shards.read_ahead import ReadAhead, depth_of, with_coming
from s3prl_stream.shards.selection import Selection, compile_selection
from s3prl_stream.shards.shardset import ShardSet, as_shard_set
from s3prl_stream.timing import BATCH, Place, StageClock

TAGS = ("key", "set", "epoch", "identity", "batch_index", "slot", "first_frame", "num_frames", "clip_frames",
        "audio", "codec")  # fmt: skip
"""What every sample has besides its metadata."""

_log = logging.getLogger(__name__)


class ShardStream(Root):
    """Samples of a shard set in the order of the plan, endless unless `epochs` is given.

    Args:
        shards: `open_shards(...)`, a folder, `MemoryShards`, a list of these; or a dict or a list of samples.
        seed: of the plan and of every stage's draws.
        shuffle: False keeps the order of the set.
        epochs: how many; None: endless.
        max_batch_seconds: budget of padded seconds in a batch.
        max_batch_size: most clips in a batch.
        run: neighbours in a shard that stay together, one read; None: 1 for local sets, and what a set's manifest says
            (4 for packed ones) where any lies in an object store.
        chunk_seconds, crop_seconds, crops, too_long: see `plan.settings.PlanSettings`.
        where, subset, balance, key_range: see `shards.selection.compile_selection`.
        stop: where a mix by weights with `epochs` ends: "first" (as soon as one set has had its epochs) or "all".
        max_consecutive_failures: damaged samples in a row that stop the run.

    Attributes:
        damaged: a dict for each sample that could not be used while this stream was iterated itself (a `Loader` has a
            list of its own). The worker processes of a torch DataLoader cannot add to it: they log a warning each.

    Raises:
        UsageError: a setting out of range, a malformed selection, nothing selected, features among audio.
    """

    knows_nested = False

    def __init__(
        self,
        shards: Any,
        *,
        seed: int = 0,
        shuffle: bool = True,
        epochs: int | None = None,
        max_batch_seconds: float = 240.0,
        max_batch_size: int | None = None,
        run: int | None = None,
        chunk_seconds: float | None = None,
        crop_seconds: float | None = None,
        crops: str = "per_clip",
        too_long: str = "split",
        where: Any = None,
        subset: str | None = None,
        balance: str | None = None,
        key_range: tuple[float, float] | None = None,
        stop: str | None = None,
        max_consecutive_failures: int = 100,
        block_samples: int = 16_384,
    ) -> None:
        self.shards: ShardSet = as_shard_set(shards)
        if found := self.shards.where_is(FRAMES_PER_SECOND):  # no stage reads both
            raise UsageError(
                f"sets of features and sets of audio cannot be one stream: a column {FRAMES_PER_SECOND!r} is {found}"
            )
        self.settings = PlanSettings(
            seed=seed,
            shuffle=shuffle,
            epochs=epochs,
            max_batch_seconds=one_number("ShardStream", "max_batch_seconds", max_batch_seconds, above=0),
            max_batch_size=max_batch_size,
            run=self.shards.default_run if run is None else run,
            chunk_seconds=chunk_seconds,
            crop_seconds=crop_seconds,
            crops=crops,
            too_long=too_long,
            stop=stop,
            block_samples=block_samples,
        )
        self._choice = {"where": where, "subset": subset, "balance": balance, "key_range": key_range}
        if stop is not None and self.shards.weights is None:
            raise UsageError(f"stop={stop!r} is about a mix by weights; these sets have none")
        if not isinstance(max_consecutive_failures, int) or max_consecutive_failures < 0:
            raise UsageError(f"max_consecutive_failures: {max_consecutive_failures!r} must be a whole number from 0 on")
        self.planner()  # which selects, and refuses what it cannot plan
        self.max_consecutive_failures = max_consecutive_failures
        self.splits = chunk_seconds is not None or crop_seconds is not None
        self.damaged: list[dict[str, Any]] = []
        self._lengths: dict[PlanSettings, int] = {}
        self._columns = self.shards.columns()
        self._read = ReadItem(shards=self.shards)
        self.memory = BatchMemory()

    @functools.cached_property
    def selection(self) -> Selection:
        """Which rows an epoch consists of."""
        return compile_selection(self.shards, **self._choice)

    def __getstate__(self) -> dict[str, Any]:
        """Without the selection: of 100 M clips it may have 400 MB, and only a process that plans looks at it."""
        state: dict[str, Any] = super().__getstate__()  # type: ignore[no-untyped-call]  # torch's
        return {name: value for name, value in state.items() if name != "selection"}

    def planner(self, stages: Sequence[Stage] = ()) -> Planner:
        """A planner of this stream; where stages stretch time, batches are smaller by as much as they may."""
        stretch = math.prod(stage.stretch for stage in stages)
        try:
            settings = replace(self.settings, max_batch_seconds=self.settings.max_batch_seconds / stretch)
        except UsageError as error:
            raise UsageError(
                f"{error}, which is {self.settings.max_batch_seconds} divided by what the stages may stretch time"
            ) from None
        return planner_of(self.shards, settings, self.selection)

    def known_keys(self) -> Mapping[str, str]:
        """Index columns and the stream's own keys."""
        kept = {name: "any" for name in self._columns if not (self.splits and name in UNCUTTABLE_KEYS)}
        return {**kept, **dict.fromkeys(TAGS, "any")}

    def why_not(self, key: str) -> str:
        """Which of several sets lack a column that others have."""
        found = self.shards.where_is(key)
        return f" {key!r} is {found}." if found else ""

    def column(self, name: str) -> Iterator[Any]:
        """Of the selected rows, in the order of the index."""
        if name not in self._columns:
            raise UsageError(
                f"no column {name!r} from which something could be learned; "
                f"{self.shards.known_columns(name)}. Give what is to be learned (categories=, tokenizer=)."
            )
        shard = 0
        for member in self.shards.members:
            values = (value for batch in member.batches([name]) for value in batch.column(name).to_pylist())
            for num_rows in member.shard_samples:
                selected, rows = self.selection.mask(shard), itertools.islice(values, int(num_rows))
                yield from rows if selected is None else itertools.compress(rows, selected)
                shard += 1

    def set_epoch(self, epoch: int) -> None:
        """Refused: a stream counts its own epochs."""
        raise UsageError(f"set_epoch({epoch}): a ShardStream counts its own epochs; a Loader's state says where it is")

    def __repr__(self) -> str:
        return f"ShardStream({self.shards!r}, {len(self.selection)} selected{self.settings.told()})"

    def __iter__(self) -> Iterator[Sample]:
        return self.run(())

    def __len__(self) -> int:
        return self.length(())

    def length(self, stages: Sequence[Stage]) -> int:
        """Samples from beginning to end, as planned for a chain of these stages."""
        if self.settings.epochs is None:
            raise TypeError("an endless stream has no length: give epochs=")
        planner = self.planner(stages)
        if planner.settings not in self._lengths:  # which `list` and progress bars ask for again and again
            self._lengths[planner.settings] = sum(len(step.plan.seconds) for _, step in planner.walk())
        return self._lengths[planner.settings]

    def run(self, stages: Sequence[Stage]) -> Iterator[Sample]:
        """Samples of every batch in order; among DataLoader workers, each takes every n-th batch."""
        return closed_at_exit(self._run(stages))

    def _run(self, stages: Sequence[Stage]) -> Generator[Sample]:
        failures = Failures(self.max_consecutive_failures)
        with closing(ReadAhead(self.shards)) as ahead:
            for task in with_coming(self.planned(stages), 1, depth_of(self.shards)):
                with ahead.reading(task):
                    samples, damaged = self.samples_of(task.planned, stages)
                self.list_damage(damaged)
                failures.count(len(samples), damaged.values())
                yield from samples

    def list_damage(self, damaged: Damaged) -> None:
        """Add to `damaged`; where that is the copy of a worker process, say so."""
        self.damaged.extend(damaged.values())
        if get_worker_info() is not None:
            for row in damaged.values():
                _log.warning("left out of batch %d as damaged: %s", row["batch_index"], row["message"])

    def samples_of(
        self, planned: PlannedBatch, stages: Sequence[Stage], clock: StageClock | None = None
    ) -> tuple[list[Sample], Damaged]:
        """Read and process one planned batch.

        Args:
            planned: from the plan.
            stages: bound stages of a chain on this root, root first.
            clock: told when reading and each stage begins and ends.

        Returns:
            The samples, and what could not be used.
        """
        tagged = self._tagged(planned)
        for sample, row in zip(tagged, self._rows(planned, stages), strict=False):
            sample["decode_into"] = row
        damaged: Damaged = {}

        def on_damage(sample: Sample, error: SampleError) -> None:
            if "slot" not in sample:
                raise ChainError(
                    f"sample {sample.get('key')!r} cannot be used ({error}), and a stage has removed its 'slot', by "
                    "which it would be listed. Before and in a stage on whole batches, `yield {**sample, ...}`."
                ) from error
            slot = sample["slot"]
            if slot not in damaged:  # else another piece of it, behind a stage that looks at whole batches
                item = planned.items[slot]
                member = self.shards.members[item.set_index]
                shard = member.shard_names[item.shard]
                damaged[slot] = row_of(planned, slot, set_name=member.name, shard=shard, error=error)

        with closing(self.shards.read_ahead(planned.items)):  # neighbours by one request
            return run_batch([self._read, *stages], tagged, on_damage, clock), damaged

    def _tagged(self, planned: PlannedBatch) -> list[Sample]:
        """What a sample is before it is read: who it is, and where."""
        names = [member.name for member in self.shards.members]
        return [
            {
                "key": item.key,
                "set": names[item.set_index],
                "epoch": item.epoch,
                "batch_index": planned.number,
                "slot": slot,
                "item": item,
                "identity": identity(
                    seed=self.settings.seed,
                    set_name=names[item.set_index],
                    epoch=item.epoch,
                    key=item.key,
                    first_frame=item.first_frame,
                    draw=item.draw,
                ),
                "first_frame": item.first_frame,
                "num_frames": item.num_frames,
                "clip_frames": item.clip_frames,
            }
            for slot, item in enumerate(planned.items)
        ]

    def collated(self, chain: Source) -> Source:
        """The batches of a chain on this root, for a plain torch loader."""
        return CollatedStream(chain)

    def _rows(self, planned: PlannedBatch, stages: Sequence[Stage]) -> Sequence[Row]:
        """Rows of one array for the waveforms of a batch: decoded in place, they need no copy when collated."""
        if not stages or not isinstance(stages[0], LoadAudio) or not planned.items:
            return ()
        return self.memory.rows([item.num_frames for item in planned.items], stages[0].dtype)

    def planned(self, stages: Sequence[Stage] = ()) -> Iterator[PlannedBatch]:
        """Batches in order from the first; in a DataLoader worker, this worker's share of them."""
        worker = get_worker_info()
        rank, world = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for _, planned, _ in view(self.planner(stages).walk(), 0, rank, world):
            if planned.items:
                yield planned


class ReadItem(Stage):
    """The bytes and metadata of a planned item. Stands before every chain of a ShardStream by itself."""

    functional_name = "read"

    def __init__(self, *, shards: ShardSet) -> None:
        self.shards = shards
        super().__init__()

    def emit(self, sample: Sample) -> Iterator[Sample]:
        """One sample, read and checked."""
        item = sample["item"]
        values = self.shards.read(item)
        if item.num_frames != item.clip_frames:
            values = {name: value for name, value in values.items() if name not in UNCUTTABLE_KEYS}
        read = {**values, **sample}
        del read["item"]
        yield read


class Built(NamedTuple):
    """A batch as it comes from a worker."""

    batch: Batch
    damaged: Damaged
    seconds: dict[str, float]  # of each step of building it


class BatchBuilder:
    """A map from planned batches to collated batches: what a worker of a loader does."""

    def __init__(self, chain: Source) -> None:
        if isinstance(chain, CollatedStream):
            raise ChainError("these are batches for a plain torch loader already: give the chain before .collate()")
        root = root_of(chain)
        if not isinstance(root, ShardStream):
            raise ChainError(f"batches are planned by a ShardStream; the root of this chain is a {root!r}")
        self.root = root
        self.all_stages = stages_of(chain)
        self.stages, self.tail = split_at_device(self.all_stages)
        self.known_keys = chain.known_keys()
        self.place = Place(["read", *(stage.stage_id for stage in self.stages), "collate"])

    def identity(self) -> dict[str, Any]:
        """What determines the batches, for the cursor: sets, selection, settings, stages."""
        stages = [stage for stage in self.all_stages if stage.in_identity]
        return {
            "data": {member.name: member.fingerprint for member in self.root.shards.members},
            "selection": self.root.selection.fingerprint,
            "settings": self.root.settings.identity(),
            "mixed": self.root.shards.weights is not None,
            "stages": {stage.stage_id: chain_fingerprint([stage]) for stage in stages},
            "order": [stage.stage_id for stage in stages],
        }

    def __getitem__(self, planned: PlannedBatch) -> Built:
        clock = StageClock(self.place)
        self.place.numbers[BATCH] = planned.number
        try:
            samples, damaged = self.root.samples_of(planned, self.stages, clock) if planned.items else ([], {})
            clock.on_sample(-1)
            clock.enter("collate")
            batch = collate(samples, planned.number, self.known_keys, self.root.memory)
            clock.leave()
        finally:
            self.place.numbers[BATCH] = -1
        return Built(batch, damaged, clock.seconds)


class CollatedStream(Source):
    """The batches of a chain for a plain torch loader: `DataLoader(stream.collate(), batch_size=None)`.

    Each DataLoader worker takes every n-th batch, so nothing is delivered twice. No resume and no ranks: those are the
    Loader's. Each process of torch.distributed would get all of it.
    """

    def __init__(self, chain: Source) -> None:
        self.builder = BatchBuilder(chain)

    def __iter__(self) -> Iterator[Batch]:
        return closed_at_exit(self._batches())

    def _batches(self) -> Generator[Batch]:
        root, tail = self.builder.root, self.builder.tail
        if tail is not None and tail.device.type != "cpu" and get_worker_info() is not None:
            raise ChainError(
                f".on({str(tail.device)!r}): a worker of a DataLoader has no business on a device. Use ss.Loader, or "
                "num_workers=0."
            )
        failures = Failures(root.max_consecutive_failures)
        with closing(ReadAhead(root.shards)) as ahead:
            for task in with_coming(root.planned(self.builder.all_stages), 1, depth_of(root.shards)):
                with ahead.reading(task):
                    batch, damaged, _ = self.builder[task.planned]
                root.list_damage(damaged)
                failures.count(len(batch["key"]), damaged.values())
                yield batch if tail is None else tail(batch)
