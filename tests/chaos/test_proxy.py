"""Each fault, seen by a client, is what it claims to be, and what it is logged as."""

from __future__ import annotations

import asyncio
import http.client
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from chaos.ranged_server import ObjectServer, etag_of, serving
from hypothesis import given, settings
from hypothesis import strategies as st

from s3prl_stream.chaos import (
    ChangedEtag,
    ChaosProxy,
    Cut,
    Fault,
    FlippedByte,
    Request,
    Short,
    Slow,
    Stall,
    Unavailable,
    WholeObject,
)
from s3prl_stream.chaos.client import Client
from s3prl_stream.errors import UsageError

CONTENT = random.Random(0).randbytes(300_000)
PATH = "/bucket/set-000000.tar"


@pytest.fixture(scope="module")
def upstream() -> Iterator[ObjectServer]:
    with serving() as server:
        server.objects[PATH] = CONTENT
        yield server


class Reply(NamedTuple):
    status: int
    headers: http.client.HTTPMessage
    body: bytes
    error: str | None
    """How the body ended, if not where Content-Length says: "fin", "rst" or "timeout"."""


def ask(
    url: str,
    path: str = PATH,
    *,
    byte_range: str | None = None,
    method: str = "GET",
    body: bytes | Iterator[bytes] | None = None,
    timeout: float = 20.0,
    silence: float = 20.0,
) -> Reply:
    """One request on a connection of its own, given up `timeout` seconds without a byte, `silence` once there are some.

    A busy machine may take its time to the first byte.
    """
    connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=timeout)
    try:
        headers = {} if byte_range is None else {"Range": byte_range}
        connection.request(method, path, body=body, headers=headers, encode_chunked=not isinstance(body, bytes))
        client = connection.sock
        response = connection.getresponse()
        got, error = b"", None
        try:
            while piece := response.read1(65536):
                got += piece
                client.settimeout(silence)
            if response.length:
                error = "fin"
        except ConnectionResetError:
            error = "rst"
        except TimeoutError:
            error = "timeout"
        return Reply(response.status, response.headers, got, error)
    finally:
        connection.close()


def test_without_faults_everything_passes(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url) as proxy:
        whole = ask(proxy.url)
        part = ask(proxy.url, byte_range="bytes=100-199")
        head = ask(proxy.url, method="HEAD")
        listing = ask(proxy.url, "/?list-type=2&prefix=secret")
        missing = ask(proxy.url, "/bucket/none")
        host = proxy.url.removeprefix("http://")
    assert (whole.status, whole.body, whole.error, whole.headers["ETag"]) == (200, CONTENT, None, etag_of(CONTENT))
    assert whole.headers["X-Host"] == host, "the Host header of the client must reach the server as it was"
    assert (part.status, part.body) == (206, CONTENT[100:200])
    assert part.headers["Content-Range"] == f"bytes 100-199/{len(CONTENT)}"
    assert (head.status, head.body, head.headers["Content-Length"]) == (200, b"", str(len(CONTENT)))
    assert PATH.encode() in listing.body
    assert missing.status == 404
    seen = [(one.method, one.path, one.query, one.range, one.status, one.fault) for one in proxy.requests]
    assert seen == [
        ("GET", PATH, "", None, 200, None),
        ("GET", PATH, "", "bytes=100-199", 206, None),
        ("HEAD", PATH, "", None, 200, None),
        ("GET", "/", "list-type prefix", None, 200, None),
        ("GET", "/bucket/none", "", None, 404, None),
    ]
    assert {one.error for one in proxy.requests} == {None}
    assert proxy.num_requests == 5
    assert proxy.bytes_by_path[PATH] == len(CONTENT) + 100


@pytest.mark.parametrize("chunked", [False, True])
def test_uploads_pass(upstream: ObjectServer, chunked: bool) -> None:
    body = iter([CONTENT[:70_000], CONTENT[70_000:]]) if chunked else CONTENT
    with ChaosProxy(upstream.url) as proxy:
        assert ask(proxy.url, "/bucket/new", method="PUT", body=body).status == 200
    assert upstream.objects.pop("/bucket/new") == CONTENT


