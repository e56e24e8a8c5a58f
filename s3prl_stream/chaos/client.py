"""The client's side of a connection: what can be done to it beyond sending."""

from __future__ import annotations

import asyncio
import fcntl
import socket
import struct
import termios

_CLOSED = -1
"""What a socket that is closed has for a file descriptor."""


class Client:
    """One connection from a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self._writer = reader, writer
        # With no room above an empty buffer, drain() means: the kernel has it all.
        writer.transport.set_write_buffer_limits(high=0)

    async def send(self, data: bytes) -> None:
        """Hand bytes to the kernel, as fast as the client takes them."""
        self._writer.write(data)
        await self._writer.drain()

    async def pause(self, seconds: float) -> None:
        """Wait.

        Raises:
            ConnectionResetError: the client hung up meanwhile.
        """
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (rest := end - loop.time()) > 0:
            if self.reader.at_eof() or self._writer.transport.is_closing():
                raise ConnectionResetError("the client hung up")
            await asyncio.sleep(min(rest, 0.05))

    async def end(self, *, reset: bool) -> bool:
        """End the connection after what was sent, in order (FIN) or by a reset (RST). False: it takes no more."""
        if reset:
            connection = self._writer.get_extra_info("socket")
            await _until_received(connection)
            if connection.fileno() != _CLOSED:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._writer.transport.abort()
        else:
            self._writer.write_eof()  # closing alone would say nothing while a forked child still holds the socket
        return False


async def _until_received(connection: socket.socket) -> None:
    """Until the other side's kernel has all bytes: a reset throws away those on the way. At most two seconds."""
    for _ in range(200):
        if connection.fileno() == _CLOSED:  # the client was killed, for one: nobody receives anything any more
            return
        (unacknowledged,) = struct.unpack("i", fcntl.ioctl(connection.fileno(), termios.TIOCOUTQ, b"\0\0\0\0"))
        if unacknowledged == 0:
            return
        await asyncio.sleep(0.01)
