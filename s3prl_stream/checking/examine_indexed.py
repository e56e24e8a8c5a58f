"""Tars made elsewhere under examination: what is checked is what a stream needs of them.

Such tars may hold anything between their samples, and there are checksums only if they were indexed with `full`. So
their samples are read as a stream reads them, and decoded.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from s3prl_stream.audio.decode import decode
from s3prl_stream.checking.examine import Examined, examined, index_findings, read_index
from s3prl_stream.checking.findings import ADVICE, Finding, of_sample
from s3prl_stream.checking.inventory import Entry
from s3prl_stream.errors import SampleError
from s3prl_stream.sample import Item
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.index_files import IndexPart

if TYPE_CHECKING:
    import pyarrow as pa

_AT_ONCE = 64
"""Samples that are fetched ahead from a store."""


def examine_tars(folder: ShardFolder, full: bool, entries: Sequence[Entry]) -> list[Examined]:
    """Of each of some tars of one index part what there is to say."""
    part, found = IndexPart(folder.store, entries[0].part), []
    for entry in entries:
        index = read_index(folder.store, entry, part)
        rows, size = next(iter(index.candidates()), None), folder.tars.size(entry.name)
        findings = index_findings(entry, index, rows, size)
        if rows is not None and size is not None:
            findings += _sample_findings(folder, entry, rows, full)
        found.append(examined([one._replace(advice=ADVICE["index again"]) for one in findings], size, rows))
    return found


def _sample_findings(folder: ShardFolder, entry: Entry, rows: pa.Table, full: bool) -> Iterator[Finding]:
    """Of all samples, or of the first and the last."""
    numbers = list(range(rows.num_rows)) if full else sorted({0, rows.num_rows - 1})
    for first in range(0, len(numbers), _AT_ONCE):
        some = rows.take(numbers[first : first + _AT_ONCE]).to_pylist()
        items = [_item(entry.number, row) for row in some]
        with contextlib.closing(folder.read_ahead(items)):
            for item, row in zip(items, some, strict=True):
                try:
                    _check(folder, item, row["sample_rate"] if full else None)
                except SampleError as error:
                    message = str(error).removeprefix(f"{entry.name}: {item.key} at byte {item.offset}: ")
                    yield of_sample(entry.name, item.key, item.offset, item.size, error.reason, message)


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
