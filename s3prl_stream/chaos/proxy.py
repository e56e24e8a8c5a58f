"""The proxy: one asyncio loop in a thread, one connection to the server for each request.

The Host header and the path go through untouched, so requests signed with SigV4 stay valid. Bodies are streamed both
ways with back-pressure. A connection for each request costs a fraction of a millisecond on loopback, and spares the
question whether a kept one is still alive.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterable
from fnmatch import fnmatchcase
from pathlib import Path
from types import TracebackType
from urllib.parse import urlsplit

from s3prl_stream.chaos.client import Client
from s3prl_stream.chaos.damage import plan_damage
from s3prl_stream.chaos.faults import (
    Chooser,
    Fault,
    Request,
    Unavailable,
    WholeObject,
    by_chance,
    by_list,
    draw,
    parse_chances,
)
from s3prl_stream.chaos.http1 import (
    CHUNKED,
    MAX_HEAD_BYTES,
    UNTIL_THE_END,
    Head,
    ProtocolError,
    chunk,
    length_of_answer,
    read_body,
    read_head,
)
from s3prl_stream.chaos.log import Exchange, Log
from s3prl_stream.chaos.server import Server, ServerLostError, connected
from s3prl_stream.errors import UsageError

_SLOW_DOWN = b'<?xml version="1.0" encoding="UTF-8"?><Error><Code>SlowDown</Code><Message>chaos</Message></Error>'


class ChaosProxy:
    """A faulty road to `upstream`, as a context manager; the proxy runs in a thread of this process.

        with ChaosProxy("http://127.0.0.1:8000", [Cut(3_000_000), None, Unavailable()], paths="*.tar") as proxy:
            read_everything(proxy.url)
        assert [one.range for one in proxy.requests] == ["bytes=0-8388607", "bytes=3000000-8388607"]

    Args:
        upstream: http://host:port of the server.
        faults: a spec for `parse_chances`; or an iterable, dealt out to one request after the other (None lets one
            pass, and so does its end); or a function from `Request` to a fault or None.
        seed: with the request's number, names every draw: which fault, and where in a body.
        paths: glob over the request's path; the others always pass, and take nothing from a list.
        port: on 127.0.0.1; 0: a free one.
        log: a file that gets one JSON line an exchange, appended.

    Requests are numbered as they arrive, so a client with several at once may find other ones hit in another run.

    Raises:
        UsageError: on entering, for a port that is taken.
        Exception: on leaving, whatever a function in place of `faults` has raised.
    """

    def __init__(
        self,
        upstream: str,
        faults: str | Iterable[Fault | None] | Chooser = "",
        *,
        seed: int = 0,
        paths: str = "*",
        port: int = 0,
        log: str | Path | None = None,
    ) -> None:
        self._host, self._upstream_port = _host_and_port(upstream)
        if isinstance(faults, str):
            self._choose = by_chance(parse_chances(faults), seed=seed)
        else:
            self._choose = faults if callable(faults) else by_list(faults)
        self._seed, self._paths, self.port = seed, paths, port
        self._log = Log(log)
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._connections: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        """Where clients connect to."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def num_requests(self) -> int:
        """Exchanges so far, those under way included."""
        return self._log.num_requests

    @property
    def requests(self) -> list[Exchange]:
        """The exchanges so far (the last 100 000), those under way included, in the order of their numbers."""
        return list(self._log.exchanges)

    @property
    def bytes_by_path(self) -> dict[str, int]:
        """Path -> bytes of bodies handed to clients so far."""
        return dict(self._log.bytes_by_path)

    @property
    def faults(self) -> dict[str, int]:
        """Kind -> how often it was carried out, in exchanges that are over."""
        return dict(self._log.faults)

    def __enter__(self) -> ChaosProxy:
        self._log.open()
        self._thread = threading.Thread(target=lambda: asyncio.run(self._main()), name="chaos-proxy", daemon=True)
        self._thread.start()
        self._ready.wait()
        if self._failure is not None:
            self._join()
            raise self._failure
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._join()
        if self._failure is not None and error is None:
            raise self._failure

    def _join(self) -> None:
        self._thread.join()
        self._log.close()

    async def _main(self) -> None:
        self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
        try:
            server = await asyncio.start_server(self._connected, "127.0.0.1", self.port, limit=MAX_HEAD_BYTES)
        except OSError as error:
            self._failure = UsageError(f"cannot listen on 127.0.0.1:{self.port}: {error.strerror}. Take another port")
            self._ready.set()
            return
        self.port = server.sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        client = Client(reader, writer)
        try:
            while await self._serve_one(client):
                pass
            writer.close()
        except (ProtocolError, ConnectionError, asyncio.CancelledError):  # the client left, or the proxy is ending
            writer.transport.abort()
        except Exception as error:  # our own, or that of a user's function: told when the block is left
            self._failure = self._failure or error
            writer.transport.abort()
        finally:
            self._connections.discard(task)

    async def _serve_one(self, client: Client) -> bool:
        """One request; True: the connection can take another."""
        head = await read_head(client.reader)
        if head is None:
            return False
        exchange, fault = self._open(head)
        try:
            if (head.get(b"Expect") or b"").lower() == b"100-continue":
                await client.send(b"HTTP/1.1 100 Continue\r\n\r\n")
            keep = head.first_line.endswith(b"HTTP/1.1") and (head.get(b"Connection") or b"").lower() != b"close"
            if isinstance(fault, Unavailable):
                async for _ in read_body(client.reader, head.body_length() or 0):
                    pass
                exchange.fault = fault.kind
                await self._refuse(exchange, client, fault.status, _SLOW_DOWN, fault.retry_after_seconds)
                return keep
            try:
                return await self._forward(exchange, fault, head, client) and keep
            except ServerLostError as error:
                exchange.error = str(error)
                if exchange.status is None:
                    await self._refuse(exchange, client, 502, str(error).encode())
                else:
                    await client.end(reset=False)
                return False
        finally:
            self._log.end(exchange)

    def _open(self, head: Head) -> tuple[Exchange, Fault | None]:
        words = head.first_line.decode("latin-1").split(" ")
        if len(words) != 3:
            raise ProtocolError(f"no request line: {head.first_line[:80]!r}")
        target = urlsplit(words[1])
        byte_range = head.get(b"Range")
        request = Request(
            self.num_requests, words[0], target.path, None if byte_range is None else byte_range.decode("latin-1")
        )
        exchange = self._log.begin(request, target.query)
        return exchange, self._choose(request) if fnmatchcase(request.path, self._paths) else None

    async def _refuse(
        self,
        exchange: Exchange,
        client: Client,
        status: int,
        body: bytes,
        retry_after_seconds: int | None = None,
    ) -> None:
        headers = [(b"Content-Type", b"application/xml"), (b"Content-Length", b"%d" % len(body))]
        if retry_after_seconds is not None:
            headers.append((b"Retry-After", b"%d" % retry_after_seconds))
        exchange.status = status
        shown = b"" if exchange.method == "HEAD" else body
        self._log.count(exchange, len(shown))
        await client.send(Head(b"HTTP/1.1 %d Chaos" % status, headers).encode() + shown)

    async def _forward(self, exchange: Exchange, fault: Fault | None, head: Head, client: Client) -> bool:
        """Ask the server, answer the client; True: the client's connection is still in step."""
        length = head.body_length() or 0
        head.remove(b"Connection", b"Keep-Alive", b"Expect")
        head.headers.append((b"Connection", b"close"))
        if isinstance(fault, WholeObject) and exchange.method == "GET" and exchange.range is not None:
            head.remove(b"Range")
            exchange.fault = fault.kind
        async with connected(self._host, self._upstream_port) as server:
            upload = asyncio.ensure_future(server.upload(head, client.reader, length))
            try:
                answer = await server.answer_unless(upload)
                in_step = await self._relay(exchange, fault, answer, server, client)
                if in_step:
                    await upload  # a server may answer before it has read the body
                return in_step
            finally:
                upload.cancel()

    async def _relay(
        self, exchange: Exchange, fault: Fault | None, answer: Head, server: Server, client: Client
    ) -> bool:
        """Send the answer with the fault in it; True: the client's connection is still in step."""
        damage = plan_damage(fault, exchange.method, answer, draw(self._seed, exchange.number, "place"))
        exchange.fault, exchange.at = exchange.fault or damage.kind, damage.at
        if damage.send_nothing:
            return await client.end(reset=damage.reset)
        if damage.pause_before_headers:
            await client.pause(damage.pause_seconds)
        answer.first_line = b"HTTP/1.1 " + answer.first_line.partition(b" ")[2]
        answer.remove(b"Connection", b"Keep-Alive")
        length = length_of_answer(exchange.method, answer)
        if length == UNTIL_THE_END:
            answer.headers.append((b"Connection", b"close"))
        exchange.status = answer.status
        await client.send(answer.encode())
        sent = 0
        async for piece in server.body(length):
            for part in damage.parts(piece, sent):
                if sent == damage.end_at:
                    return await client.end(reset=damage.reset)
                if sent == damage.pause_at:
                    await client.pause(damage.pause_seconds)
                if damage.bytes_per_second is not None:
                    await asyncio.sleep(len(part) / damage.bytes_per_second)
                self._log.count(exchange, len(part))
                await client.send(chunk(part) if length == CHUNKED else part)
                sent += len(part)
        # What follows is for a body of unknown length that was over before the place of the fault.
        if damage.pause_at is not None and damage.pause_at >= sent:
            await client.pause(damage.pause_seconds)
        if damage.end_at is not None:
            return await client.end(reset=damage.reset)
        if length == CHUNKED:
            await client.send(chunk(b""))
        return length != UNTIL_THE_END


def _host_and_port(upstream: str) -> tuple[str, int]:
    parts = urlsplit(upstream)
    try:
        port = parts.port or 80
    except ValueError:
        port = 0
    extras = parts.username or parts.path.strip("/") or parts.query or parts.fragment
    if parts.scheme != "http" or not parts.hostname or not port or extras:
        raise UsageError("upstream: give the server as http://host:port and nothing more")
    return parts.hostname, port
