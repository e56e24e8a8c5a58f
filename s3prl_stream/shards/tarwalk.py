"""Walking a tar made elsewhere by its headers: bodies are skipped, nothing is believed, damage is passed by.

`walk` is used alike on a file with positioned reads, on the bytes of one sample and on a pipe, which is why it reads
through one function, front to back. A header that is damaged does not end the walk: the next block that is a header
goes on, and the gap between is reported. (Python's tarfile stops there; GNU tar skips to the next header as well.)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from s3prl_stream.errors import SampleError
from s3prl_stream.shards.tar import BLOCK_BYTES, padded
from s3prl_stream.shards.tarheader import (
    DESCRIBES_THE_NEXT,
    WITHOUT_CONTENT,
    TarHeader,
    is_header,
    pax_records,
    pax_size,
    read_header,
)

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> that many bytes, fewer where the file ends. Offsets grow, but for steps back of `MAX_STEP_BACK`."""

MAX_NAME_BYTES = 4096
"""Of a member, as the systems that wrote it limit paths."""
MAX_PAX_BYTES = 1 << 20
MAX_HEADERS_OF_A_MEMBER = 16
MAX_SPARSE_BLOCKS = 4096
MAX_STEP_BACK = 20 << 20
"""Bytes: all headers of one member, and what is scanned for the next one."""

_FIRST_SCAN_BYTES = 4096
_SCAN_BYTES = 1 << 18
_MAGIC, _MAGIC_AT = b"ustar", 257
_CHANGES_WHAT_FOLLOWS = ("path", "linkpath", "size", "hdrcharset")


class Member(NamedTuple):
    """One entry of a tar; offsets are bytes from its beginning."""

    name: str
    """As it stands there; bytes that are not UTF-8 are lone surrogates."""
    kind: str
    """"file", "folder", "symbolic link", "hard link", "device", "fifo", "sparse" or "kind ..."."""
    start: int
    """First block of it, headers that only describe it included."""
    content: int
    size: int
    """Of the content."""
    end: int
    """Behind its padding."""


class Gap(NamedTuple):
    """A stretch of a tar that is no member."""

    start: int
    end: int
    reason: str
    """"tar", "size", "pax", "name", "truncated", "no_end": it ends without an end marker, and may have been cut there,
    or "after_end": bytes behind the end marker."""
    message: str
    name: str | None = None
    """Of the member that was lost, where its header was sound."""


def walk(read: ReadAt, start: int, limit: int | None, *, several: bool = False) -> Iterator[Member | Gap]:
    """The entries of a tar in its order, up to its end marker or its end.

    Args:
        read: from the tar.
        start: offset of the first header.
        limit: where the tar ends; None: known when `read` gives no more.
        several: tars may follow one another (`cat a.tar b.tar`); else an end marker ends the walk.
    """
    position: int | None = start
    while position is not None:
        name: str | None = None
        try:
            member = read_member(read, position)
            if member is not None and limit is not None and member.content + member.size > limit:
                name, left = member.name, max(limit - member.content, 0)
                message = f"{shown(name)}: claims {member.size} bytes, {left} are left in the tar"
                raise SampleError(message, reason="truncated")
        except SampleError as error:
            end, goes_on = _go_on(read, position, limit)
            # a member that claims more than is left is the last of a cut tar, or a lie if others follow it
            reason = "size" if error.reason == "truncated" and goes_on else error.reason
            yield Gap(position, end, reason, str(error), name)
            position = end if goes_on else None
            continue
        if member is None:
            if not read(position, 1):
                yield Gap(position, position, "no_end", "the tar has no end marker: it may have been cut here")
                return
            position = _after_zeros(read, position)
            if position is None:
                return
            if not (several and is_header(read(position, BLOCK_BYTES))):
                end = _end(read, position, limit)
                message = f"{end - position} bytes behind the tar's end marker are not read"
                yield Gap(position, end, "after_end", message)
                return
            continue
        if limit is not None:
            member = member._replace(end=min(member.end, limit))
        yield member
        position = member.end


