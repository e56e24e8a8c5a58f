"""The rows of shards, written down: sidecars beside each tar, index parts, and what the manifest says of a shard."""

from __future__ import annotations

import contextlib
import io
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream.errors import ShardError
from s3prl_stream.shards.index_files import Offsets, Unusable, offsets_of, read_rows_sidecar, shard_bytes_of
from s3prl_stream.shards.layout import SHARDS_PER_PART, offsets_name, parquet_options, part_name, rows_name
from s3prl_stream.shards.workers import Progress, Workers, chunks, tell_nobody
from s3prl_stream.stores.at_once import at_once
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stores.store import Store

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def write_index(store: Store, shards: Iterable[tuple[str, pa.Table, Offsets | None]]) -> list[str]:
    """Sidecars and index parts of shards whose rows come one after the other; names of the parts.

    Args:
        store: where the index goes; several files at once, for they are small.
        shards: name, rows and offsets of each; without offsets, it has some of its own.
    """
    parts: list[str] = []

    def files() -> Iterator[tuple[str, bytes]]:
        rest = iter(shards)
        for first in rest:
            part = io.BytesIO()
            with _parquet_writer(part, first[1].schema) as writer:  # rows of one shard at a time in memory
                for shard, table, offsets in itertools.chain([first], itertools.islice(rest, SHARDS_PER_PART - 1)):
                    yield from sidecars(shard, table, offsets)
                    writer.write_table(table, row_group_size=table.num_rows)
            parts.append(part_name(len(parts)))
            yield parts[-1], part.getvalue()

    for _ in at_once(lambda file: store.write(*file), files(), is_remote=True):  # a disk takes its time, too, to flush
        pass
    return parts


def sidecars(shard: str, table: pa.Table, offsets: Offsets | None) -> Iterator[tuple[str, bytes]]:
    """(name, content) of the files beside a shard: its offsets, where they are given, and its rows."""
    if offsets is not None:
        yield offsets_name(shard), offsets.astype("<u8").tobytes()
    yield rows_name(shard), _parquet_bytes([table])


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
    for file in sidecars(shard, table, offsets_of(table)):
        out.write(*file)
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
    sink = io.BytesIO()
    with _parquet_writer(sink, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table, row_group_size=table.num_rows)
    return sink.getvalue()


def _parquet_writer(sink: io.BytesIO, schema: pa.Schema) -> pq.ParquetWriter:
    import pyarrow.parquet

    return pyarrow.parquet.ParquetWriter(sink, schema, **parquet_options(schema.names))


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