def test_a_client_that_waits_for_100_continue(upstream: ObjectServer) -> None:
    head = b"PUT /bucket/new HTTP/1.1\r\nHost: here\r\nContent-Length: 3\r\nExpect: 100-continue\r\n\r\n"
    with ChaosProxy(upstream.url) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client:
        client.sendall(head)
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"abc")
        assert client.recv(100).startswith(b"HTTP/1.1 200 ")
    assert upstream.objects.pop("/bucket/new") == b"abc"


def test_one_connection_takes_many_requests(upstream: ObjectServer) -> None:
    faults = [None, Unavailable(), FlippedByte(0), Short(5, honest=True), ChangedEtag(), WholeObject(), Stall(0.0)]
    with ChaosProxy(upstream.url, faults) as proxy:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
        connection.connect()
        ours = connection.sock.getsockname()
        for _ in faults:
            connection.request("GET", PATH, headers={"Range": "bytes=0-9"})
            connection.getresponse().read()
            assert connection.sock.getsockname() == ours, "the proxy closed a connection that was in step"
        connection.close()
        assert [one.fault for one in proxy.requests] == [None, "503", "flip", "fewer", "etag", "full200", "stall"]


def test_a_refused_request_leaves_its_connection_in_step(upstream: ObjectServer) -> None:
    """Its body is read all the same, and HEAD is answered without one."""
    with ChaosProxy(upstream.url, [Unavailable(), Unavailable(), None]) as proxy:
        connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
        statuses = []
        for method, body in (("PUT", b"abc"), ("HEAD", None), ("GET", None)):
            connection.request(method, PATH, body=body)
            reply = connection.getresponse()
            statuses.append(reply.status)
            last = reply.read()
        connection.close()
    assert (statuses, last) == ([503, 503, 200], CONTENT)
    told = [(one.method, one.bytes_sent > 0) for one in proxy.requests]
    assert (told, proxy.faults) == ([("PUT", True), ("HEAD", False), ("GET", True)], {"503": 2})


@pytest.mark.parametrize("head", [b"GET %s HTTP/1.0\r\n\r\n", b"GET %s HTTP/1.1\r\nConnection: close\r\n\r\n"])
def test_a_connection_ends_where_the_client_says_so(upstream: ObjectServer, head: bytes) -> None:
    with ChaosProxy(upstream.url) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=10) as client:
        client.sendall(head % PATH.encode())
        got = b""
        while piece := client.recv(65_536):  # times out where it does not end
            got += piece
    assert got.endswith(CONTENT)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_error_statuses(upstream: ObjectServer, status: int) -> None:
    with ChaosProxy(upstream.url, [Unavailable(status, retry_after_seconds=3)]) as proxy:
        refused, passed = ask(proxy.url), ask(proxy.url)
    assert (refused.status, refused.headers["Retry-After"], refused.error) == (status, "3", None)
    assert b"<Code>SlowDown</Code>" in refused.body
    assert passed.body == CONTENT
    assert [(one.status, one.fault) for one in proxy.requests] == [(status, str(status)), (200, None)]


@pytest.mark.parametrize("after_bytes", [0, 1, 65_536, 100_000, len(CONTENT) - 1])
@pytest.mark.parametrize("reset", [False, True])
def test_cuts(upstream: ObjectServer, after_bytes: int, reset: bool) -> None:
    with ChaosProxy(upstream.url, [Cut(after_bytes, reset=reset)]) as proxy:
        reply = ask(proxy.url)
    assert reply.headers["Content-Length"] == str(len(CONTENT))
    assert (reply.body, reply.error) == (CONTENT[:after_bytes], "rst" if reset else "fin")
    (one,) = proxy.requests
    assert (one.fault, one.at, one.bytes_sent) == ("reset" if reset else "cut", after_bytes, after_bytes)


