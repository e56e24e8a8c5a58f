"""The rows of shards, written down: sidecars beside each tar, index parts, and what the manifest says of a shard."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream.errors import ShardError
from s3prl_stream.shards.index_files import Offsets, Unusable, offsets_of, read_rows_sidecar, shard_bytes_of
from s3prl_stream.shards.layout import SHARDS_PER_PART, offsets_name, parquet_options, part_name, rows_name
from s3prl_stream.shards.progress import Progress, tell_nobody
from s3prl_stream.shards.store import LocalStore, Store
from s3prl_stream.shards.workers import Workers, chunks

if TYPE_CHECKING:
    import pyarrow as pa

_UPLOADS = 8


class IndexWriter:
    """Sidecars and index parts of shards whose rows come one after the other; in a store by several threads, for they
    are small.

    Args:
        store: where the index goes.
        scratch: a local folder for the part that is being written.
    """

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch
        self._parts: list[str] = []
        self._part: Any = None
        self._in_part = 0
        self._threads = ThreadPoolExecutor(_UPLOADS if store.is_remote else 1, "index")
        self._under_way: list[Future[None]] = []

    def __enter__(self) -> IndexWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        if self._part is not None:
            self._part.close()

    def add(self, shard: str, table: pa.Table, offsets: Offsets | None) -> None:
        """The rows of the next shard; without offsets, it has some of its own."""
        import pyarrow.parquet

        write_sidecars(self._write, shard, table, offsets)
        if self._part is None:
            options = parquet_options(table.column_names)
            self._part = pyarrow.parquet.ParquetWriter(str(self._scratch / "part"), table.schema, **options)
        self._part.write_table(table, row_group_size=table.num_rows)
        self._in_part += 1
        if self._in_part == SHARDS_PER_PART:
            self._end_part()

    def finish(self) -> list[str]:
        """End the last part and wait for everything; names of the parts."""
        self._end_part()
        self._wait(0)
        return self._parts

    def _end_part(self) -> None:
        if self._part is None:
            return
        self._part.close()
        self._part, self._in_part = None, 0
        self._parts.append(part_name(len(self._parts)))
        self._store.upload(self._scratch / "part", self._parts[-1])

    def _write(self, name: str, content: bytes) -> None:
        self._under_way.append(self._threads.submit(self._store.write, name, content))
        self._wait(2 * _UPLOADS)

    def _wait(self, at_most: int) -> None:
        while len(self._under_way) > at_most:
            self._under_way.pop(0).result()


def write_sidecars(write: Callable[[str, bytes], None], shard: str, table: pa.Table, offsets: Offsets | None) -> None:
    """The files beside a shard: its rows and, where they are given, its offsets."""
    if offsets is not None:
        write(offsets_name(shard), offsets.astype("<u8").tobytes())
    write(rows_name(shard), _parquet_bytes([table]))


def write_parts(out: Store, shards: Sequence[str], workers: Workers, tell: Progress = tell_nobody) -> list[str]:
    """Index parts of shards whose sidecars have just been written; names of the parts."""
    groups = list(chunks(list(shards), SHARDS_PER_PART))
    parts = [part_name(number) for number in range(len(groups))]
    tasks = [(out, part, group) for part, group in zip(parts, groups, strict=True)]
    for done, _ in enumerate(workers.map(_write_part, tasks), start=1):
        tell("indexing", min(done * SHARDS_PER_PART, len(shards)), len(shards))
    return parts


def publish_shard(path: Path, sha256: str | None, table: pa.Table, out: Store, shard: str) -> dict[str, Any]:
    """A finished tar under its name, with its sidecars; what the manifest says of it."""
    write_sidecars(out.write, shard, table, offsets_of(table))
    _publish(path, out, shard)
    return described(shard, table, sha256)


def described(shard: str, table: pa.Table, sha256: str | None) -> dict[str, Any]:
    """What the manifest says of a shard with these rows."""
    return {
        "name": shard,
        "samples": table.num_rows,
        "seconds": math.fsum(table.column("seconds").to_pylist()),
        "bytes": shard_bytes_of(table),
        "sha256": sha256,
    }


def placed(table: pa.Table, shard: str) -> pa.Table:
    """Rows of samples that stand one behind the other in this shard, wherever they stood before."""
    import pyarrow

    sizes = table.column("size").to_numpy()
    columns = {
        "shard": pyarrow.array([shard] * table.num_rows, pyarrow.string()),
        "offset": pyarrow.array(np.cumsum(sizes) - sizes, pyarrow.int64()),
    }
    for column, values in columns.items():
        table = table.set_column(table.column_names.index(column), column, values)
    return table


def _parquet_bytes(tables: Sequence[pa.Table]) -> bytes:
    """A file of index rows: a row group for each table, all of one schema."""
    import pyarrow.parquet

    sink = pyarrow.BufferOutputStream()
    schema = tables[0].schema
    with pyarrow.parquet.ParquetWriter(sink, schema, **parquet_options(schema.names)) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=table.num_rows)
    return bytes(sink.getvalue())


def _write_part(task: tuple[Store, str, list[str]]) -> None:
    out, part, shards = task
    tables = []
    for shard in shards:
        table = read_rows_sidecar(out, shard)
        if isinstance(table, Unusable):
            raise ShardError(f"{out.url}/{rows_name(shard)}: was written, cannot be read: {table.message}")
        tables.append(table)
    out.write(part, _parquet_bytes(tables))


def _publish(path: Path, out: Store, name: str) -> None:
    """Without copying its bytes where a hard link will do."""
    if isinstance(out, LocalStore):
        with contextlib.suppress(OSError):  # another disk, or one that knows no links
            out.link(path, name)
            return
    out.upload(path, name)
