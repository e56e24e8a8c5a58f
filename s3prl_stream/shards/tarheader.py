"""One header block of a tar made elsewhere, read with suspicion: ustar, GNU and pax, as GNU tar and Python write them.

Layouts: POSIX.1-2017, pax (ustar interchange format and extended headers); GNU tar manual, "Basic Tar Format".
Nothing here touches a file: a name is a string, and a size is a claim.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from s3prl_stream.errors import SampleError
from s3prl_stream.shards.tar import BLOCK_BYTES

MAX_MEMBER_BYTES = 1 << 62

_KINDS = {
    b"0": "file", b"\0": "file", b"7": "file",
    b"1": "hard link", b"2": "symbolic link", b"3": "device", b"4": "device", b"5": "folder", b"6": "fifo",
    b"S": "sparse", b"L": "long name", b"K": "long link", b"x": "pax", b"X": "pax", b"g": "global pax",
}  # fmt: skip
WITHOUT_CONTENT = frozenset({"hard link", "symbolic link", "device", "folder", "fifo"})
"""Kinds of members behind whose header no content stands, whatever size it claims."""

DESCRIBES_THE_NEXT = frozenset({"long name", "long link", "pax"})

_COMPRESSED = {
    b"\x1f\x8b": "gzip", b"BZh": "bzip2", b"\xfd7zXZ": "xz", b"\x28\xb5\x2f\xfd": "zstd", b"PK\x03\x04": "zip"
}  # fmt: skip
_OCTAL = re.compile(rb" *([0-7]*)[ \0]*")
_PAX_LENGTH = re.compile(rb"([1-9][0-9]{0,9}) ")


class TarHeader(NamedTuple):
    """What one block says."""

    name: str
    """As it stands there; bytes that are not UTF-8 are lone surrogates."""
    size: int
    """Bytes of content behind the header, before padding."""
    kind: str
    """"file", "folder", "symbolic link" ..., or a kind of header that describes the member behind it."""
    is_extended: bool
    """GNU sparse: another block of map follows."""


def read_header(block: bytes) -> TarHeader:
    """A block of 512 bytes that is not all zeros.

    Raises:
        SampleError: reason "tar" (no header: wrong checksum, a field that is no number) or "size" (an impossible one).
    """
    if not is_header(block):
        raise SampleError("no tar header: its checksum is wrong", reason="tar")
    kind = _KINDS.get(block[156:157], f"kind {block[156:157]!r}")
    size = 0 if kind in WITHOUT_CONTENT else _number(block[124:136], "size")
    if not 0 <= size <= MAX_MEMBER_BYTES:
        raise SampleError(f"a member of {size} bytes is impossible", reason="size")
    name = _text(block[:100])
    if block[257:263] == b"ustar\0" and kind not in DESCRIBES_THE_NEXT and block[345:500].strip(b"\0"):
        name = f"{_text(block[345:500])}/{name}"
    if block[156:157] == b"\0" and name.endswith("/"):  # before there were types
        kind, size = "folder", 0
    return TarHeader(name, size, kind, kind == "sparse" and block[482] != 0)


def compression_of(first: bytes) -> str | None:
    """What a file that begins with these bytes is compressed by; None: by nothing that is known."""
    return next((kind for magic, kind in _COMPRESSED.items() if first.startswith(magic)), None)


def is_header(block: bytes) -> bool:
    """True of 512 bytes whose checksum is right; old tars added signed bytes."""
    if len(block) < BLOCK_BYTES:
        return False
    match = _OCTAL.fullmatch(block[148:156])
    if match is None or not match[1]:
        return False
    claimed = int(match[1], 8)
    counted = sum(block) - sum(block[148:156]) + 8 * 0x20
    if claimed == counted:
        return True
    high = sum(byte > 127 for byte in block[:148]) + sum(byte > 127 for byte in block[156:])
    return claimed == counted - 256 * high


def pax_records(body: bytes) -> dict[str, str]:
    """The "LENGTH NAME=VALUE" lines of an extended header.

    Raises:
        SampleError(reason="pax"): a line that is not as long as it says.
    """
    records: dict[str, str] = {}
    position = 0
    while position < len(body) and body[position]:
        match = _PAX_LENGTH.match(body, position)
        stop = position + int(match[1]) if match else 0
        if match is None or not match.end() < stop <= len(body) or body[stop - 1 : stop] != b"\n":
            raise SampleError("damaged pax header: a record is not as long as it says", reason="pax")
        name, equals, value = body[match.end() : stop - 1].partition(b"=")
        if not name or not equals:
            raise SampleError("damaged pax header: a record has no name", reason="pax")
        records[_decoded(name)] = _decoded(value)
        position = stop
    return records


def pax_size(records: dict[str, str]) -> int | None:
    """The size that an extended header gives to the member behind it.

    Raises:
        SampleError(reason="size"): it is no possible size.
    """
    text = records.get("size")
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,19}", text) or int(text) > MAX_MEMBER_BYTES:
        raise SampleError(f"pax header: a member of {text[:40]!r} bytes is impossible", reason="size")
    return int(text)


def _number(field: bytes, what: str) -> int:
    """Octal digits, or GNU's base-256 for what octal cannot hold."""
    if field[0] in (0x80, 0xFF):
        number = int.from_bytes(field[1:], "big")
        return number if field[0] == 0x80 else number - (1 << 8 * (len(field) - 1))
    match = _OCTAL.fullmatch(field)
    if match is None:
        raise SampleError(f"damaged tar header: {what} is {field!r}", reason="tar")
    return int(match[1] or b"0", 8)


def _text(field: bytes) -> str:
    return _decoded(field.partition(b"\0")[0])


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")
