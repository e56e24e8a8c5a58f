"""One shard on its way: a tar that grows sample by sample. Memory holds its index rows, never its audio."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from s3prl_stream.shards.rows import IndexRow
from s3prl_stream.shards.tar import END_OF_TAR, header, member, padding


class ShardWriter:
    """A shard in a scratch folder.

    Args:
        folder: exists.
        name: of the shard.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.rows: list[IndexRow] = []
        """Of all samples so far."""
        self.path = folder / name
        self._name = name
        self._tar = self.path.open("wb", buffering=0)
        self._sha256 = hashlib.sha256()
        self._num_bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._tar.close()

    def add(
        self,
        key: str,
        audio: bytes,
        codec: str,
        metadata_json: bytes,
        *,
        frames: int,
        sample_rate: int,
        cells: Mapping[str, Any],
    ) -> None:
        """Append one sample.

        Args:
            key, audio, codec, metadata_json: what is written.
            frames, sample_rate: of the audio.
            cells: of the index, by column: metadata and what was measured.
        """
        import google_crc32c

        offset, crc32c = self._num_bytes, 0
        before = header(f"{key}.{codec}", len(audio))
        behind = padding(len(audio)) + member(f"{key}.json", metadata_json)
        for content in (before, audio, behind):
            crc32c = google_crc32c.extend(crc32c, content)
        self._write(before, audio, behind)
        size = self._num_bytes - offset
        self.rows.append(IndexRow(key, self._name, offset, size, crc32c, codec, sample_rate, frames, cells))

    def finish(self) -> dict[str, Any]:
        """Write the end marker, flush to the disk; what the manifest says of the shard."""
        self._write(END_OF_TAR)
        os.fsync(self._tar.fileno())
        self._tar.close()
        return {
            "name": self._name,
            "samples": len(self.rows),
            "seconds": math.fsum(row.frames / row.sample_rate for row in self.rows),
            "bytes": self._num_bytes,
            "sha256": self._sha256.hexdigest(),
        }

    def _write(self, *contents: bytes) -> None:
        """Without a copy of them in between."""
        num_bytes = sum(map(len, contents))
        written = os.writev(self._tar.fileno(), contents)
        if written < num_bytes:  # as a nearly full disk does, before it says so
            rest = memoryview(b"".join(contents))[written:]
            while rest:
                rest = rest[os.write(self._tar.fileno(), rest) :]
        for content in contents:
            self._sha256.update(content)
        self._num_bytes += num_bytes