def read_member(read: ReadAt, start: int) -> Member | None:
    """The member whose first header stands at `start`; None where the tar ends.

    Raises:
        SampleError: reason "tar", "size", "pax", "name" or "truncated".
    """
    position, name, size, sparse = start, None, None, False
    for _ in range(MAX_HEADERS_OF_A_MEMBER):
        block = read(position, BLOCK_BYTES)
        if position == start and not any(block):
            if len(block) == BLOCK_BYTES and any(read(position + BLOCK_BYTES, BLOCK_BYTES)):
                raise SampleError("a block of zeros where a header should be; two would end the tar", reason="tar")
            return None
        if len(block) < BLOCK_BYTES:
            raise SampleError(f"the tar ends within a header at byte {position}", reason="truncated")
        header = read_header(block)
        position += BLOCK_BYTES
        if header.kind == "global pax":
            _check_global(pax_records(_body(read, position, header, MAX_PAX_BYTES, "pax")))
        elif header.kind == "pax":
            records = pax_records(_body(read, position, header, MAX_PAX_BYTES, "pax"))
            name, size = records.get("path", name), pax_size(records)
            sparse = sparse or any(key.startswith("GNU.sparse.") for key in records)
        elif header.kind == "long name":
            body = _body(read, position, header, MAX_NAME_BYTES, "name")
            name = body.partition(b"\0")[0].decode("utf-8", "surrogateescape")
        elif header.kind == "long link":
            _body(read, position, header, MAX_NAME_BYTES, "name")
        else:
            break
        position += padded(header.size)
        if header.kind not in DESCRIBES_THE_NEXT:  # a global header stands for itself
            start = position
    else:
        raise SampleError(f"more than {MAX_HEADERS_OF_A_MEMBER} headers before one member", reason="pax")
    name = header.name if name is None else name
    if len(name.encode("utf-8", "surrogateescape")) > MAX_NAME_BYTES:
        raise SampleError(f"a name of more than {MAX_NAME_BYTES} bytes: {name[:40]!r} ...", reason="name")
    if header.is_extended:
        position = _after_sparse_map(read, position)
    size = header.size if size is None or header.kind in WITHOUT_CONTENT else size
    kind = "sparse" if sparse and header.kind == "file" else header.kind
    return Member(name, kind, start, position, size, position + padded(size))


def shown(name: str) -> str:
    """A name for a message: short, on one line."""
    text = ascii(name) if not name.isprintable() else repr(name)
    return text if len(text) <= 120 else f"{text[:80]} ... {text[-30:]}"


def _body(read: ReadAt, position: int, header: TarHeader, most: int, reason: str) -> bytes:
    if header.size > most:
        raise SampleError(f"a {header.kind} header of {header.size} bytes, more than {most}", reason=reason)
    body = read(position, header.size)
    if len(body) < header.size:
        raise SampleError(f"the tar ends within a {header.kind} header", reason="truncated")
    return body


def _check_global(records: dict[str, str]) -> None:
    """A global header that renames or resizes all members that follow: no sample could be read by itself."""
    for key in records:
        if key in _CHANGES_WHAT_FOLLOWS or key.startswith("GNU.sparse."):
            raise SampleError(f"a global pax header sets {key!r} of all members that follow", reason="pax")


def _after_sparse_map(read: ReadAt, position: int) -> int:
    for _ in range(MAX_SPARSE_BLOCKS):
        block = read(position, BLOCK_BYTES)
        position += BLOCK_BYTES
        if len(block) < BLOCK_BYTES or not block[504]:
            return position
    raise SampleError("a sparse member whose map does not end", reason="tar")


def _go_on(read: ReadAt, damaged: int, limit: int | None) -> tuple[int, bool]:
    """(where damage at `damaged` ends, whether a header stands there or the tar is over).

    Where the damage is in a header that describes the next member, that member is lost too: its name or its size would
    be wrong.
    """
    describes = _looks_descriptive(read(damaged, BLOCK_BYTES))
    end, is_header_there = _next_header(read, damaged + BLOCK_BYTES, limit)
    while is_header_there and describes:
        describes = _looks_descriptive(read(end, BLOCK_BYTES))
        end, is_header_there = _next_header(read, end + BLOCK_BYTES, limit)
    return end, is_header_there


def _looks_descriptive(block: bytes) -> bool:
    return block[156:157] in (b"x", b"X", b"L", b"K") or b"PaxHeader" in block[:100] or b"@LongLink" in block[:100]


def has_header(read: ReadAt, start: int, limit: int) -> bool:
    """True if any block from `start` on is a header."""
    return _next_header(read, start, limit)[1]


def _next_header(read: ReadAt, start: int, limit: int | None) -> tuple[int, bool]:
    """(offset of the next block that is a header, True), or (where the tar ends, False)."""
    position, size = start, _FIRST_SCAN_BYTES  # damage is mostly short, and a tar of nothing else is read only once
    while limit is None or position < limit:
        chunk = read(position, size)
        at = chunk.find(_MAGIC)
        while at >= 0:
            block = at - _MAGIC_AT
            if block >= 0 and block % BLOCK_BYTES == 0 and is_header(chunk[block : block + BLOCK_BYTES]):
                return position + block, True
            at = chunk.find(_MAGIC, at + 1)
        if len(chunk) < size:
            return position + len(chunk), False
        position, size = position + size, min(2 * size, _SCAN_BYTES)
    return limit, False


def _end(read: ReadAt, position: int, limit: int | None) -> int:
    if limit is not None:
        return limit
    while chunk := read(position, _SCAN_BYTES):
        position += len(chunk)
    return position


def _after_zeros(read: ReadAt, position: int) -> int | None:
    """The next block that is not all zeros; None: there is none. Zeros behind an end marker are padding."""
    while chunk := read(position, _SCAN_BYTES):
        rest = chunk.lstrip(b"\0")
        if rest:
            return position + (len(chunk) - len(rest)) // BLOCK_BYTES * BLOCK_BYTES
        position += len(chunk)
    return None
