"""What `index` writes: the sidecars, index parts and manifest of tars made elsewhere, from what their scans found."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from s3prl_stream import __version__
from s3prl_stream.shards.choose_run import Neighbours, speaker_of
from s3prl_stream.shards.layout import FORMAT_VERSION, LEFT_OUT
from s3prl_stream.shards.left_out import LeftOut, counted
from s3prl_stream.shards.manifest import counts_of, write_manifest
from s3prl_stream.shards.rows import IndexRow, columns_of, index_table, rows_hash
from s3prl_stream.shards.scan import Scan, scanned_rows
from s3prl_stream.shards.store import Store
from s3prl_stream.shards.write_index import IndexWriter

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


class ForeignIndexWriter:
    """Writes shard after shard; the manifest comes last.

    Args:
        out: where to.
        index: writes their rows there.
        columns: of metadata, with their Arrow types.
    """

    def __init__(self, out: Store, index: IndexWriter, columns: Mapping[str, str]) -> None:
        self.shards: list[dict[str, Any]] = []
        """What the manifest says of every shard."""
        self.neighbours = Neighbours()
        self._out, self._index, self._columns = out, index, columns

    def add(self, scan: Scan, prefix: str, without: frozenset[int], write_offsets: bool) -> None:
        """One tar: its sidecars, its row group, and what the manifest says of it. One without samples is no shard.

        Args:
            scan: of the tar.
            prefix: put before each key.
            without: numbers of rows that are left out.
            write_offsets: False: the tar has offsets of its own.
        """
        rows = [row for number, row in enumerate(self._index_rows(scan, prefix)) if number not in without]
        if not rows:
            return
        offsets = np.array([*(row.offset for row in rows), scan.end], dtype=np.uint64) if write_offsets else None
        self._index.add(scan.name, index_table(rows, self._columns), offsets)
        self._look_at_neighbours(rows)
        self.shards.append(
            {
                "name": scan.name,
                "samples": len(rows),
                "seconds": math.fsum(row.frames / row.sample_rate for row in rows),
                "bytes": scan.num_bytes,
                "sha256": scan.sha256,
                "rows_hash": rows_hash(rows),
                "offsets": "written" if write_offsets else "found",
            }
        )

    def finish(self, left_out: Sequence[LeftOut], facts: Mapping[str, Any]) -> dict[str, Any]:
        """Write the rest and the manifest.

        Args:
            left_out: all that is not in the set.
            facts: of the manifest: name, corpus, licence and what is about the index.
        """
        parts = self._index.finish()
        self._out.write(LEFT_OUT, b"".join(one.line() for one in left_out))
        manifest = {
            "format_version": FORMAT_VERSION,
            **facts,
            "run": self.neighbours.choose_run(),
            "libraries": {"s3prl_stream": __version__},
            "counts": counts_of(self.shards, *counted(left_out)),
            "parts": parts,
            "shards": self.shards,
        }
        write_manifest(self._out, manifest)
        return manifest

    def _index_rows(self, scan: Scan, prefix: str) -> Iterator[IndexRow]:
        for row in scanned_rows(scan):
            metadata = {name: value for name, value in row["metadata"].items() if name in self._columns}
            yield IndexRow(prefix + row["key"], scan.name, row["offset"], row["size"], row["crc32c"], row["codec"],
                           row["sample_rate"], row["frames"], metadata)  # fmt: skip

    def _look_at_neighbours(self, rows: Sequence[IndexRow]) -> None:
        column = next((name for name in SPEAKER_COLUMNS if name in self._columns), "")
        speakers = [speaker_of(row.key, row.metadata.get(column)) for row in rows]
        self.neighbours.add(np.array([row.frames / row.sample_rate for row in rows]), speakers)
