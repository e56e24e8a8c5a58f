"""Tars made elsewhere under examination: what is checked is what a stream needs of them.

Such tars may hold anything between their samples, and there are checksums only if they were indexed with `full`. So
their samples are read as a stream reads them, and decoded.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from s3prl_stream.audio.decode import decode
from s3prl_stream.errors import SampleError
from s3prl_stream.sample import Item
from s3prl_stream.shards.findings import ADVICE, Examined, Finding, of_file, of_sample
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.foreign_index import rows_hash
from s3prl_stream.shards.index_files import (
    IndexPart,
    Unusable,
    are_offsets_of,
    first_difference,
    read_offsets,
    read_rows_sidecar,
)
from s3prl_stream.shards.layout import INDEX_COLUMNS, SHARDS_PER_PART, offsets_name, part_name, rows_name
from s3prl_stream.shards.rows import IndexRow

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 64
"""Samples that are fetched ahead from a store."""


class IndexedTar(NamedTuple):
    """What the manifest of an index says of a tar."""

    number: int
    name: str
    samples: int
    num_bytes: int
    rows_hash: str
    has_own_offsets: bool
    """The `.tar.idx` beside it is that of whoever made the tar, and no business of ours."""


class IndexedTask(NamedTuple):
    """What a worker is asked: tars of one index part."""

    folder: ShardFolder
    tars: list[IndexedTar]
    full: bool


def tars_of(shards: Sequence[Mapping[str, Any]]) -> list[IndexedTar]:
    """All tars of a set, from `shards` of its manifest."""
    return [
        IndexedTar(
            number, one["name"], one["samples"], one["bytes"], str(one.get("rows_hash")), one.get("offsets") == "found"
        )
        for number, one in enumerate(shards)
    ]


def examine_tars(task: IndexedTask) -> list[Examined]:
    """Of each what there is to say."""
    part = IndexPart(task.folder.store, part_name(task.tars[0].number // SHARDS_PER_PART))
    return [_examine(task.folder, tar, part, task.full) for tar in task.tars]


def _examine(folder: ShardFolder, tar: IndexedTar, part: IndexPart, full: bool) -> Examined:
    findings: list[Finding] = []
    is_wrong = functools.partial(_problem_with, tar)
    in_part = part.rows(tar.number % SHARDS_PER_PART, tar.name, is_wrong)
    beside = read_rows_sidecar(folder.store, tar.name, is_wrong)
    for file, reason, rows in ((part.name, "index", in_part), (rows_name(tar.name), "rows", beside)):
        if isinstance(rows, Unusable):
            findings.append(of_file(file, reason, rows.message, "index again"))
    usable = [rows for rows in (in_part, beside) if not isinstance(rows, Unusable)]
    if len(usable) == 2 and (difference := first_difference(*usable)) is not None:
        message = f"rows of {tar.name} are not those of {part.name}: {difference}"
        findings.append(of_file(rows_name(tar.name), "rows", message, "index again"))
    size = folder.tars.size(tar.name)
    if size is None:
        message = f"not there; it held {tar.samples} samples"
        findings.append(of_file(tar.name, "missing", message, "index again"))
    elif size != tar.num_bytes:
        message = f"{size} bytes, it had {tar.num_bytes} when it was indexed"
        findings.append(of_file(tar.name, "size", message, "index again"))
    if not usable:
        return Examined(findings, size or 0, np.zeros(0, dtype=np.uint64))
    if not tar.has_own_offsets:
        findings += _offsets_findings(folder, tar, usable[0])
    if size is not None:
        findings += _sample_findings(folder, tar, usable[0], full)
    return Examined(findings, size or 0, usable[0].column("key_hash").to_numpy())


def _problem_with(tar: IndexedTar, table: pa.Table) -> str | None:
    """Why these are not the rows that were written for this tar; None: they are."""
    if any(name not in table.column_names for name in INDEX_COLUMNS):
        return "columns are missing"
    fields = [name for name in IndexRow._fields if name != "metadata"]
    rows = [IndexRow(**row, metadata={}) for row in table.select(fields).to_pylist()]
    if len(rows) != tar.samples or rows_hash(rows) != tar.rows_hash:
        return "not the rows that the manifest was written with"
    return None


def _offsets_findings(folder: ShardFolder, tar: IndexedTar, rows: pa.Table) -> Iterator[Finding]:
    offsets, file = read_offsets(folder.store, tar.name), offsets_name(tar.name)
    if isinstance(offsets, Unusable):
        yield of_file(file, "offsets", offsets.message, "index again")
    elif not are_offsets_of(offsets, rows, tar.num_bytes):
        yield of_file(file, "offsets", "not the offsets of the tar's samples", "index again")


def _sample_findings(folder: ShardFolder, tar: IndexedTar, rows: pa.Table, full: bool) -> Iterator[Finding]:
    """Of all samples, or of the first and the last."""
    numbers = list(range(rows.num_rows)) if full else sorted({0, rows.num_rows - 1})
    for first in range(0, len(numbers), _AT_ONCE):
        some = rows.take(numbers[first : first + _AT_ONCE]).to_pylist()
        items = [_item(tar.number, row) for row in some]
        with contextlib.closing(folder.read_ahead(items)):
            for item, row in zip(items, some, strict=True):
                try:
                    _check(folder, item, row["sample_rate"] if full else None)
                except SampleError as error:
                    message = str(error).removeprefix(f"{tar.name}: {item.key} at byte {item.offset}: ")
                    found = of_sample(tar.name, item.key, item.offset, item.size, error.reason, message)
                    yield found._replace(advice=ADVICE["index again"])


def _check(folder: ShardFolder, item: Item, sample_rate: int | None) -> None:
    """As a stream does; `sample_rate`: decode it, too."""
    sample = folder.read(item)
    if sample_rate is None:
        return
    wav, rate = decode(sample["audio"], sample["codec"])
    if (len(wav), rate) != (item.clip_frames, sample_rate):
        raise SampleError(
            f"decodes to {len(wav)} frames at {rate} Hz, the index says {item.clip_frames} at {sample_rate}",
            reason="differs",
        )


def _item(shard: int, row: dict[str, Any]) -> Item:
    return Item(
        set_index=0,
        shard=shard,
        offset=row["offset"],
        size=row["size"],
        crc32c=-1 if row["crc32c"] is None else row["crc32c"],
        key=row["key"],
        first_frame=0,
        num_frames=row["frames"],
        clip_frames=row["frames"],
        epoch=0,
        draw=0,
    )
