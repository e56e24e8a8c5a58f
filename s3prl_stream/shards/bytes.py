"""The bytes of one sample: a checksum, and the two tar members inside.

No member's path ever touches the file system, and no size is believed before it is compared with the bytes at hand.
"""

from __future__ import annotations

import json
from typing import Any

from s3prl_stream.errors import SampleError
from s3prl_stream.shards.layout import CODECS, FEATURES
from s3prl_stream.shards.tar import BLOCK_BYTES, padded

MAX_NESTING = 100
"""Lists and objects in one another in a sample's metadata. From some 300 on, Python cannot send it from a worker: it
gives up in a thread of the queue, and who waits for the batch waits for ever."""
TOO_DEEP = f"lists and objects nested more than {MAX_NESTING} deep"


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
    while position + BLOCK_BYTES <= len(data):
        header = data[position : position + BLOCK_BYTES]
        if header[0] == 0 and header.count(0) == BLOCK_BYTES:
            break
        size = _member_size(header, len(data) - position - BLOCK_BYTES, where)
        body = view[position + BLOCK_BYTES : position + BLOCK_BYTES + size]
        position += BLOCK_BYTES + padded(size)
        if header[156:157] not in (b"0", b"\0"):
            continue
        extension = header[:100].rstrip(b"\0").rpartition(b".")[2].decode("ascii", "replace").lower()
        if extension == "json":
            metadata = _parse_json(body, where)
        elif (extension in CODECS or extension == FEATURES) and audio is None:
            audio, codec = body, extension
    if audio is None:
        raise SampleError(f"{where}: no audio member; known are {', '.join(CODECS)}", reason="tar")
    return audio, codec, metadata or {}


def metadata_of_json(text: str | bytes) -> Any:
    """What a JSON text holds; ValueError for what is none, or is nested deeper than `MAX_NESTING`."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(TOO_DEEP) from None
    if is_too_deep(value):
        raise ValueError(TOO_DEEP)
    return value


def is_too_deep(value: Any) -> bool:
    """True of lists, tuples and dicts that are nested deeper than `MAX_NESTING`."""
    level = [value]
    for _ in range(MAX_NESTING + 1):
        inside = [
            one.values() if isinstance(one, dict) else one for one in level if isinstance(one, dict | list | tuple)
        ]
        if not inside:
            return False
        level = [one for values in inside for one in values]
    return True


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
        metadata = metadata_of_json(str(body, "utf-8"))  # bytes would be searched for UTF-16 and UTF-32 first
    except ValueError as error:
        raise SampleError(f"{where}: damaged JSON ({error})", reason="json") from None
    if not isinstance(metadata, dict):
        raise SampleError(f"{where}: the JSON member holds a {type(metadata).__name__}, not an object", reason="json")
    return metadata