def test_a_cut_behind_the_end_takes_the_last_byte(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url, [Cut(10**9)]) as proxy:
        assert ask(proxy.url).body == CONTENT[:-1]
    assert proxy.requests[0].at == len(CONTENT) - 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_upload_is_done_but_not_answered(upstream: ObjectServer, reset: bool) -> None:
    with (
        ChaosProxy(upstream.url, [Cut(reset=reset)]) as proxy,
        pytest.raises(ConnectionResetError if reset else http.client.RemoteDisconnected),
    ):
        ask(proxy.url, "/bucket/new", method="PUT", body=b"abc")
    assert upstream.objects.pop("/bucket/new") == b"abc"
    assert [(one.status, one.fault) for one in proxy.requests] == [(None, "reset" if reset else "cut")]


def test_a_cut_chunked_body_lacks_its_end(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url, [Cut(10**9)]) as proxy, pytest.raises(http.client.IncompleteRead):
        ask(proxy.url, "/")


def test_a_stall_inside_the_body(upstream: ObjectServer) -> None:
    stalls = [Stall(60.0, after_bytes=1000), Stall(0.2, after_bytes=1000), Stall(60.0, after_bytes=1000)]
    with ChaosProxy(upstream.url, stalls) as proxy:
        given_up = ask(proxy.url, silence=0.5)
        waited = ask(proxy.url)
        listing = ask(proxy.url, "/", silence=0.5)  # a chunked one, which is shorter
    assert (given_up.body, given_up.error) == (CONTENT[:1000], "timeout")
    assert (waited.body, waited.error) == (CONTENT, None)
    assert (PATH.encode() in listing.body, listing.error) == (True, "timeout")
    assert [(one.fault, one.at, one.bytes_sent) for one in proxy.requests] == [
        ("stall", 1000, 1000),
        ("stall", 1000, len(CONTENT)),
        ("stall", 1000, len(listing.body)),
    ]


def test_a_stall_before_the_headers(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url, [Stall(60.0, before_headers=True)]) as proxy:
        with pytest.raises(TimeoutError):
            ask(proxy.url, timeout=0.5)
        assert ask(proxy.url).body == CONTENT
    assert [(one.fault, one.status) for one in proxy.requests] == [("hang", None), (None, 200)]


def test_the_proxy_ends_at_once_with_stalled_clients(upstream: ObjectServer) -> None:
    proxy = ChaosProxy(upstream.url, itertools.repeat(Stall(3600.0, after_bytes=5)))
    with proxy:
        clients = [threading.Thread(target=ask, args=(proxy.url,)) for _ in range(3)]
        for client in clients:
            client.start()
        while sum(one.bytes_sent for one in proxy.requests) < 15:
            time.sleep(0.01)
    for client in clients:
        client.join()
    assert [one.bytes_sent for one in proxy.requests] == [5, 5, 5]


def test_a_short_body_keeps_its_content_length(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url, [Short(7)]) as proxy:
        reply = ask(proxy.url, byte_range="bytes=10-29")
    assert (reply.status, reply.headers["Content-Length"], reply.body, reply.error) == (
        206,
        "20",
        CONTENT[10:23],
        "fin",
    )
    assert [(one.fault, one.at) for one in proxy.requests] == [("short", 13)]
    with ChaosProxy(upstream.url, [Short(10**9)]) as proxy:
        assert ask(proxy.url).body == b""


def test_fewer_bytes_told_honestly(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url, [Short(7, honest=True)]) as proxy:
        reply = ask(proxy.url, byte_range="bytes=10-29")
    assert (reply.status, reply.headers["Content-Length"], reply.body, reply.error) == (206, "13", CONTENT[10:23], None)
    assert reply.headers["Content-Range"] == f"bytes 10-22/{len(CONTENT)}"
    assert [(one.fault, one.at, one.bytes_sent) for one in proxy.requests] == [("fewer", 13, 13)]


