"""The proxy between obstore and a real object store: signatures stay valid, and each fault arrives as what it is."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from chaos.obstore_client import get_range, get_url, obstore_process, put
from integration.servers import Nginx, Rgw

from s3prl_stream.chaos import (
    ChangedEtag,
    ChaosProxy,
    Cut,
    Exchange,
    Fault,
    FlippedByte,
    Short,
    Slow,
    Stall,
    Unavailable,
    WholeObject,
)

pytestmark = pytest.mark.slow
CONTENT = random.Random(2).randbytes(8_000_000)
NAME = "chaos/set-000000.tar"
FIRST, LENGTH = 1_000_000, 4_000_000
ASKED = CONTENT[FIRST : FIRST + LENGTH]


@pytest.fixture(scope="module")
def client() -> Iterator[Callable[..., Any]]:
    with obstore_process() as run:
        yield run


@pytest.fixture(scope="module")
def store(rgw: Rgw, client: Callable[..., Any]) -> Rgw:
    client(put, rgw.environment(), rgw.bucket, NAME, CONTENT)
    return rgw


@pytest.fixture
def read(store: Rgw, client: Callable[..., Any]) -> Callable[..., tuple[bytes | str, list[Exchange]]]:
    """Read the same range through a proxy with faults: what came, and what the proxy saw."""

    def through(*faults: Fault | None, **settings: Any) -> tuple[bytes | str, list[Exchange]]:
        with ChaosProxy(store.endpoint, faults) as proxy:
            environment = store.environment(endpoint=proxy.url)
            return client(get_range, environment, store.bucket, NAME, FIRST, LENGTH, **settings), proxy.requests

    return through


Read = Callable[..., tuple[bytes | str, list[Exchange]]]


def ranges_of(requests: list[Exchange]) -> list[str | None]:
    return [one.range for one in requests]


def asked_from(offset: int) -> str:
    return f"bytes={FIRST + offset}-{FIRST + LENGTH - 1}"


def test_signed_uploads_and_reads_pass(store: Rgw, client: Callable[..., Any]) -> None:
    with ChaosProxy(store.endpoint) as proxy:
        environment = store.environment(endpoint=proxy.url)
        client(put, environment, store.bucket, "chaos/new", CONTENT)
        assert client(get_range, environment, store.bucket, "chaos/new", FIRST, LENGTH) == ASKED
    assert {(one.method, one.status) for one in proxy.requests} >= {("GET", 206)}
    assert all(one.error is None and one.fault is None for one in proxy.requests)


def test_503s_are_tried_again(read: Read) -> None:
    got, requests = read(Unavailable(), Unavailable())
    assert got == ASKED
    assert [one.status for one in requests] == [503, 503, 206]


@pytest.mark.parametrize("reset", [False, True])
def test_a_cut_body_is_continued_where_it_ended(read: Read, reset: bool) -> None:
    got, requests = read(Cut(3_000_000, reset=reset))
    assert got == ASKED
    assert ranges_of(requests) == [asked_from(0), asked_from(3_000_000)]
    assert sum(one.bytes_sent for one in requests) == LENGTH


def test_a_short_body_is_continued_where_it_ended(read: Read) -> None:
    got, requests = read(Short(10))
    assert got == ASKED
    assert ranges_of(requests) == [asked_from(0), asked_from(LENGTH - 10)]


def test_a_stalled_body_is_given_up_and_continued(read: Read) -> None:
    got, requests = read(Stall(120.0, after_bytes=2_000_000), read_timeout_seconds=1.0)
    assert got == ASKED
    assert ranges_of(requests) == [asked_from(0), asked_from(2_000_000)]


def test_a_stall_before_the_headers_is_asked_again(read: Read) -> None:
    got, requests = read(Stall(120.0, before_headers=True), read_timeout_seconds=1.0)
    assert got == ASKED
    assert [(one.status, one.fault) for one in requests] == [(None, "hang"), (206, None)]


def test_a_slow_body_is_not_given_up(read: Read) -> None:
    got, requests = read(Slow(2_000_000), read_timeout_seconds=1.0)
    assert got == ASKED
    assert ranges_of(requests) == [asked_from(0)]


def test_a_flipped_byte_arrives_without_a_word(read: Read) -> None:
    """The reason why every sample has a checksum of its own."""
    got, requests = read(FlippedByte(FIRST + 77))
    assert got == ASKED[:77] + bytes([ASKED[77] ^ 0xFF]) + ASKED[78:]
    assert [(one.fault, one.at) for one in requests] == [("flip", FIRST + 77)]


def test_an_overwrite_between_two_parts_is_noticed(read: Read) -> None:
    got, requests = read(Cut(3_000_000), ChangedEtag())
    assert isinstance(got, str)
    assert [one.fault for one in requests[:2]] == ["cut", "etag"]


def test_the_whole_object_for_a_range(store: Rgw, client: Callable[..., Any], nginx: Nginx) -> None:
    (nginx.files / "chaos").mkdir()
    (nginx.files / NAME).write_bytes(CONTENT)
    with ChaosProxy(nginx.endpoint, [WholeObject()]) as proxy:
        assert isinstance(client(get_url, proxy.url, NAME, FIRST, LENGTH), str)
        assert client(get_url, proxy.url, NAME, FIRST, LENGTH) == ASKED
    assert [(one.status, one.fault) for one in proxy.requests] == [(200, "full200"), (206, None)]


def test_an_upload_whose_answer_is_lost_is_sent_again(store: Rgw, client: Callable[..., Any]) -> None:
    with ChaosProxy(store.endpoint, [Cut(reset=True), Unavailable()]) as proxy:
        environment = store.environment(endpoint=proxy.url)
        client(put, environment, store.bucket, "chaos/again", CONTENT[:1000])
    assert [(one.method, one.status) for one in proxy.requests] == [("PUT", None), ("PUT", 503), ("PUT", 200)]
    assert client(get_range, store.environment(), store.bucket, "chaos/again", 0, 1000) == CONTENT[:1000]


def test_a_gateway_killed_inside_its_answer(store: Rgw, client: Callable[..., Any]) -> None:
    """Not the proxy's fault: it passes on what happened, and says so."""
    big = CONTENT * 8  # more than the buffers between gateway and proxy hold
    client(put, store.environment(), store.bucket, "chaos/big", big)
    got: list[bytes | str] = []
    with ChaosProxy(store.endpoint, [Slow(20_000_000)]) as proxy:
        environment = store.environment(endpoint=proxy.url)

        def read() -> None:
            got.append(client(get_range, environment, store.bucket, "chaos/big", 0, len(big)))

        reader = threading.Thread(target=read)
        reader.start()
        while reader.is_alive() and not any(one.bytes_sent > 1_000_000 for one in proxy.requests):
            time.sleep(0.01)
        store.kill_gateway()
        store.start_gateway()
        reader.join()
    assert got == [big]
    assert "inside the server's answer" in str(proxy.requests[0].error)
    offset = proxy.requests[0].bytes_sent
    assert offset < len(big)
    assert (proxy.requests[-1].status, proxy.requests[-1].range) == (206, f"bytes={offset}-{len(big) - 1}")
