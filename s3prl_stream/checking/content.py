"""What the bytes of a packed shard say by themselves: read once from front to back, hashed, cut, checked, decoded."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from s3prl_stream.audio.decode import decode
from s3prl_stream.checking.findings import ADVICE, Finding, of_sample
from s3prl_stream.errors import DamagedFile, SampleError
from s3prl_stream.shards.bytes import check_bytes, split_sample
from s3prl_stream.shards.layout import FEATURES, INDEX_COLUMNS, QUALITY_COLUMNS
from s3prl_stream.shards.npy import FRAMES_PER_SECOND, decode_features
from s3prl_stream.shards.rows import IndexRow, index_cells, index_table
from s3prl_stream.shards.tar import END_OF_TAR
from s3prl_stream.shards.tar_reads import HashedTar
from s3prl_stream.shards.tarwalk import Member, ReadAt, walk
from s3prl_stream.stores.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

Place = tuple[str, int]
"""Key and offset of a sample in its shard."""

_ANOTHER_HAS_ITS_KEY = SampleError("another sample of the set has this key", reason="duplicate_key")


class Content(NamedTuple):
    """What one reading of a shard found."""

    table: pa.Table
    """Its index rows, those of damaged samples included."""
    rows: list[IndexRow]
    """Of the sound samples, with their places in this shard."""
    bad: list[Finding]
    """Samples that are not as the index says."""
    end: Finding | None
    """The end marker is not what it should be."""
    sha256: str | None
    """None: some bytes could not be read."""


def read_by_rows(
    store: Store, shard: str, num_bytes: int, table: pa.Table, leave_out: Collection[Place] = ()
) -> Content:
    """Read a shard along its index rows and compare every sample with what they say of it.

    Args:
        store, shard: the file.
        num_bytes: how much of it is read.
        table: index rows that pass `index_files.problem_with_packed`.
        leave_out: samples whose key another one has.
    """
    reader = HashedTar(store, shard, num_bytes)
    columns = metadata_columns_of(table)
    rows: list[IndexRow] = []
    bad: list[Finding] = []
    end = 0
    for expected in table.to_pylist():
        key, offset, size = (expected[name] for name in ("key", "offset", "size"))
        reader.keep_from, end = offset, offset + size
        try:
            if (key, offset) in leave_out:
                raise _ANOTHER_HAS_ITS_KEY
            data = reader.read(offset, size)
            rows.append(_checked(data, shard, expected, columns))
        except SampleError as error:
            bad.append(of_sample(shard, key, offset, size, error.reason, str(error)))
    reader.keep_from = end
    return Content(table, rows, bad, end_finding(reader.read, shard, end), reader.finish())


def read_by_headers(
    store: Store, shard: str, num_bytes: int, columns: Mapping[str, str], leave_out: Collection[Place] = ()
) -> Content:
    """Read a shard along its tar headers: for one that is known to be sound, when its index rows are not.

    `columns` are those of its metadata, with their Arrow types.

    Raises:
        SampleError: it is not sound after all.
    """
    reader = HashedTar(store, shard, num_bytes)
    rows: list[IndexRow] = []
    bad: list[Finding] = []
    end = 0
    members = walk(reader.read, 0, num_bytes)
    for audio in members:
        about = next(members, None)
        if not (isinstance(audio, Member) and isinstance(about, Member)):
            raise SampleError("its members are not those of samples", reason="tar")
        offset, size = audio.start, about.end - audio.start
        data = reader.read(offset, size)
        row = row_of(data, shard, offset)
        reader.keep_from = end = about.end
        if (row.key, offset) in leave_out:
            bad.append(of_sample(shard, row.key, offset, size, _ANOTHER_HAS_ITS_KEY.reason, str(_ANOTHER_HAS_ITS_KEY)))
            continue
        rows.append(row)
    return Content(index_table(rows, columns), rows, bad, end_finding(reader.read, shard, end), reader.finish())


def row_of(data: bytes, shard: str, offset: int) -> IndexRow:
    """The index row of a packed sample, from its bytes alone.

    Args:
        data: both members with headers and padding.
        shard, offset: where it lies.

    Raises:
        SampleError: reason "tar" (not exactly KEY.CODEC and KEY.json), "json" or "decode".
    """
    import google_crc32c

    key, codec, audio, metadata = split_sample(data, shard)
    if codec == FEATURES:
        frames, sample_rate = len(decode_features(audio)), metadata.get(FRAMES_PER_SECOND)
        if not isinstance(sample_rate, int) or sample_rate < 1:
            raise SampleError(f"the JSON says {FRAMES_PER_SECOND} {sample_rate!r}, expected a number", reason="json")
    else:
        wav, sample_rate = decode(audio, codec)
        frames = len(wav)
    return IndexRow(key, shard, offset, len(data), google_crc32c.value(data), codec, sample_rate, frames, metadata)


def metadata_columns_of(table: pa.Table) -> dict[str, str]:
    """Column -> Arrow type of what stands behind the fixed columns."""
    return {field.name: str(field.type) for field in table.schema if field.name not in INDEX_COLUMNS}


def _checked(data: bytes, shard: str, expected: Mapping[str, Any], columns: Mapping[str, str]) -> IndexRow:
    """The row that the bytes give, if it is the one that is expected.

    Raises:
        SampleError: truncated, crc, tar, json, decode, or reason "differs": whole, but not what the index says.
    """
    offset, size = expected["offset"], expected["size"]
    try:
        check_bytes(data, size=size, crc32c=expected["crc32c"], where=shard)
        row = row_of(data, shard, offset)
    except SampleError as error:
        raise SampleError(str(error).removeprefix(f"{shard}: "), reason=error.reason) from None
    measured = {name: expected[name] for name in QUALITY_COLUMNS if name in expected}
    row = row._replace(metadata={**row.metadata, **measured})  # of the source, which is not here: taken as it is
    try:
        found = index_cells(row, columns)
    except (TypeError, ValueError, OverflowError) as error:
        raise SampleError(f"metadata do not fit the index ({error})", reason="differs") from None
    for name, value in expected.items():
        if found[name] != value:
            raise SampleError(f"{name} is {found[name]!r:.100}, the index says {value!r:.100}", reason="differs")
    return row


def end_finding(read: ReadAt, shard: str, end: int) -> Finding | None:
    """What is wrong with what follows the last sample, from `end` on; `read` is from the shard."""
    try:
        if read(end, len(END_OF_TAR)) == END_OF_TAR:
            return None
        problem = "the end marker of the tar is damaged or cut; it should be 1024 zeros"
    except (SampleError, DamagedFile) as error:
        problem = str(error)
    return Finding(shard, None, end, len(END_OF_TAR), "end_of_tar", problem, ADVICE["rebuilt by repair"])
