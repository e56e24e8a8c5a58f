"""One shard of a subset: the bytes of its samples, copied from the shards they are in. Runs in a worker."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from s3prl_stream.errors import SampleError
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.member import I64
from s3prl_stream.shards.repair_shard import NewTar
from s3prl_stream.shards.store import Store
from s3prl_stream.shards.write_index import placed, publish_shard

if TYPE_CHECKING:
    import pyarrow as pa

_READ_AHEAD = 64  # samples


class Job(NamedTuple):
    """What a worker is asked: one new shard."""

    folder: ShardFolder
    out: Store
    scratch: Path
    name: str
    shards: I64
    """[N] the old shard of each sample, by its number, in the new order."""
    rows: I64
    """[N] its row there."""


class Outcome(NamedTuple):
    """What became of it."""

    description: dict[str, Any] | None
    """What the manifest says of it; None: no sample is sound."""
    damaged: list[LeftOut]


def write_shard(job: Job) -> Outcome:
    """Copy the samples and write the shard with its sidecars."""
    table = _rows_in_order(job)
    kept, damaged = [], []
    with contextlib.closing(NewTar(job.scratch / job.name)) as new:
        new.begin()
        for position, data in enumerate(_samples(job, table)):
            if isinstance(data, LeftOut):
                damaged.append(data)
            else:
                new.write(data)
                kept.append(position)
        if not kept:
            return Outcome(None, damaged)
        sha256 = new.finish()
        table = placed(table.take(kept), job.name)
        return Outcome(publish_shard(new.path, sha256, table, job.out, job.name), damaged)


def _rows_in_order(job: Job) -> pa.Table:
    """The old index rows of the job's samples, in the new order."""
    import pyarrow

    columns = list(job.folder.columns())
    by_shard = np.argsort(job.shards, kind="stable")
    tables = []
    for shard, positions in itertools.groupby(by_shard, key=lambda position: int(job.shards[position])):
        tables.append(job.folder.rows_table(shard, columns).take(job.rows[list(positions)]))
    return pyarrow.concat_tables(tables).take(np.argsort(by_shard, kind="stable")).combine_chunks()


def _samples(job: Job, table: pa.Table) -> Iterator[bytes | LeftOut]:
    """The bytes of each sample, or that they are damaged; the next ones are on their way meanwhile."""
    names = ("key", "shard", "offset", "size", "crc32c")
    rows = list(zip(*(table.column(name).to_pylist() for name in names), strict=True))
    for first in range(0, len(rows), _READ_AHEAD):
        some = rows[first : first + _READ_AHEAD]
        with contextlib.closing(
            job.folder.tars.read_ahead([(shard, offset, size) for _, shard, offset, size, _ in some])
        ):
            for key, shard, offset, size, crc32c in some:
                try:
                    yield job.folder.read_bytes(shard, offset, size, crc32c, f"{shard}: {key} at byte {offset}")
                except SampleError as error:
                    yield LeftOut(key, shard, "damaged", error.reason, str(error))