def test_the_whole_object_instead_of_a_range(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url, [WholeObject()] * 2) as proxy:
        ranged, plain = ask(proxy.url, byte_range="bytes=10-29"), ask(proxy.url)
    assert (ranged.status, ranged.body, ranged.headers["Content-Range"]) == (200, CONTENT, None)
    assert plain.body == CONTENT
    seen = [(one.range, one.status, one.fault) for one in proxy.requests]
    assert seen == [("bytes=10-29", 200, "full200"), (None, 200, None)]


def test_a_changed_etag(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url, [ChangedEtag('"other"'), None]) as proxy:
        first, second = ask(proxy.url), ask(proxy.url)
    assert (first.headers["ETag"], first.body) == ('"other"', CONTENT)
    assert (second.headers["ETag"], second.body) == (etag_of(CONTENT), CONTENT)


def test_one_flipped_byte_of_the_object(upstream: ObjectServer) -> None:
    with ChaosProxy(upstream.url, itertools.repeat(FlippedByte(150_000))) as proxy:
        whole = ask(proxy.url)
        inside = ask(proxy.url, byte_range="bytes=149990-150009")
        outside = ask(proxy.url, byte_range="bytes=0-149999")
        listing = ask(proxy.url, "/")
    broken = CONTENT[:150_000] + bytes([CONTENT[150_000] ^ 0xFF]) + CONTENT[150_001:]
    assert whole.body == broken
    assert whole.headers["ETag"] == etag_of(CONTENT)
    assert inside.body == broken[149_990:150_010]
    assert outside.body == CONTENT[:150_000]
    assert PATH.encode() in listing.body
    assert [(one.fault, one.at) for one in proxy.requests] == [("flip", 150_000)] * 2 + [(None, None)] * 2
    with ChaosProxy(upstream.url, [FlippedByte(10)]) as proxy:
        assert ask(proxy.url, byte_range="bytes=10-29").body == bytes([CONTENT[10] ^ 0xFF]) + CONTENT[11:30]


def test_a_slow_body_is_whole(upstream: ObjectServer) -> None:
    began = time.monotonic()
    with ChaosProxy(upstream.url, [Slow(200_000)]) as proxy:
        assert ask(proxy.url, byte_range="bytes=0-99999").body == CONTENT[:100_000]
    # A lower bound only: the proxy itself sleeps this long, however loaded the machine is.
    assert time.monotonic() - began > 0.45


def test_faults_only_on_some_paths(upstream: ObjectServer) -> None:
    upstream.objects["/bucket/manifest.json"] = b"{}"
    with ChaosProxy(upstream.url, [Unavailable()] * 2, paths="*.tar") as proxy:
        seen = [
            ask(proxy.url, path).status for path in ("/bucket/manifest.json", PATH, "/bucket/manifest.json", PATH, PATH)
        ]
    assert seen == [200, 503, 200, 503, 200]


def test_a_function_chooses(upstream: ObjectServer) -> None:
    def choose(request: Request) -> Fault | None:
        return Cut(3) if request.range == "bytes=5-9" else None

    with ChaosProxy(upstream.url, choose) as proxy:
        assert ask(proxy.url, byte_range="bytes=5-9").body == CONTENT[5:8]
        assert ask(proxy.url, byte_range="bytes=5-8").body == CONTENT[5:9]


def test_a_failing_function_is_told(upstream: ObjectServer) -> None:
    def choose(request: Request) -> Fault | None:
        raise ZeroDivisionError("a mistake in the test")

    hung_up = pytest.raises((ConnectionResetError, http.client.RemoteDisconnected))
    told = pytest.raises(ZeroDivisionError, match="a mistake in the test")
    with told, ChaosProxy(upstream.url, choose) as proxy, hung_up:
        ask(proxy.url)


def test_a_spec_with_a_seed_is_repeatable(upstream: ObjectServer) -> None:
    def run(seed: int) -> list[tuple[str | None, int | None, int]]:
        with ChaosProxy(upstream.url, "503:0.2,cut:0.3,short:0.2,flip:0.3", seed=seed) as proxy:
            for _ in range(12):
                ask(proxy.url)
        return [(one.fault, one.at, one.bytes_sent) for one in proxy.requests]

    assert run(1) == run(1)
    assert run(1) != run(2)
    assert len({fault for fault, _, _ in run(1)}) > 2


