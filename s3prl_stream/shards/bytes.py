"""The bytes of one sample: a checksum, and the two tar members inside.

No member's path ever touches the file system, and no size is believed before it is compared with the bytes at hand.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from s3prl_stream.errors import SampleError
from s3prl_stream.json_files import json_object
from s3prl_stream.shards.layout import CODECS, FEATURES
from s3prl_stream.shards.tar import BLOCK_BYTES, padded

MAX_NESTING = 100
"""Lists and objects in one another in a sample's metadata. From some 300 on, Python cannot send it from a worker: it
gives up in a thread of the queue, and who waits for the batch waits for ever."""
TOO_DEEP = f"lists and objects nested more than {MAX_NESTING} deep"

MAX_METADATA_BYTES = 16 << 20
"""Of one sample, as JSON: a gzip of a few kilobytes may hold gigabytes of text."""

_COMPACT = json.JSONEncoder(sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


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


class PackedSample(NamedTuple):
    """What a sample of a packed set holds."""

    key: str
    codec: str
    """Of `CODECS`, or `FEATURES`."""
    audio: memoryview
    metadata: dict[str, Any]


def split_sample(data: bytes, where: str) -> PackedSample:
    """The two members of a packed sample whose bytes are those that the index says.

    Raises:
        SampleError: reason "tar" (not exactly the plain files KEY.CODEC and KEY.json) or "json".
    """
    name, audio, position = _member(data, 0, where)
    json_name, body, stop = _member(data, position, where)
    key, _, codec = name.partition(".")
    if codec not in (*CODECS, FEATURES) or json_name != f"{key}.json" or stop != len(data):
        raise SampleError(f"{where}: holds {name!r} and {json_name!r}, expected KEY.CODEC and KEY.json", reason="tar")
    return PackedSample(key, codec, audio, metadata_of_json(bytes(body), where))


def metadata_of_json(body: bytes, where: str) -> dict[str, Any]:
    """The object that a JSON member holds; SampleError, reason "json": none, or nested deeper than `MAX_NESTING`."""
    try:
        value = json_object(body)
        if is_too_deep(value):
            raise ValueError(TOO_DEEP)
        return value
    except ValueError as error:
        raise SampleError(f"{where}: damaged JSON ({error})", reason="json") from None


def metadata_json(metadata: Mapping[str, Any]) -> bytes:
    """Sorted, compact UTF-8; ValueError, TypeError or RecursionError for what JSON, or a sample, cannot hold."""
    if is_too_deep(metadata):
        raise ValueError(TOO_DEEP)
    text = _COMPACT.encode(metadata).encode()
    if len(text) > MAX_METADATA_BYTES:
        raise ValueError(f"{len(text)} bytes of it, a sample may have {MAX_METADATA_BYTES}")
    return text


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


def _member(data: bytes, position: int, where: str) -> tuple[str, memoryview, int]:
    """(name, content, position of what follows) of the member at `position`."""
    start = position + BLOCK_BYTES
    header = data[position:start]
    try:
        size = int(header[124:136].rstrip(b"\0 "), 8) if header[156:157] == b"0" else -1
    except ValueError:
        size = -1
    if not 0 <= size <= len(data) - start:
        raise SampleError(f"{where}: no tar header of a plain file at byte {position} of the sample", reason="tar")
    name = header[:100].rstrip(b"\0").decode("utf-8", "replace")
    return name, memoryview(data)[start : start + size], start + padded(size)
