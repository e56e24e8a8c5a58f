"""One shard of a subset: the bytes of its samples, copied from the shards they are in. Runs in a worker."""

from __future__ import annotations

import contextlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream.errors import SampleError
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.member import I64
from s3prl_stream.shards.write_index import placed, publish_shard
from s3prl_stream.shards.writer import ShardWriter
from s3prl_stream.stores.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_READ_AHEAD = 64  # samples


def write_shard(
    folder: ShardFolder, out: Store, scratch: Path, new_shard: tuple[str, I64, I64]
) -> tuple[dict[str, Any] | None, list[LeftOut]]:
    """Copy the samples of a new shard and write it with its sidecars.

    Args:
        folder, out: the old set and the new one.
        scratch: a local folder; on the disk of `out`, if that has one.
        new_shard: its name, and of each of its N samples in their order the number of the old shard and the row there.

    Returns:
        (what the manifest says of it, or None: no sample is sound; those that are damaged).
    """
    name, shards, rows = new_shard
    table = _rows_in_order(folder, shards, rows)
    kept, damaged = [], []
    with tempfile.TemporaryDirectory(dir=scratch) as place, ShardWriter(Path(place), name) as new:
        for position, data in enumerate(_samples(folder, table)):
            if isinstance(data, LeftOut):
                damaged.append(data)
            else:
                new.append(data)
                kept.append(position)
        if not kept:
            return None, damaged
        sha256 = new.finish()
        return publish_shard(new.path, sha256, placed(table.take(kept), name), out, name), damaged


def _rows_in_order(folder: ShardFolder, shards: I64, rows: I64) -> pa.Table:
    """The old index rows of these samples, in the new order."""
    import pyarrow

    by_shard = np.argsort(shards, kind="stable")
    tables = []
    for shard, positions in itertools.groupby(by_shard, key=lambda position: int(shards[position])):
        tables.append(folder.rows_table(shard).take(rows[list(positions)]))
    return pyarrow.concat_tables(tables).take(np.argsort(by_shard, kind="stable")).combine_chunks()


def _samples(folder: ShardFolder, table: pa.Table) -> Iterator[bytes | LeftOut]:
    """The bytes of each sample, or that they are damaged; the next ones are on their way meanwhile."""
    names = ("key", "shard", "offset", "size", "crc32c")
    rows = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
    for first in range(0, len(rows), _READ_AHEAD):
        some = rows[first : first + _READ_AHEAD]
        with contextlib.closing(folder.tars.read_ahead([(shard, offset, size) for _, shard, offset, size, _ in some])):
            for key, shard, offset, size, crc32c in some:
                try:
                    yield folder.read_bytes(shard, offset, size, crc32c, f"{shard}: {key} at byte {offset}")
                except SampleError as error:
                    yield LeftOut(key, shard, "damaged", error.reason, str(error))
