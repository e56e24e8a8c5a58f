"""A small real HTTP server with ranges, ETags, uploads and a chunked listing, for tests that need no object store."""

from __future__ import annotations

import hashlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from tars import files_below

from s3prl_stream.chaos import ChaosProxy


class RangedHandler(BaseHTTPRequestHandler):
    """GET (with ranges), HEAD and PUT of objects; GET / lists their names, chunked."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # or a body waits up to 40 ms for the client to acknowledge the headers
    server: ObjectServer

    def do_HEAD(self) -> None:
        if self.server.head_status is None:
            return self.do_GET()
        self.send_response(self.server.head_status)
        self.send_header("Content-Length", "0")
        return self.end_headers()

    def do_GET(self) -> None:
        if self.server.redirects_to is not None:
            self.send_response(302)
            self.send_header("Location", self.server.redirects_to)
            self.send_header("Content-Length", "0")
            return self.end_headers()
        if self.path.partition("?")[0] == "/":
            return self._list()
        content = self.server.objects.get(self.path.partition("?")[0])
        if content is None:
            return self.send_error(404)
        etag = f"W/{etag_of(content)}" if self.server.has_weak_etags else etag_of(content)
        if "If-Match" in self.headers and (self.server.has_weak_etags or self.headers["If-Match"] != etag):
            return self.send_error(412)
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is None or (not content and self.server.sends_empty_whole):
            self.send_response(200)
            body = content
        elif int(asked[1]) >= len(content):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(content)}")
            body = b""
        else:
            first, last = int(asked[1]), min(int(asked[2] or len(content)), len(content) - 1)
            body = content[first : last + 1]
            self.send_response(206)
            if self.server.names_ranges:
                self.send_header("Content-Range", f"bytes {first}-{last}/{len(content)}")
        more = self.server.bytes_too_many
        body = body + bytes(more) if more >= 0 else body[:more]
        self.send_header("ETag", etag)
        if self.server.names_length:
            self.send_header("Content-Length", str(len(body)))
        else:
            self.send_header("Transfer-Encoding", "chunked")
            body = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
        self.send_header("X-Host", self.headers["Host"])
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)
        return None

    def do_PUT(self) -> None:
        if "Content-Length" in self.headers:
            content = self.rfile.read(int(self.headers["Content-Length"]))
        else:
            content = b""
            while size := int(self.rfile.readline(), 16):
                content += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
        self.server.objects[self.path] = content
        self.send_response(200)
        self.send_header("ETag", etag_of(content))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _list(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for line in [*(f"{name}\n".encode() for name in sorted(self.server.objects)), b""]:
            self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the name is the base class's
        """Quiet: the tests look at what the proxy logs."""


class ObjectServer(ThreadingHTTPServer):
    """The server; `objects` maps a path to its bytes.

    Attributes:
        head_status: the answer to each HEAD, where that is refused.
        redirects_to: where all is said to lie.
        names_length: False: answers lack Content-Length, as compressed ones do.
        names_ranges: False: answers lack Content-Range.
        has_weak_etags: True: its ETags fit no If-Match.
        bytes_too_many: that follow those which Content-Range names; negative: that lack.
        sends_empty_whole: True: of an empty file a range is no error 416 but all of it, as nginx answers.
    """

    daemon_threads = True
    request_queue_size = 64

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), RangedHandler)
        self.objects: dict[str, bytes] = {}
        self.head_status: int | None = None
        self.redirects_to: str | None = None
        self.names_length = self.names_ranges = True
        self.has_weak_etags = False
        self.bytes_too_many = 0
        self.sends_empty_whole = False
        self._connections: set[socket.socket] = set()

    def get_request(self) -> tuple[socket.socket, Any]:
        connection, address = super().get_request()
        self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        self._connections.discard(request)
        super().shutdown_request(request)

    def server_close(self) -> None:
        """Ends the threads too that write to clients who read no more."""
        super().server_close()
        for connection in list(self._connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def put(self, folder: Path) -> None:
        """The files of a folder, under /set, in the place of all others."""
        self.objects = {f"/set/{name}": content for name, content in files_below(folder).items()}

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that hangs up is what these tests are about."""


def etag_of(content: bytes) -> str:
    return f'"{hashlib.md5(content).hexdigest()}"'


@contextmanager
def serving() -> Iterator[ObjectServer]:
    """A running server, gone at the end of the block."""
    server = ObjectServer()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def served(folder: Path, faults: Any = ()) -> Iterator[tuple[str, ChaosProxy, ObjectServer]]:
    """A folder at a URL, behind a proxy that sees each request."""
    with serving() as server:
        server.put(folder)
        with ChaosProxy(server.url, faults) as proxy:
            yield f"{proxy.url}/set", proxy, server
