"""What `index` writes: the sidecars, index parts and manifest of tars made elsewhere, from what their scans found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream import __version__
from s3prl_stream.indexing.choose_run import Neighbours, speaker_of
from s3prl_stream.indexing.scan import Scan, scanned_rows
from s3prl_stream.shards.index_files import Offsets
from s3prl_stream.shards.keys import escape_foreign_key
from s3prl_stream.shards.layout import LEFT_OUT
from s3prl_stream.shards.left_out import LeftOut, counted
from s3prl_stream.shards.manifest import counts_of, write_manifest
from s3prl_stream.shards.rows import IndexRow, columns_of, index_table, rows_hash, table_hash
from s3prl_stream.shards.write_index import write_index
from s3prl_stream.stores.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

MAX_COLUMNS = 128
"""Metadata in the index; the rest is delivered with the samples only. A field of one sample alone is no column."""

SPEAKER_COLUMNS = ("speaker", "speaker_id", "spk_id", "spk", "client_id")


def metadata_schema(scans: Sequence[Scan]) -> tuple[dict[str, str], int]:
    """(column -> Arrow type, how many names are left without one): the names that most samples have."""
    counts: Counter[str] = Counter()
    for scan in scans:
        counts.update(scan.name_counts)
    columns = columns_of([scan.kinds for scan in scans])
    kept = sorted(sorted(columns), key=lambda name: -counts[name])[:MAX_COLUMNS]
    return {name: columns[name] for name in sorted(kept)}, len(columns) - len(kept)


def index_rows(scan: Scan, prefix_keys: bool, without: frozenset[int], columns: Mapping[str, str]) -> list[IndexRow]:
    """The rows of a tar, without those of some numbers; of metadata the columns."""
    prefix = escape_foreign_key(f"{scan.name.removesuffix('.tar')}/") if prefix_keys else ""
    rows = []
    for number, row in enumerate(scanned_rows(scan)):
        if number not in without:
            metadata = {name: value for name, value in row["metadata"].items() if name in columns}
            row |= {"key": prefix + row["key"], "shard": scan.name, "metadata": metadata}
            rows.append(IndexRow(*(row[field] for field in IndexRow._fields)))
    return rows


def write_foreign_index(
    out: Store,
    tars: Iterable[tuple[Scan, list[IndexRow], bool]],
    columns: Mapping[str, str],
    left_out: Sequence[LeftOut],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Write sidecars, index parts and the list of what is left out, and last the manifest, which is returned.

    Args:
        out: where to.
        tars: with their rows, and whether offsets are written, as where the tar has none of its own. One without
            samples is no shard.
        columns: of metadata, with their Arrow types.
        left_out: all that is not in the set.
        facts: of the manifest: name, corpus, licence and what is about the index.
    """
    shards: list[dict[str, Any]] = []
    from_table = facts["indexed"]["from_table"]
    neighbours, speaker = Neighbours(), next((name for name in SPEAKER_COLUMNS if name in columns), "")

    def tables() -> Iterator[tuple[str, pa.Table, Offsets | None]]:
        for scan, rows, has_none in tars:
            if not rows:
                continue
            seconds = [row.frames / row.sample_rate for row in rows]
            neighbours.add(np.array(seconds), [speaker_of(row.key, row.metadata.get(speaker)) for row in rows])
            shards.append(
                {
                    "name": scan.name,
                    "samples": len(rows),
                    "seconds": math.fsum(seconds),
                    "bytes": scan.num_bytes,
                    "sha256": scan.sha256,
                    "rows_hash": rows_hash(rows),
                    **({"table_hash": table_hash(rows, from_table)} if from_table else {}),
                    "offsets": "written" if has_none else "found",
                }
            )
            offsets = np.array([*(row.offset for row in rows), scan.end], dtype=np.uint64) if has_none else None
            yield scan.name, index_table(rows, columns), offsets

    parts = write_index(out, tables())
    out.write(LEFT_OUT, b"".join(one.line() for one in left_out))
    about = {**facts, "run": neighbours.choose_run(), "libraries": {"s3prl_stream": __version__}}
    return write_manifest(out, about, counts_of(shards, *counted(left_out)), parts, shards)
