"""Shards, sidecars and index parts, written as the samples come: memory holds a shard's index rows, never its audio."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from s3prl_stream.shards.layout import (
    INDEX_FOLDER,
    SHARDS_PER_PART,
    offsets_name,
    parquet_options,
    part_name,
    rows_name,
    shard_name,
)
from s3prl_stream.shards.listing import metadata_json
from s3prl_stream.shards.manifest import write_atomically
from s3prl_stream.shards.rows import IndexRow, index_table
from s3prl_stream.shards.store import PARTIAL
from s3prl_stream.shards.tar import END_OF_TAR, member

if TYPE_CHECKING:
    import pyarrow as pa


class SetWriter:
    """Everything of a set but its manifest.

    Args:
        folder: of the set; exists.
        name: of the set.
        columns: metadata columns of the whole set and their Arrow types.
        finished: called with the path of each file that is complete.
    """

    def __init__(self, folder: Path, name: str, columns: Mapping[str, str], finished: Callable[[Path], None]) -> None:
        self.shards: list[dict[str, Any]] = []
        """What the manifest says of every finished shard."""
        self._folder, self._name, self._columns, self._finished = folder, name, columns, finished
        self._shard: _ShardWriter | None = None
        self._part: Any = None
        (folder / INDEX_FOLDER).mkdir(exist_ok=True)

    def add(
        self, key: str, audio: bytes, codec: str, *, frames: int, sample_rate: int, metadata: Mapping[str, Any]
    ) -> None:
        """Append one sample to the shard that is being written."""
        if self._shard is None:
            self._shard = _ShardWriter(self._folder, shard_name(self._name, len(self.shards)))
        sample = member(f"{key}.{codec}", audio) + member(f"{key}.json", metadata_json(metadata))
        self._shard.add(key, sample, codec, frames, sample_rate, metadata)

    def end_shard(self) -> None:
        """Finish the shard; one to which nothing was added does not come into being."""
        if self._shard is None:
            return
        table, description = self._shard.finish(self._columns)
        self._shard = None
        self._append_to_part(table)
        self.shards.append(description)
        name = description["name"]
        for file in (name, offsets_name(name), rows_name(name)):
            self._finished(self._folder / file)
        if len(self.shards) % SHARDS_PER_PART == 0:
            self._end_part()

    def finish(self) -> list[str]:
        """Finish the last index part; names of all parts, relative to the set's folder."""
        self._end_part()
        return [part_name(number) for number in range(-(-len(self.shards) // SHARDS_PER_PART))]

    def close(self) -> None:
        """Let go of open files without finishing them."""
        if self._shard is not None:
            self._shard.close()
        if self._part is not None:
            self._part.close()

    def _append_to_part(self, table: pa.Table) -> None:
        import pyarrow.parquet

        if self._part is None:
            path = self._folder / part_name(len(self.shards) // SHARDS_PER_PART)
            self._part = pyarrow.parquet.ParquetWriter(
                f"{path}{PARTIAL}", table.schema, **parquet_options(table.column_names)
            )
        self._part.write_table(table, row_group_size=table.num_rows)

    def _end_part(self) -> None:
        if self._part is None:
            return
        self._part.close()
        self._part = None
        path = self._folder / part_name((len(self.shards) - 1) // SHARDS_PER_PART)
        path.with_name(path.name + PARTIAL).replace(path)
        self._finished(path)


class _ShardWriter:
    def __init__(self, folder: Path, name: str) -> None:
        self._folder, self._name = folder, name
        self._tar: BinaryIO = (folder / f"{name}{PARTIAL}").open("wb")
        self._sha256 = hashlib.sha256()
        self._num_bytes = 0
        self._rows: list[IndexRow] = []

    def add(
        self, key: str, sample: bytes, codec: str, frames: int, sample_rate: int, metadata: Mapping[str, Any]
    ) -> None:
        import google_crc32c

        crc32c = google_crc32c.value(sample)
        self._rows.append(
            IndexRow(key, self._name, self._num_bytes, len(sample), crc32c, codec, sample_rate, frames, metadata)
        )
        self._write(sample)

    def finish(self, columns: Mapping[str, str]) -> tuple[pa.Table, dict[str, Any]]:
        """Index rows of the shard, and what the manifest says of it."""
        import pyarrow.parquet

        self._write(END_OF_TAR)
        self._tar.close()
        offsets = np.array([*(row.offset for row in self._rows), self._num_bytes], dtype="<u8")
        write_atomically(self._folder / offsets_name(self._name), offsets.tobytes())
        table = index_table(self._rows, columns)
        rows_path = self._folder / rows_name(self._name)
        options = parquet_options(table.column_names)
        pyarrow.parquet.write_table(table, f"{rows_path}{PARTIAL}", row_group_size=table.num_rows, **options)
        for path in (rows_path, self._folder / self._name):
            path.with_name(path.name + PARTIAL).replace(path)
        return table, {
            "name": self._name,
            "samples": len(self._rows),
            "seconds": math.fsum(row.frames / row.sample_rate for row in self._rows),
            "bytes": self._num_bytes,
            "sha256": self._sha256.hexdigest(),
        }

    def close(self) -> None:
        self._tar.close()

    def _write(self, content: bytes) -> None:
        self._tar.write(content)
        self._sha256.update(content)
        self._num_bytes += len(content)
