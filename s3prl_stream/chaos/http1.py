"""As much of HTTP/1.1 (RFC 9112) as a proxy needs: a head is read, kept as it was spelt, and bodies are framed.

Three framings: Content-Length, chunked, and until the connection ends. Bodies are passed on piece by piece.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

MAX_HEAD_BYTES = 64 * 1024
PIECE_BYTES = 64 * 1024

UNTIL_THE_END = -1
"""Length of a body that ends where the connection does."""
CHUNKED = -2
"""Length of a body that tells its length on the way."""


class ProtocolError(Exception):
    """What came is not HTTP/1.1, or ended too early."""


@dataclass
class Head:
    """First line and headers of a message; names and values as they came, in their order."""

    first_line: bytes
    headers: list[tuple[bytes, bytes]]

    def get(self, name: bytes) -> bytes | None:
        """The first value of a header; names are compared without case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def remove(self, *names: bytes) -> None:
        """Take headers away; those that are not there are no matter."""
        gone = {name.lower() for name in names}
        self.headers = [(key, value) for key, value in self.headers if key.lower() not in gone]

    def replace(self, name: bytes, value: bytes) -> None:
        """Give a header that is there another value, in its place."""
        self.headers = [(key, value if key.lower() == name.lower() else old) for key, old in self.headers]

    @property
    def status(self) -> int:
        """Status of an answer."""
        try:
            return int(self.first_line.split(b" ", 2)[1])
        except (IndexError, ValueError):
            raise ProtocolError(f"no status line: {self.first_line[:80]!r}") from None

    def body_length(self) -> int | None:
        """Bytes of the body as the headers have it, or `CHUNKED`; None: they say nothing."""
        if (self.get(b"Transfer-Encoding") or b"").strip().lower().endswith(b"chunked"):
            return CHUNKED
        length = self.get(b"Content-Length")
        if length is None:
            return None
        if not length.strip().isdigit():
            raise ProtocolError(f"Content-Length is {length[:80]!r}")
        return int(length)

    def encode(self) -> bytes:
        """As it goes over the wire, with the empty line."""
        lines = [self.first_line, *(name + b": " + value for name, value in self.headers)]
        return b"\r\n".join(lines) + b"\r\n\r\n"


async def read_head(reader: asyncio.StreamReader) -> Head | None:
    """The next head; None: the other side ended the connection instead."""
    try:
        text = await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        if error.partial.strip():
            raise ProtocolError("the connection ended inside the headers") from None
        return None
    except asyncio.LimitOverrunError:
        raise ProtocolError(f"headers of more than {MAX_HEAD_BYTES} bytes") from None
    first_line, *lines = text.strip(b"\r\n").split(b"\r\n")
    headers = []
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon:
            raise ProtocolError(f"a header without a colon: {line[:80]!r}")
        headers.append((name, value.strip()))
    return Head(first_line, headers)


async def read_body(reader: asyncio.StreamReader, length: int) -> AsyncIterator[bytes]:
    """The body's bytes, without their framing, in pieces of at most `PIECE_BYTES`.

    Raises:
        ProtocolError: the connection ended before the body did.
    """
    if length == CHUNKED:
        while size := await _chunk_size(reader):
            async for piece in _counted(reader, size):
                yield piece
            await reader.readline()
        while (await reader.readline()).strip():  # trailers
            pass
    elif length == UNTIL_THE_END:
        while piece := await reader.read(PIECE_BYTES):
            yield piece
    else:
        async for piece in _counted(reader, length):
            yield piece


async def _counted(reader: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    missing = size
    while missing:
        piece = await reader.read(min(PIECE_BYTES, missing))
        if not piece:
            raise ProtocolError(f"the connection ended after {size - missing} of {size} bytes")
        missing -= len(piece)
        yield piece


async def _chunk_size(reader: asyncio.StreamReader) -> int:
    line = (await reader.readline()).split(b";")[0].strip()
    try:
        return int(line, 16)
    except ValueError:
        raise ProtocolError(f"no chunk size: {line[:80]!r}") from None


def length_of_answer(method: str, answer: Head) -> int:
    """Bytes of the body that follows an answer, or `CHUNKED`, or `UNTIL_THE_END`."""
    if method == "HEAD" or answer.status in (204, 304):
        return 0
    length = answer.body_length()
    return UNTIL_THE_END if length is None else length


def chunk(piece: bytes) -> bytes:
    """A piece as one chunk; b"" is the end of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)
