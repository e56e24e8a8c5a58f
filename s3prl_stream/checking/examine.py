"""One shard under examination: what its index files, its bytes and the manifest say, and which of them is wrong."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from s3prl_stream.checking.content import (
    Content,
    Place,
    end_finding,
    metadata_columns_of,
    read_by_headers,
    read_by_rows,
)
from s3prl_stream.checking.findings import Finding, of_file, of_sample
from s3prl_stream.checking.inventory import SECONDS_TOLERANCE, Entry
from s3prl_stream.errors import DamagedFile, SampleError
from s3prl_stream.hashing import U64
from s3prl_stream.shards.index_files import (
    IndexPart,
    Offsets,
    Unusable,
    are_offsets_of,
    first_difference,
    problem_with_indexed,
    read_offsets,
    read_rows_sidecar,
    shard_bytes_of,
)
from s3prl_stream.shards.layout import MANIFEST, offsets_name, rows_name
from s3prl_stream.shards.tar import BLOCK_BYTES, END_OF_TAR
from s3prl_stream.shards.tar_reads import HashedTar
from s3prl_stream.shards.tarheader import read_header
from s3prl_stream.stores.store import Store

if TYPE_CHECKING:
    import pyarrow as pa


class ShardIndex(NamedTuple):
    """The three listings of a shard's samples."""

    part: pa.Table | Unusable
    sidecar: pa.Table | Unusable
    offsets: Offsets | Unusable | None
    """None: they are not ours."""

    def candidates(self) -> list[pa.Table]:
        """What may be the truth about the shard: none, one, or two tables that differ."""
        usable = [table for table in (self.part, self.sidecar) if not isinstance(table, Unusable)]
        return usable[:1] if len(usable) == 2 and first_difference(*usable) is None else usable


class Examined(NamedTuple):
    """One shard as a worker found it."""

    findings: list[Finding]
    num_bytes: int
    key_hashes: U64
    """Of the samples that its index lists."""


def examined(findings: list[Finding], num_bytes: int | None, rows: pa.Table | None) -> Examined:
    """What there is to say of a shard; of one that is not there, too, or whose rows are lost."""
    hashes = np.zeros(0, dtype=np.uint64) if rows is None else rows.column("key_hash").to_numpy()
    return Examined(findings, num_bytes or 0, hashes)


def read_index(store: Store, entry: Entry, part: IndexPart | None = None) -> ShardIndex:
    """All that is listed of a shard; `part` is the index part that holds its rows, if it was read already."""
    is_wrong = None
    if entry.rows_hash is not None:
        is_wrong = functools.partial(problem_with_indexed, samples=entry.samples, written=entry.rows_hash)
    return ShardIndex(
        (part or IndexPart(store, entry.part)).rows(entry.row_group, entry.name, is_wrong),
        read_rows_sidecar(store, entry.name, is_wrong),
        None if entry.has_own_offsets else read_offsets(store, entry.name),
    )


def read_shard(
    store: Store,
    entry: Entry,
    index: ShardIndex,
    *,
    columns: Mapping[str, str] | None = None,
    leave_out: Collection[Place] = (),
) -> Content | None:
    """Read a shard by the index rows that fit it best; None: they are lost, and with them all samples.

    Where the index is wrong about a shard whose SHA-256 is that of the manifest, the shard's own headers count.

    Args:
        store, entry, index: the shard.
        columns: metadata columns of the set, for a shard whose own rows are lost.
        leave_out: samples that count as damaged, because others have their keys.
    """
    there = store.size(entry.name) or 0
    read: list[Content] = []
    for table in index.candidates():
        num_bytes = min(there, shard_bytes_of(table))
        read.append(read_by_rows(store, entry.name, num_bytes, table, leave_out))
        if not _damaged(read[-1]):
            return read[-1]
    num_packed = there if entry.num_bytes is None else entry.num_bytes
    may_be_whole = entry.sha256 is not None and num_packed <= there
    if may_be_whole and entry.sha256 == _sha256(store, entry.name, num_packed, read):
        with contextlib.suppress(SampleError):  # it was packed like this
            known = metadata_columns_of(read[0].table) if read else columns or {}
            return read_by_headers(store, entry.name, num_packed, known, leave_out)
    return min(read, key=lambda one: len(_damaged(one)), default=None)


def _sha256(store: Store, shard: str, num_bytes: int, read: Sequence[Content]) -> str | None:
    """Of so many bytes, which may have been read already."""
    for one in read:
        if num_bytes == shard_bytes_of(one.table):
            return one.sha256
    return HashedTar(store, shard, num_bytes).finish()


