"""Samples in memory under the same plan as packed shards, so workers never yield one twice and `len()` works."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream.arguments import whole_number
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.hashing import key_hash
from s3prl_stream.sample import Item, Sample
from s3prl_stream.shards.member import Rows
from s3prl_stream.shards.rows import storable
from s3prl_stream.stores.store import NOTHING_AHEAD, Ahead

if TYPE_CHECKING:
    import pyarrow as pa

PATH_KEYS = ("wav_path", "audio_path")


class MemoryShards:
    """A dict {key: sample} or a list of samples as a set.

    Args:
        samples: each a dict with `wav` (an array [T] or tensor [T]; `sample_rate` defaults to 16 000), or
            `wav_path`, a file whose header tells its length; other values are metadata. A file that cannot be read
            costs its sample, when it is delivered.
        name: part of every sample's identity.
        samples_per_shard: how many are planned as if they lay in one shard, 1 or more.

    Raises:
        UsageError: no samples, a sample that is no dict, a key that stands twice or is no text, or an argument that
            is not what it should be.
    """

    is_remote = False
    run = 1

    def __init__(
        self, samples: Mapping[str, Sample] | Sequence[Sample], name: str = "memory", *, samples_per_shard: int = 1024
    ) -> None:
        if not isinstance(name, str):
            raise UsageError(f"MemoryShards: name={name!r} is no text")
        self.name = name
        samples_per_shard = whole_number("MemoryShards", "samples_per_shard", samples_per_shard, least=1)
        self.samples_per_shard = samples_per_shard
        pairs: list[tuple[Any, Any]] = list(samples.items() if isinstance(samples, Mapping) else enumerate(samples))
        stranger = next((one for _, one in pairs if not isinstance(one, Mapping)), None)
        if stranger is not None:
            raise UsageError(f"MemoryShards: {stranger!r:.80} is no dict, so no sample")
        self._samples = [{"key": str(key), **sample} for key, sample in pairs]
        if not self._samples:
            raise UsageError("MemoryShards: no samples")
        keys = [str(sample["key"]) for sample in self._samples]
        if len(set(keys)) != len(keys):
            twice = next(key for key, count in Counter(keys).items() if count > 1)
            raise UsageError(f"MemoryShards: the key {twice!r} stands twice; keys are identities")
        half = next((key for key in keys if storable(key) != key), None)
        if half is not None:
            raise UsageError(
                f"MemoryShards: the key {half!r} holds half a character (a lone surrogate), so it is no text"
            )
        self._damaged: dict[int, SampleError] = {}
        lengths = [self._length(position) for position in range(len(self._samples))]
        self._frames = np.array([frames for frames, _ in lengths], dtype=np.int64)
        self._sample_rate = np.array([rate for _, rate in lengths], dtype=np.int64)
        self._keys = keys
        starts = range(0, len(keys), samples_per_shard)
        seconds = self._frames / self._sample_rate
        self.shard_names = [f"memory-{number:06d}" for number in range(len(starts))]
        self.shard_samples = np.array([len(keys[at : at + samples_per_shard]) for at in starts], dtype=np.int64)
        self.shard_seconds = np.array([seconds[at : at + samples_per_shard].sum() for at in starts])
        digest = hashlib.blake2b(name.encode(), digest_size=16)
        digest.update(f" {samples_per_shard}".encode())
        for key, frames, rate in zip(keys, self._frames, self._sample_rate, strict=True):
            digest.update(f"\n{key} {frames} {rate}".encode())
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return len(self._samples)

    def contents(self) -> str:
        """A hash of all that the samples hold, where the fingerprint is of keys and lengths; of files size and time."""
        digest = hashlib.blake2b(digest_size=16)
        for sample in self._samples:
            for name, value in sorted(sample.items()):
                digest.update(f"\n{name} ".encode())
                digest.update(_bytes_of_file(value) if name in PATH_KEYS else _bytes_of(value))
        return digest.hexdigest()

    def rows(self, shard: int) -> Rows:
        """Index rows of one slice of the samples; `offset` is the sample's position."""
        at = slice(shard * self.samples_per_shard, (shard + 1) * self.samples_per_shard)
        keys = self._keys[at]
        return Rows(
            key=keys,
            key_hash=np.array([key_hash(key) for key in keys], dtype=np.uint64),
            frames=self._frames[at],
            sample_rate=self._sample_rate[at],
            offset=np.arange(len(self._keys), dtype=np.int64)[at],
            size=np.zeros(len(keys), dtype=np.int64),
            crc32c=np.full(len(keys), -1, dtype=np.int64),
        )

    def read(self, item: Item) -> Sample:
        """The sample as it was given; the SampleError of one whose file has a header that cannot be read."""
        damage = self._damaged.get(item.offset)
        if damage is not None:
            raise SampleError(str(damage), reason=damage.reason)
        return dict(self._samples[item.offset])

    def read_ahead(self, items: Sequence[Item]) -> Ahead:  # noqa: ARG002
        """Nothing: they are here."""
        return NOTHING_AHEAD

    def columns(self) -> dict[str, str]:
        """Scalar values of the first sample, and what the plan knows. Half characters stand there as \\udcXX."""
        return {field.name: str(field.type) for field in self._table().schema}

    def cells(self, shard: int, column: str) -> list[Any]:
        at = slice(shard * self.samples_per_shard, (shard + 1) * self.samples_per_shard)
        return [storable(sample.get(column)) for sample in self._samples[at]]

    def batches(self, columns: list[str], where: Any = None) -> Iterator[pa.RecordBatch]:
        import pyarrow.dataset

        wanted: dict[str, Any] = {name: pyarrow.dataset.field(name) for name in columns}
        if where is not None:
            wanted["keep"] = where
        yield from pyarrow.dataset.dataset(self._table()).to_batches(columns=wanted, use_threads=False)

    def _table(self) -> pa.Table:
        import pyarrow

        plain = (str, int, float, bool)
        first = self._samples[0].items()
        names = [
            name
            for name, value in first
            if isinstance(value, plain) and name not in ("key", "sample_rate") and storable(name) == name
        ]
        table: dict[str, Any] = {
            "key": self._keys,
            "key_hash": pyarrow.array([key_hash(key) for key in self._keys], pyarrow.uint64()),
            "frames": self._frames,
            "sample_rate": pyarrow.array(self._sample_rate, pyarrow.int32()),
            "seconds": self._frames / self._sample_rate,
            "shard": np.repeat(self.shard_names, self.shard_samples),
        }
        for name in names:
            values = [storable(sample.get(name)) for sample in self._samples]
            try:
                table.setdefault(name, pyarrow.array(values))
            except (pyarrow.ArrowInvalid, pyarrow.ArrowTypeError, OverflowError):  # of several kinds: as text
                table.setdefault(name, pyarrow.array([None if value is None else str(value) for value in values]))
        return pyarrow.table(table)

    def _length(self, position: int) -> tuple[int, int]:
        """(frames, sample rate) of a sample; (0, 16000) where there is no audio, or none whose length can be known."""
        sample = self._samples[position]
        if "wav" in sample:
            given = sample.get("sample_rate", 16_000)
            try:
                frames, rate = len(sample["wav"]), int(given)
            except (TypeError, ValueError, OverflowError):
                frames, rate = 0, 0
            if not 0 < rate < 2**31:
                raise UsageError(
                    f"MemoryShards: {sample['key']!r} has a wav of type {type(sample['wav']).__name__} and sample_rate "
                    f"{given!r}; expected an array [T], and Hz greater than 0"
                )
            return frames, rate
        path = next((sample[name] for name in PATH_KEYS if name in sample), None)
        if path is None:
            return 0, 16_000
        from s3prl_stream.audio.source import probe

        try:
            info = probe(str(path))
        except SampleError as error:
            self._damaged[position] = SampleError(f"{path}: {error}", reason=error.reason)
            return 0, 16_000
        return info.frames, info.sample_rate


def _bytes_of(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    if hasattr(value, "__array__"):
        array = np.ascontiguousarray(value)
        return f"{array.dtype} {array.shape}".encode() + array.tobytes()
    return repr(value).encode()


def _bytes_of_file(path: Any) -> bytes:
    try:
        found = os.stat(path)
    except OSError:
        return f"{path}".encode()
    return f"{path} {found.st_size} {found.st_mtime_ns}".encode()