def test_the_log_has_one_line_an_exchange_and_no_signatures(upstream: ObjectServer, tmp_path: Path) -> None:
    with ChaosProxy(upstream.url, [Cut(5)], log=tmp_path / "log") as proxy:
        ask(proxy.url, f"{PATH}?uploads&X-Amz-Signature=hush", byte_range="bytes=0-9")
        ask(proxy.url, method="HEAD")
    text = (tmp_path / "log").read_text("utf-8")
    assert "hush" not in text
    both = [json.loads(line) for line in text.splitlines()]
    expected = {"number": 0, "method": "GET", "path": PATH, "query": "uploads X-Amz-Signature", "range": "bytes=0-9"}
    assert both[0] == {**expected, "status": 206, "bytes_sent": 5, "fault": "cut", "at": 5, "error": None}
    assert (both[1]["method"], both[1]["bytes_sent"], both[1]["fault"]) == ("HEAD", 0, None)


def test_a_server_that_is_not_there_is_502() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with ChaosProxy(f"http://127.0.0.1:{port}") as proxy:
        assert ask(proxy.url).status == 502
    assert "no connection" in str(proxy.requests[0].error)


def test_a_server_that_dies_inside_its_answer() -> None:
    def answer_half(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        connection.recv(65536)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
        connection.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_half, args=(listener,))
        thread.start()
        with ChaosProxy(f"http://127.0.0.1:{listener.getsockname()[1]}") as proxy:
            reply = ask(proxy.url)
        thread.join()
    assert (reply.status, reply.body, reply.error) == (200, b"half", "fin")
    (one,) = proxy.requests
    assert (one.fault, one.bytes_sent) == (None, 4)
    assert "4 of 10" in str(one.error)


ANSWERS = {
    b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab": (200, b"ab"),
    b"HTTP/1.1 204 No Content\r\n\r\n": (204, b""),
    b"HTTP/1.0 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok": (200, b"ok"),
    b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n": (304, b""),
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3;a=b\r\nabc\r\n0\r\nX: y\r\nZ: y\r\n\r\n": (200, b"abc"),
    b"HTTP/1.1 200 OK\r\n\r\nto the end": (200, b"to the end"),
}


def test_answers_without_a_body_and_with_more_around_it() -> None:
    """Interim answers, 204 and 304, an older server, extensions and trailers of chunks: the connection is in step."""

    def answer_all(listener: socket.socket) -> None:
        open_ones = []
        for answer in ANSWERS:
            connection, _ = listener.accept()
            open_ones.append(connection)  # who waits for more of it waits for good
            connection.recv(65536)
            connection.sendall(answer)
        open_ones.pop().close()
        done.wait()
        for connection in open_ones:
            connection.close()

    done = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_all, args=(listener,))
        thread.start()
        with ChaosProxy(f"http://127.0.0.1:{listener.getsockname()[1]}") as proxy:
            client = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=20)
            client.connect()
            ours, got = client.sock.getsockname(), []
            for _ in ANSWERS:
                client.request("GET", PATH)
                assert client.sock.getsockname() == ours
                reply = client.getresponse()
                got.append((reply.status, reply.read()))
            assert got == list(ANSWERS.values())
            assert reply.headers["Connection"] == "close"  # its length is not known otherwise
            client.close()
        done.set()
        thread.join()


def test_an_upload_with_trailers_leaves_its_connection_in_step(upstream: ObjectServer) -> None:
    put = b"PUT /bucket/new HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n"
    put += b"3\r\nabc\r\n0\r\nX: y\r\nZ: y\r\n\r\n"
    get = b"GET /bucket/new HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n"
    with ChaosProxy(upstream.url) as proxy, socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client:
        client.sendall(put + get)
        got = b""
        while piece := client.recv(65_536):
            got += piece
    assert got.endswith(b"\r\n\r\nabc")
    assert upstream.objects.pop("/bucket/new") == b"abc"
    assert [(one.method, one.status) for one in proxy.requests] == [("PUT", 200), ("GET", 200)]


