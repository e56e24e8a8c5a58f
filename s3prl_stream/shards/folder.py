"""A packed set, opened by its manifest; index rows are read shard by shard when they are needed.

On a disk they come from the index parts, which stay open. In an object store they come from the sidecar beside each
shard: one request, where a row group inside a part would cost one for the footer and one for each column.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream.errors import DamagedFile, MissingFile, SampleError, ShardError
from s3prl_stream.sample import Item, Sample
from s3prl_stream.shards.bytes import check_bytes, split_sample
from s3prl_stream.shards.index_files import PLAN_COLUMNS, arrow_errors, problem_with_rows
from s3prl_stream.shards.indexed import IndexedSamples, open_tars
from s3prl_stream.shards.layout import SHARDS_PER_PART, part_name, rows_name
from s3prl_stream.shards.manifest import MEND_INDEX, read_manifest
from s3prl_stream.shards.member import Rows
from s3prl_stream.stores.at_once import at_once
from s3prl_stream.stores.kept import Kept
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stores.store import Ahead, Store, open_store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

MAX_OPEN_PARTS = 8
DEFAULT_RUN = 4
"""Of packed sets, whose neighbours are alike in duration and of mixed speakers."""

MAX_INDEX_BYTES = 1 << 30
_EXPRESSION_ERRORS = ("ArrowInvalid", "ArrowNotImplementedError", "ArrowTypeError")


class ShardFolder:
    """One set written by `pack`, or indexed where its tars lie by `index_shards`.

    Args:
        url: folder that holds `manifest.json`: a path, a URL as in `store.open_store`, or an opened store.

    Raises:
        UsageError: there is no set in the folder.
        ShardError: the manifest is damaged or of a format version this package does not know.
    """

    def __init__(self, url: str | Path | Store) -> None:
        self.store: Store = open_store(url) if isinstance(url, str | Path) else url
        manifest = read_manifest(self.store)
        shards = manifest["shards"]
        self.name: str = manifest["name"]
        self.shard_names = [shard["name"] for shard in shards]
        self.shard_samples = np.array([shard["samples"] for shard in shards], dtype=np.int64)
        self.shard_seconds = np.array([shard["seconds"] for shard in shards], dtype=np.float64)
        self.num_bytes = sum(shard["bytes"] for shard in shards)
        digest = hashlib.blake2b(self.name.encode(), digest_size=16)
        for shard in shards:
            digest.update(f"\n{shard['name']} {shard['samples']} {shard.get('rows_hash') or shard['sha256']}".encode())
            digest.update(str(shard.get("table_hash", "")).encode())
        self.fingerprint = digest.hexdigest()
        self.manifest = {name: value for name, value in manifest.items() if name != "shards"}
        self.tars: Store = open_tars(self.store, manifest)
        """Where the shards lie: beside the manifest, unless they were indexed from elsewhere."""
        self._indexed = IndexedSamples(manifest) if "indexed" in manifest else None
        self._columns: dict[str, str] | None = None
        self._parts: Kept[int, pq.ParquetFile] = Kept(MAX_OPEN_PARTS)

    @property
    def is_remote(self) -> bool:
        return self.store.is_remote or self.tars.is_remote

    @property
    def run(self) -> int:
        return int(self.manifest.get("run", DEFAULT_RUN))

    def rows(self, shard: int) -> Rows:
        """Index rows of shard number `shard`; safe from several threads."""
        column = self.rows_table(shard, PLAN_COLUMNS)
        problem = problem_with_rows(column)
        if problem is not None:
            raise ShardError(f"{self.store.url}: the index of {self.shard_names[shard]} has {problem}. {MEND_INDEX}")
        return Rows(
            key=column["key"],
            key_hash=column["key_hash"].to_numpy(),
            frames=column["frames"].to_numpy(),
            sample_rate=column["sample_rate"].to_numpy().astype(np.int64),
            offset=column["offset"].to_numpy(),
            size=column["size"].to_numpy(),
            crc32c=column["crc32c"].cast("int64").fill_null(-1).to_numpy(),  # null: never computed
        )

    def rows_table(self, shard: int, columns: list[str] | None = None) -> pa.Table:
        """Index rows of shard number `shard`, by default all columns; safe from several threads."""
        name = rows_name(self.shard_names[shard]) if self.store.is_remote else part_name(shard // SHARDS_PER_PART)
        with self._reading(name):
            table = self._remote_rows(name, columns) if self.store.is_remote else self._local_rows(shard, columns)
            table = table if columns is None else table.select(columns)
        self._check_count(table.num_rows, name, shard)
        return table

    def cells(self, shard: int, column: str) -> list[Any]:
        cells: list[Any] = self.rows_table(shard, [column]).column(column).to_pylist()
        return cells

    def read(self, item: Item) -> Sample:
        """Bytes of one sample, checked, with its metadata."""
        shard = self.shard_names[item.shard]
        where = f"{shard}: {item.key} at byte {item.offset}"
        data = self.read_bytes(shard, item.offset, item.size, item.crc32c, where)
        if self._indexed is not None:
            return self._indexed.sample(data, item, shard, where, self.rows_table)
        sample = split_sample(data, where)
        return {**sample.metadata, "audio": sample.audio, "codec": sample.codec}

    def read_bytes(self, shard: str, offset: int, size: int, crc32c: int, where: str) -> bytes:
        """Bytes of one sample of a shard, compared with the index (`crc32c` -1: nothing to compare).

        Raises:
            SampleError: they are not what the index says.
        """
        try:
            data = self.tars.read(shard, offset, size)
        except DamagedFile as error:
            raise SampleError(f"{where}: {error}", reason="unreadable") from None
        try:
            check_bytes(data, size=size, crc32c=crc32c, where=where)
        except SampleError:
            if not self.tars.is_remote:
                raise
            data = self.tars.read_again(shard, offset, size)  # damage on the way is not damage at rest
            check_bytes(data, size=size, crc32c=crc32c, where=where)
        return data

    def read_ahead(self, items: Sequence[Item]) -> Ahead:
        return self.tars.read_ahead([(self.shard_names[item.shard], item.offset, item.size) for item in items])

    def columns(self) -> dict[str, str]:
        if self._columns is None:
            self._columns = {field.name: str(field.type) for field in self.rows_table(0).schema}
        return self._columns

    def batches(self, columns: list[str], where: Any = None) -> Iterator[pa.RecordBatch]:
        """Stream the index in row order, a row group at a time.

        Raises:
            ShardError: an index part that cannot be read, or has not the rows that the manifest says.
            pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, pyarrow.ArrowTypeError: `where` does not fit.
        """
        import pyarrow.dataset
        import pyarrow.fs

        wanted: dict[str, Any] = {name: pyarrow.dataset.field(name) for name in columns}
        if where is not None:
            wanted["keep"] = where
        names = [part_name(number) for number in range(-(-len(self.shard_names) // SHARDS_PER_PART))]
        with contextlib.closing(at_once(self._source, names, is_remote=self.store.is_remote)) as sources:
            for number, name in enumerate(names):
                shards = slice(number * SHARDS_PER_PART, (number + 1) * SHARDS_PER_PART)
                with self._reading(name):
                    files = None if self.store.is_remote else pyarrow.fs.LocalFileSystem()
                    part = pyarrow.dataset.ParquetFileFormat().make_fragment(next(sources), filesystem=files)
                    found = part.metadata.num_rows
                self._check_count(found, name, shards)
                with self._reading(name, but=() if where is None else _EXPRESSION_ERRORS):
                    yield from part.to_batches(columns=wanted, use_threads=False)

    def _check_count(self, found: int, name: str, shards: int | slice) -> None:
        """Raises ShardError if an index file has another number of rows for a shard, or for several, than expected."""
        expected = self.shard_samples[shards].sum()
        if found != expected:
            of = f" for {self.shard_names[shards]}" if isinstance(shards, int) else ""
            raise ShardError(
                f"{self.store.url}/{name}: has {found} rows{of}, the manifest {expected}. The index is of another set. "
                f"{MEND_INDEX}"
            )

    def _local_rows(self, shard: int, columns: list[str] | None) -> pa.Table:
        with self._part(shard // SHARDS_PER_PART) as part:
            group = shard % SHARDS_PER_PART
            # a few bytes can hold 1e9 equal rows
            name = part_name(shard // SHARDS_PER_PART)
            self._check_count(part.metadata.row_group(group).num_rows, name, shard)
            return part.read_row_group(group, columns=columns, use_threads=False)

    def _remote_rows(self, name: str, columns: list[str] | None) -> pa.Table:
        content = self.store.read_whole(name, at_most=MAX_INDEX_BYTES)
        try:
            with arrow_errors(DamagedFile):
                return _parse_rows(content, columns)
        except DamagedFile:  # damage on the way is not damage at rest
            return _parse_rows(self.store.read_again(name, 0, len(content)), columns)

    def _source(self, name: str) -> Any:
        """What Arrow opens: a path, or all bytes of a remote file by one request."""
        if isinstance(self.store, LocalStore):
            return str(self.store.path(name))
        import pyarrow

        return pyarrow.BufferReader(self.store.read_whole(name, at_most=MAX_INDEX_BYTES))

    def _part(self, number: int) -> contextlib.AbstractContextManager[pq.ParquetFile]:
        import pyarrow.parquet

        def opened() -> pq.ParquetFile:
            return pyarrow.parquet.ParquetFile(self._source(part_name(number)), page_checksum_verification=True)

        return self._parts.using(number, opened)

    @contextlib.contextmanager
    def _reading(self, name: str, *, but: tuple[str, ...] = ()) -> Iterator[None]:
        """What Arrow raises on a damaged file as a ShardError; types named in `but` pass."""

        def told(what: str) -> ShardError:
            return ShardError(f"{self.store.url}/{name}: not a readable index part ({what}). {MEND_INDEX}")

        try:
            with arrow_errors(told, but=but):
                yield
        except MissingFile:
            raise MissingFile(f"{self.store.url}/{name}: cannot be read (not there). {MEND_INDEX}") from None


def _parse_rows(content: bytes, columns: list[str] | None) -> pa.Table:
    import pyarrow
    import pyarrow.parquet

    part = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(content), page_checksum_verification=True)
    return part.read(columns=columns, use_threads=False)