def index_findings(entry: Entry, index: ShardIndex, true_rows: pa.Table | None, num_bytes: int | None) -> list[Finding]:
    """What is missing, or does not fit the rows of the shard: of index files, the manifest's entry, the file's size.

    Args:
        entry, index: what is said of the shard.
        true_rows: its rows; None: nobody knows them.
        num_bytes: the size of its file; None: there is none.
    """
    findings = []
    if num_bytes is None:
        samples = "" if entry.samples is None else f"; it held {entry.samples} samples"
        findings.append(of_file(entry.name, "missing", f"not there{samples}", "shard left out"))
    for file, reason, said in ((entry.part, "index", index.part), (rows_name(entry.name), "rows", index.sidecar)):
        if isinstance(said, Unusable):
            findings.append(of_file(file, reason, said.message, "rebuilt by repair"))
        elif true_rows is not None and (difference := first_difference(said, true_rows)) is not None:
            message = f"rows of {entry.name} are not those of the shard: {difference}"
            findings.append(of_file(file, reason, message, "rebuilt by repair"))
    expected = entry.num_bytes
    if true_rows is not None and entry.rows_hash is None:
        expected = shard_bytes_of(true_rows)
        seconds = math.fsum(true_rows.column("seconds").to_pylist())
        for name, said, found in (
            ("samples", entry.samples, true_rows.num_rows),
            ("bytes", entry.num_bytes, expected),
            ("seconds", entry.seconds, seconds),
        ):
            if said is not None and not math.isclose(said, found, rel_tol=SECONDS_TOLERANCE):
                message = f"{entry.name}: {name} is {said}, its index rows say {found}"
                findings.append(of_file(MANIFEST, "manifest", message, "rebuilt by repair"))
    offsets, file = index.offsets, offsets_name(entry.name)
    if isinstance(offsets, Unusable):
        findings.append(of_file(file, "offsets", offsets.message, "rebuilt by repair"))
    elif not (offsets is None or true_rows is None or are_offsets_of(offsets, true_rows, expected or 0)):
        findings.append(of_file(file, "offsets", "not the offsets of the shard's samples", "rebuilt by repair"))
    if None not in (expected, num_bytes) and num_bytes != expected:
        message = f"{num_bytes} bytes, expected {expected}"
        findings.append(of_file(entry.name, "size", message, "look closer"))
    return findings


def content_findings(entry: Entry, content: Content | None) -> list[Finding]:
    """What is wrong with the bytes of a shard that was read."""
    if content is None:
        message = (
            "its index rows are lost, and its SHA-256 is not the one in the manifest: good samples and damaged ones "
            "cannot be told apart"
        )
        return [of_file(entry.name, "index_lost", message, "shard left out")]
    findings = content.bad if content.end is None else [*content.bad, content.end]
    if findings or content.sha256 is None or entry.sha256 in (content.sha256, None):
        return findings
    message = (
        f"{entry.name}: the SHA-256 is {content.sha256}, not {entry.sha256}, though all its samples and the end marker "
        "are as the index says"
    )
    return [of_file(MANIFEST, "sha256", message, "rebuilt by repair")]


def header_findings(store: Store, entry: Entry, rows: pa.Table) -> list[Finding]:
    """Whether the first and the last sample begin where the index says, and the tar ends after them."""
    findings = []
    for number in sorted({0, rows.num_rows - 1}):
        row = rows.slice(number, 1).to_pylist()[0]
        try:
            block = store.read(entry.name, row["offset"], BLOCK_BYTES)
            if len(block) < BLOCK_BYTES:
                raise SampleError("the shard ends before or inside this sample", reason="truncated")
            header = read_header(block)
            if (header.name, header.kind) != (f"{row['key']}.{row['codec']}", "file"):
                found = f"the {header.kind} {header.name!r}"
                raise SampleError(f"begins with {found}, expected {row['key']}.{row['codec']}", reason="tar")
        except (SampleError, DamagedFile) as error:
            reason = error.reason if isinstance(error, SampleError) else "unreadable"
            findings.append(of_sample(entry.name, row["key"], row["offset"], row["size"], reason, str(error)))
    end = shard_bytes_of(rows) - len(END_OF_TAR)
    at_end = end_finding(functools.partial(store.read, entry.name), entry.name, end)
    return findings if at_end is None else [*findings, at_end]


def _damaged(content: Content) -> list[Finding]:
    """Samples that do not fit the index rows they were read by."""
    return [one for one in content.bad if one.reason != "duplicate_key"]
