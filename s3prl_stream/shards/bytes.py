"""The bytes of one sample: a positioned read, a checksum, and the two tar members inside.

No member's path ever touches the file system, and no size is believed before it is compared with the bytes at hand.
"""

from __future__ import annotations

import json
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from s3prl_stream.errors import SampleError, ShardError
from s3prl_stream.shards.layout import CODECS

BLOCK = 512  # tar's unit
MAX_OPEN_FILES = 64


class _OpenFile:
    """A descriptor that is closed when nobody reads from it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)

    def __del__(self) -> None:
        if hasattr(self, "descriptor"):
            os.close(self.descriptor)


class ShardFiles:
    """Positioned reads from local shards, from any thread; keeps a bounded number of files open in each process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._open: OrderedDict[str, _OpenFile] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def read(self, shard: str, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer where the shard ends.

        Raises:
            ShardError: the shard is missing or cannot be read.
        """
        try:
            file = self._file(shard)  # held while it is read: another thread may let go of it meanwhile
            return os.pread(file.descriptor, size, offset)
        except OSError as error:
            raise ShardError(
                f"{self.folder / shard}: cannot be read at byte {offset} ({error.strerror}). "
                "The set is not complete: pack it again or restore the shard."
            ) from error

    def _file(self, shard: str) -> _OpenFile:
        if self._pid != os.getpid():  # a forked child: the lock may be held by a thread that is not here
            self._begin()
        with self._lock:
            if shard in self._open:
                self._open.move_to_end(shard)
                return self._open[shard]
            while len(self._open) >= MAX_OPEN_FILES:
                self._open.popitem(last=False)
            file = self._open[shard] = _OpenFile(self.folder / shard)
            return file


def check_bytes(data: bytes, *, size: int, crc32c: int, where: str) -> None:
    """Compare a sample's bytes with what the index says of them.

    Raises:
        SampleError: reason "truncated" or "crc".
    """
    if len(data) != size:
        raise SampleError(
            f"{where}: {len(data)} of {size} bytes; the shard ends inside this sample", reason="truncated"
        )
    if crc32c >= 0:
        import google_crc32c

        found = google_crc32c.value(data)
        if found != crc32c:
            raise SampleError(f"{where}: CRC-32C is {found:08x}, the index says {crc32c:08x}", reason="crc")


def split_members(data: bytes, where: str) -> tuple[memoryview, str, dict[str, Any]]:
    """Sample bytes -> (audio bytes, codec, metadata).

    Raises:
        SampleError: reason "tar" or "json".
    """
    view = memoryview(data)
    audio: memoryview | None = None
    codec, metadata, position = "", None, 0
    while position + BLOCK <= len(data):
        header = data[position : position + BLOCK]
        if header.count(0) == BLOCK:
            break
        size = _member_size(header, len(data) - position - BLOCK, where)
        body = view[position + BLOCK : position + BLOCK + size]
        position += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
        if header[156:157] not in (b"0", b"\0"):
            continue
        extension = header[:100].rstrip(b"\0").rpartition(b".")[2].decode("ascii", "replace").lower()
        if extension == "json":
            metadata = _parse_json(body, where)
        elif extension in CODECS and audio is None:
            audio, codec = body, extension
    if audio is None:
        raise SampleError(f"{where}: no audio member; known are {', '.join(CODECS)}", reason="tar")
    return audio, codec, metadata or {}


def _member_size(header: bytes, bytes_left: int, where: str) -> int:
    try:
        size = int(header[124:136].rstrip(b"\0 ") or b"0", 8)
    except ValueError:
        size = -1
    if not 0 <= size <= bytes_left:
        raise SampleError(f"{where}: damaged tar header (size field {header[124:136]!r})", reason="tar")
    return size


def _parse_json(body: memoryview, where: str) -> dict[str, Any]:
    try:
        metadata = json.loads(bytes(body))
    except (ValueError, RecursionError) as error:
        raise SampleError(f"{where}: damaged JSON ({error})", reason="json") from None
    if not isinstance(metadata, dict):
        raise SampleError(f"{where}: the JSON member holds a {type(metadata).__name__}, not an object", reason="json")
    return metadata
