"""The real server's side: one connection for one request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from s3prl_stream.chaos.http1 import CHUNKED, MAX_HEAD_BYTES, Head, ProtocolError, chunk, read_body, read_head


class ServerLostError(Exception):
    """The server could not be reached, or ended the connection inside its answer."""


class Server:
    """An open connection to the server."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer

    async def upload(self, head: Head, client: asyncio.StreamReader, length: int) -> None:
        """Pass a request on. Raises what the client's side of the connection raises, never the server's."""
        await self._send(head.encode())
        async for piece in read_body(client, length):
            await self._send(chunk(piece) if length == CHUNKED else piece)
        if length == CHUNKED:
            await self._send(chunk(b""))

    async def _send(self, data: bytes) -> None:
        """What a server no longer takes is dropped: its answer, if there is one, says why."""
        if not self._writer.transport.is_closing():
            with suppress(ConnectionError):
                self._writer.write(data)
                await self._writer.drain()

    async def answer_unless(self, upload: asyncio.Future[None]) -> Head:
        """The head of the answer, unless the upload fails before it is there.

        Raises:
            ServerLostError: no answer came.
            ProtocolError: the client left inside its upload.
            ConnectionError: the same.
        """
        answer = asyncio.ensure_future(self._answer())
        try:
            both: set[asyncio.Future[object]] = {answer, upload}  # type: ignore[arg-type]  # Future is invariant
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if upload.done():
                upload.result()
            return await answer
        finally:
            answer.cancel()

    async def _answer(self) -> Head:
        """The final answer's head; interim ones (1xx) are passed over."""
        try:
            while (answer := await read_head(self._reader)) is not None:
                if answer.status >= 200:
                    return answer
        except (ProtocolError, ConnectionError) as error:
            raise ServerLostError(f"no answer from the server: {error}") from error
        raise ServerLostError("the server ended the connection without an answer")

    async def body(self, length: int) -> AsyncIterator[bytes]:
        """The bytes of the answer's body.

        Raises:
            ServerLostError: it ended too early.
        """
        try:
            async for piece in read_body(self._reader, length):
                yield piece
        except (ProtocolError, ConnectionError) as error:
            raise ServerLostError(f"inside the server's answer: {error}") from error


@asynccontextmanager
async def connected(host: str, port: int) -> AsyncIterator[Server]:
    """A connection to the server.

    Raises:
        ServerLostError: nobody listens there.
    """
    try:
        reader, writer = await asyncio.open_connection(host, port, limit=MAX_HEAD_BYTES)
    except OSError as error:
        raise ServerLostError(f"no connection to the server: {error.strerror or error}") from error
    try:
        yield Server(reader, writer)
    finally:
        writer.transport.abort()
