"""A packed set on disk, opened by its manifest; index rows are read shard by shard when they are needed."""

from __future__ import annotations

import contextlib
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.sample import Item, Sample
from s3prl_stream.shards.bytes import ShardFiles, check_bytes, split_members
from s3prl_stream.shards.layout import FORMAT_VERSION, MANIFEST, SHARDS_PER_PART, part_name
from s3prl_stream.shards.member import Rows

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

PLAN_COLUMNS = ["key", "key_hash", "frames", "sample_rate", "offset", "size", "crc32c"]
MAX_OPEN_PARTS = 8
_EXPRESSION_ERRORS = ("ArrowInvalid", "ArrowNotImplementedError", "ArrowTypeError")


class ShardFolder:
    """One set written by `pack`.

    Args:
        folder: holds `manifest.json`.

    Raises:
        UsageError: there is no set in the folder.
        ShardError: the manifest is damaged or of a format version this package does not know.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        manifest = _read_manifest(self.folder)
        shards = manifest["shards"]
        self.name: str = manifest["name"]
        self.shard_names = [shard["name"] for shard in shards]
        self.shard_samples = np.array([shard["samples"] for shard in shards], dtype=np.int64)
        self.shard_seconds = np.array([shard["seconds"] for shard in shards], dtype=np.float64)
        self.num_bytes = sum(shard["bytes"] for shard in shards)
        digest = hashlib.blake2b(self.name.encode(), digest_size=16)
        for shard in shards:
            digest.update(f"\n{shard['name']} {shard['samples']} {shard['sha256']}".encode())
        self.fingerprint = digest.hexdigest()
        self.manifest = {name: value for name, value in manifest.items() if name != "shards"}
        self._files = ShardFiles(self.folder)
        self._parts: OrderedDict[int, pq.ParquetFile] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_parts": OrderedDict(), "_lock": None}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._lock = threading.Lock()

    def rows(self, shard: int) -> Rows:
        """Index rows of shard number `shard`; safe from several threads."""
        with self._lock, _reading(self._part_path(shard // SHARDS_PER_PART)):
            part = self._part(shard // SHARDS_PER_PART)
            table = part.read_row_group(shard % SHARDS_PER_PART, columns=PLAN_COLUMNS, use_threads=False)
            column = {name: table.column(name) for name in PLAN_COLUMNS}
        if table.num_rows != self.shard_samples[shard]:
            raise ShardError(
                f"{self.folder}: the index has {table.num_rows} rows for {self.shard_names[shard]}, the manifest "
                f"{self.shard_samples[shard]}. The index is of another set: pack it again."
            )
        return Rows(
            key=column["key"],
            key_hash=column["key_hash"].to_numpy(),
            frames=column["frames"].to_numpy(),
            sample_rate=column["sample_rate"].to_numpy().astype(np.int64),
            offset=column["offset"].to_numpy(),
            size=column["size"].to_numpy(),
            crc32c=column["crc32c"].to_numpy().astype(np.int64),
        )

    def read(self, item: Item) -> Sample:
        """Bytes of one sample, checked, with its metadata."""
        shard = self.shard_names[item.shard]
        data = self._files.read(shard, item.offset, item.size)
        where = f"{shard}: {item.key} at byte {item.offset}"
        check_bytes(data, size=item.size, crc32c=item.crc32c, where=where)
        audio, codec, metadata = split_members(data, where)
        return {**metadata, "audio": audio, "codec": codec}

    def columns(self) -> dict[str, str]:
        """Index column -> Arrow type."""
        with self._lock, _reading(self._part_path(0)):
            return {field.name: str(field.type) for field in self._part(0).schema_arrow}

    def batches(self, columns: list[str], where: Any = None) -> Iterator[pa.RecordBatch]:
        """Stream the index in row order, a row group at a time.

        Raises:
            ShardError: an index part that cannot be read, or has not the rows that the manifest says.
            pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, pyarrow.ArrowTypeError: `where` does not fit.
        """
        import pyarrow.dataset
        import pyarrow.parquet

        wanted: dict[str, Any] = {name: pyarrow.dataset.field(name) for name in columns}
        if where is not None:
            wanted["keep"] = where
        for number in range(-(-len(self.shard_names) // SHARDS_PER_PART)):
            path = self._part_path(number)
            shards = slice(number * SHARDS_PER_PART, (number + 1) * SHARDS_PER_PART)
            with _reading(path):
                found = pyarrow.parquet.read_metadata(path).num_rows
            if found != self.shard_samples[shards].sum():
                raise ShardError(
                    f"{path}: has {found} rows, the manifest says {self.shard_samples[shards].sum()}. "
                    "The index is of another set: pack it again."
                )
            with _reading(path, but=() if where is None else _EXPRESSION_ERRORS):
                part = pyarrow.dataset.dataset(path, format="parquet")
                yield from part.to_batches(columns=wanted, use_threads=False)

    def _part_path(self, number: int) -> Path:
        return self.folder / part_name(number)

    def _part(self, number: int) -> pq.ParquetFile:
        import pyarrow.parquet

        if number in self._parts:
            self._parts.move_to_end(number)
            return self._parts[number]
        part = pyarrow.parquet.ParquetFile(self._part_path(number), page_checksum_verification=True)
        while len(self._parts) >= MAX_OPEN_PARTS:
            self._parts.popitem(last=False)
        self._parts[number] = part
        return part


@contextlib.contextmanager
def _reading(path: Path, *, but: tuple[str, ...] = ()) -> Iterator[None]:
    """What Arrow raises on a damaged file (a dozen kinds) as a ShardError; types named in `but` pass."""
    try:
        yield
    except (ShardError, UsageError):
        raise
    except (OSError, ValueError, KeyError, IndexError, TypeError, NotImplementedError, MemoryError) as error:
        if type(error).__name__ in but:
            raise
        what = " ".join(str(error).split())
        raise ShardError(f"{path}: not a readable index part ({what}). Pack the set again.") from error


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST
    if not path.is_file():
        raise UsageError(f"{folder}: no shard set here ({MANIFEST} is missing). Make one with `s3prl-stream pack`.")
    try:
        manifest = json.loads(path.read_bytes())
        version = manifest["format_version"]
        if version == FORMAT_VERSION:
            _check_manifest(manifest)
    except (ValueError, TypeError, KeyError) as error:
        raise ShardError(f"{path}: not a readable manifest ({error!r}). Pack the set again.") from error
    if version != FORMAT_VERSION:
        raise ShardError(f"{path}: format version {version}; this package reads version {FORMAT_VERSION}.")
    if not manifest["shards"]:
        raise UsageError(f"{folder}: the set is empty (its manifest names no shard). Pack it again.")
    return dict(manifest)


def _check_manifest(manifest: dict[str, Any]) -> None:
    """Look up whatever this class reads: KeyError or TypeError where it is not there."""
    str(manifest["name"])
    for shard in manifest["shards"]:
        str(shard["name"]), int(shard["samples"]), float(shard["seconds"]), int(shard["bytes"]), str(shard["sha256"])
