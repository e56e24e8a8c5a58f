"""One shard on its way: a tar that grows sample by sample. In memory are its index rows and its last MB of audio."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3prl_stream.shards.rows import IndexRow
from s3prl_stream.shards.tar import END_OF_TAR, header, member, padding

WRITE_BYTES = 1 << 20
"""Samples are written so many bytes at a time: one by one, short ones cost the kernel a third more."""
RESERVE_BYTES = 16 << 20
"""Space is asked for ahead, so many bytes at a time: the kernel then spends a third less on writing into it."""
_MOST_PIECES = 1024
"""That one call takes."""


class ShardWriter:
    """A shard in a scratch folder.

    Args:
        folder: exists.
        name: of the shard.
    """

    def __init__(self, folder: Path, name: str) -> None:
        self.rows: list[IndexRow] = []
        """Of what `add` has appended."""
        self.path = folder / name
        self._name = name
        self._tar = self.path.open("wb", buffering=0)
        self._sha256 = hashlib.sha256()
        self._num_bytes = 0
        self._pending: list[bytes] = []
        self._pending_bytes = 0
        self._reserved_bytes = 0

    def __enter__(self) -> ShardWriter:
        return self

    def __exit__(self, *_: object) -> None:
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
        """Append a new sample.

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
            self.append(content)
        size = self._num_bytes - offset
        self.rows.append(IndexRow(key, self._name, offset, size, crc32c, codec, sample_rate, frames, cells))

    def append(self, content: bytes) -> None:
        """Append the bytes of a sample, headers included, or a part of them."""
        self._sha256.update(content)
        self._pending.append(content)
        self._pending_bytes += len(content)
        self._num_bytes += len(content)
        if self._pending_bytes >= WRITE_BYTES:
            self._write()

    def finish(self) -> str:
        """Write the end marker, flush to the disk; the SHA-256 of the whole."""
        self.append(END_OF_TAR)
        self._write()
        self._tar.truncate(self._num_bytes)
        os.fsync(self._tar.fileno())
        self._tar.close()
        return self._sha256.hexdigest()

    def _write(self) -> None:
        """What is pending, without a copy of it in between."""
        self._reserve()
        for first in range(0, len(self._pending), _MOST_PIECES):
            pieces = self._pending[first : first + _MOST_PIECES]
            num_bytes = sum(map(len, pieces))
            written = os.writev(self._tar.fileno(), pieces)
            if written < num_bytes:  # as a nearly full disk does, before it says so
                rest = memoryview(b"".join(pieces))[written:]
                while rest:
                    rest = rest[os.write(self._tar.fileno(), rest) :]
        self._pending.clear()
        self._pending_bytes = 0

    def _reserve(self) -> None:
        if self._num_bytes <= self._reserved_bytes or not hasattr(os, "posix_fallocate"):
            return
        written, ahead = self._num_bytes - self._pending_bytes, self._num_bytes + RESERVE_BYTES
        # A disk without room for the reserve may have room for what is written.
        with contextlib.suppress(OSError):
            os.posix_fallocate(self._tar.fileno(), written, ahead - written)
        self._reserved_bytes = ahead
