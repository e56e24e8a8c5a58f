"""`SequentialTars`: the root of a chain for pipes, standard input and tars without an index. It promises little."""

from __future__ import annotations

import contextlib
import functools
import logging
import os
import stat
import sys
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any, NoReturn

from torch.utils.data import get_worker_info

from s3prl_stream.damage import Failures
from s3prl_stream.errors import ChainError, SampleError, ShardError, UsageError
from s3prl_stream.pipes.run_stages import run_batch
from s3prl_stream.pipes.stage import Root, Source, Stage
from s3prl_stream.rng import identity
from s3prl_stream.sample import Sample
from s3prl_stream.shards.foreign_sample import kind_of
from s3prl_stream.shards.sequential import ForeignSample, Lost, samples_in_order
from s3prl_stream.shards.tar_reads import More
from s3prl_stream.stores.braces import find_tars
from s3prl_stream.stores.store import is_remote, local_path, open_store

_log = logging.getLogger(__name__)

_CHUNK_BYTES = 1 << 20
_REMOTE_CHUNK_BYTES = 8 << 20
_INSTEAD = "Index the tars (`s3prl-stream index`) and use a ShardStream"


class SequentialTars(Root):
    """Samples of WebDataset tars in the order in which they lie there, read once from front to back.

    For what cannot be sought in: pipes and standard input. There is no plan, so there are no batches (`Loader` refuses
    it), no resume, no shuffling, no length, and a key that comes twice is not noticed. The stages draw as on a
    ShardStream with the same seed and set name. Among the workers of a torch DataLoader whole tars are divided; ranks
    must be given tars of their own.

    Args:
        tars: "-" (standard input), a binary file object, or paths and URLs as `index_shards` takes them. A named pipe
            is a path.
        name: of the set, part of every sample's identity.
        seed: of the stages' draws.
        max_seconds: longer clips are left out; nothing else bounds what is decoded.
        max_consecutive_failures: damaged samples in a row that stop the run.

    Attributes:
        damaged: a dict for each stretch of a tar that gave no sample (set, shard, key, offset, size, epoch, kind,
            reason, message); kind "skipped" is no damage, but holds no audio, or too much.

    Raises:
        UsageError: no tars, or `pipe:`, whose commands are not run.
    """

    def __init__(
        self,
        tars: str | Path | IO[bytes] | Sequence[str | Path],
        *,
        name: str = "tars",
        seed: int = 0,
        max_seconds: float = 3600.0,
        max_consecutive_failures: int = 100,
    ) -> None:
        self._pipe: IO[bytes] | None = None
        self._tars: list[str] = []
        if isinstance(tars, str) and tars == "-":
            self._pipe = sys.stdin.buffer
        elif not isinstance(tars, str | Path | Sequence):
            self._pipe = tars
        else:
            self._tars = find_tars(tars)
            missing = next((tar for tar in self._tars if not is_remote(tar) and not local_path(tar).exists()), None)
            if missing is not None:
                raise UsageError(f"{missing}: no such file.")
        self.name = name
        self.seed = seed
        self.max_seconds = max_seconds
        self.max_consecutive_failures = max_consecutive_failures
        self.damaged: list[dict[str, Any]] = []
        self._epoch = 0
        self._was_read = False
        warnings.warn(
            f"{self!r}: read in order, without resume (a killed run begins again), without shuffling and without exact "
            f"epochs. {_INSTEAD} for all three.",
            stacklevel=2,
        )

    def __repr__(self) -> str:
        given = repr(getattr(self._pipe, "name", "-")) if self._pipe is not None else f"{len(self._tars)} tars"
        return f"SequentialTars({given})"

    def known_keys(self) -> None:
        """Unknown before the first sample is read."""

    def set_epoch(self, epoch: int) -> None:
        """Fix the epoch of the next iteration."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[Sample]:
        return self.run(())

    def __len__(self) -> int:
        raise TypeError("how many samples a pipe holds is known when it has ended")

    def state_dict(self) -> NoReturn:
        """Refused: nothing of this can be resumed."""
        raise UsageError(f"SequentialTars has no state: what was read of a pipe is gone. {_INSTEAD} to resume.")

    def load_state_dict(self, state: object) -> NoReturn:  # noqa: ARG002
        """Refused as well."""
        self.state_dict()

    def collated(self, chain: Source) -> Source:  # noqa: ARG002
        """Refused: without lengths nobody can plan batches."""
        raise ChainError(f"SequentialTars has no planned batches. {_INSTEAD}, or pad the samples yourself.")

    def run(self, stages: Sequence[Stage]) -> Iterator[Sample]:
        """Samples in order through bound stages; a damaged one costs itself, and is listed.

        Raises:
            ShardError: not one sample came.
            TooManyFailures: too many in a row were damaged.
        """
        whole = next((stage for stage in stages if stage.scope == "batch"), None)
        if whole is not None:
            raise ChainError(f"{type(whole).__name__} looks at whole batches: it needs a ShardStream as its root")
        tars = self._tars_of_worker()
        epoch, self._epoch = self._epoch, self._epoch + 1
        failures = Failures(self.max_consecutive_failures)
        num_samples, first = 0, len(self.damaged)
        for shard in tars:
            with self._opened(shard) as (more, num_bytes):
                for found in samples_in_order(more, num_bytes, self.max_seconds):
                    before = len(self.damaged)
                    if isinstance(found, Lost):
                        self._list(found, shard, epoch)
                        samples = []
                    else:
                        num_samples += 1
                        samples = self._processed(found, stages, shard, epoch)
                    new = self.damaged[before:]
                    failures.count(len(samples), [one for one in new if one["kind"] != "skipped"])
                    yield from samples
        if not num_samples:
            why = self.damaged[first]["message"] if len(self.damaged) > first else "it is empty"
            raise ShardError(f"{self!r}: not one sample came ({why}). Did the command before the pipe fail?")

    def _processed(self, found: ForeignSample, stages: Sequence[Stage], shard: str, epoch: int) -> list[Sample]:
        name = identity(seed=self.seed, set_name=self.name, epoch=epoch, key=found.key, first_frame=0, draw=0)
        tags = {"key": found.key, "set": self.name, "epoch": epoch, "identity": name}
        audio = {"audio": found.audio, "codec": found.codec, "first_frame": 0, "num_frames": found.num_frames}
        sample = {**found.metadata, **tags, **audio}

        def on_damage(_: Sample, error: SampleError) -> None:
            self._list(Lost(found.key, 0, 0, error.reason, str(error.args[0])), shard, epoch)

        return run_batch(stages, [sample], on_damage)

    def _list(self, lost: Lost, shard: str, epoch: int) -> None:
        where = {"set": self.name, "shard": shard, "epoch": epoch, "kind": kind_of(lost.reason)}
        self.damaged.append({**where, **lost._asdict()})
        if where["kind"] != "skipped" and get_worker_info() is not None:  # this list is a copy, which nobody sees
            _log.warning("left out of %s: %s", shard, lost.message)

    def _tars_of_worker(self) -> Sequence[str]:
        worker = get_worker_info()
        if self._pipe is not None:
            if worker is not None:
                raise UsageError(
                    f"{self!r} cannot be read by worker processes, which would tear it apart: num_workers=0"
                )
            if self._was_read:
                raise UsageError(f"{self!r} was read already; a pipe has one epoch.")
            self._was_read = True
            return ["-"]
        if worker is None:
            return self._tars
        if worker.num_workers > len(self._tars):
            raise UsageError(
                f"{len(self._tars)} tars for {worker.num_workers} workers: each takes whole tars. Use fewer workers."
            )
        return self._tars[worker.id :: worker.num_workers]

    @contextlib.contextmanager
    def _opened(self, shard: str) -> Iterator[tuple[More, int | None]]:
        """(what gives the tar piece by piece, its bytes where they are known)."""
        if self._pipe is not None:
            read = getattr(self._pipe, "read1", self._pipe.read)  # a pipe gives what is there, it need not fill a piece
            yield functools.partial(read, _CHUNK_BYTES), None
        elif is_remote(shard):
            yield _remote(shard)
        else:
            with open(local_path(shard), "rb", buffering=0) as file:
                status = os.fstat(file.fileno())
                yield (
                    functools.partial(file.read, _CHUNK_BYTES),
                    status.st_size if stat.S_ISREG(status.st_mode) else None,
                )


def _remote(url: str) -> tuple[More, int | None]:
    folder, _, name = url.rpartition("/")
    store, position = open_store(folder), 0

    def more() -> bytes:
        nonlocal position
        piece = store.read(name, position, _REMOTE_CHUNK_BYTES)
        position += len(piece)
        return piece

    return more, store.size(name)