def test_an_answer_before_the_end_of_an_upload_leaves_its_connection_in_step() -> None:
    """As a store refuses what it need not read."""

    def refuse_and_answer(listener: socket.socket) -> None:
        for answer in (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n", b"HTTP/1.1 204 No Content\r\n\r\n"):
            connection, _ = listener.accept()
            connection.recv(65_536)
            connection.sendall(answer)
            while connection.recv(65_536):
                pass
            connection.close()

    put = b"PUT /bucket/new HTTP/1.1\r\nHost: here\r\nContent-Length: 6\r\n\r\nabc"
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=refuse_and_answer, args=(listener,))
        thread.start()
        with (
            ChaosProxy(f"http://127.0.0.1:{listener.getsockname()[1]}") as proxy,
            socket.create_connection(("127.0.0.1", proxy.port), timeout=20) as client,
        ):
            client.sendall(put)
            assert client.recv(65_536).startswith(b"HTTP/1.1 403 ")
            client.sendall(b"def" + b"HEAD /bucket/new HTTP/1.1\r\nHost: here\r\n\r\n")
            assert client.recv(65_536).startswith(b"HTTP/1.1 204 ")
        thread.join()


def test_a_taken_port_and_a_wrong_upstream(upstream: ObjectServer, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Take another port"), ChaosProxy(upstream.url, port=upstream.server_port):
        pass
    with pytest.raises(UsageError, match="cannot write the log"), ChaosProxy(upstream.url, log=tmp_path / "no" / "log"):
        pass
    for wrong in (
        "https://127.0.0.1",
        "127.0.0.1:80",
        "http://a:b@host",
        "http://host/path",
        "http://host:x",
        "http://",
    ):
        with pytest.raises(UsageError, match="http://host:port"):
            ChaosProxy(wrong)


A_FAULT = st.one_of(
    st.none(),
    st.builds(Unavailable),
    st.builds(Cut, st.none() | st.integers(0, 400_000), reset=st.booleans()),
    st.builds(Short, st.none() | st.integers(1, 400_000), honest=st.booleans()),
    st.builds(Stall, st.just(0.0), st.none() | st.integers(0, 400_000), before_headers=st.booleans()),
    st.builds(WholeObject),
)


@settings(max_examples=30)
@given(faults=st.lists(A_FAULT, max_size=6), first=st.integers(0, len(CONTENT) - 1), size=st.integers(1, 200_000))
def test_who_goes_on_from_the_byte_reached_has_every_byte_once(
    upstream: ObjectServer, faults: list[Fault | None], first: int, size: int
) -> None:
    """None of these faults sends a wrong byte or one too many, and the counters say what was received."""
    end = min(first + size, len(CONTENT))
    got, received = b"", []
    with ChaosProxy(upstream.url, faults) as proxy:
        while len(got) < end - first:
            reply = ask(proxy.url, byte_range=f"bytes={first + len(got)}-{end - 1}")
            received.append(len(reply.body))
            if reply.status == 206:
                got += reply.body
            elif reply.status == 200:
                got += reply.body[first + len(got) : end]
    assert got == CONTENT[first:end]
    assert [one.bytes_sent for one in proxy.requests] == received
    assert len(received) <= len(faults) + 1


@pytest.mark.parametrize("reset", [False, True])
def test_a_client_that_is_gone_already_can_be_ended(reset: bool) -> None:
    """As one that was killed inside its answer: its socket is closed, and there is nothing to wait for."""

    async def scenario() -> bool:
        ended: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.transport.abort()
            await asyncio.sleep(0)  # now the socket is closed
            assert writer.get_extra_info("socket").fileno() == -1
            try:
                ended.set_result(await Client(reader, writer).end(reset=reset))
            except Exception as error:
                ended.set_exception(error)

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.close()
            return await ended

    assert asyncio.run(scenario()) is False
