"""Whole epochs out of a store through every fault: the batches of the local set, or an error that says why not.

By default the store is a small web server; the slow tests read from the gateway, and break that as well.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterable, Sequence
from itertools import count, cycle
from pathlib import Path
from typing import Any

import pytest
from chaos.obstore_client import obstore_process
from chaos.ranged_server import ObjectServer, serving
from damage import flip_audio, rows_of
from integration.reading import Reading, read_epoch, upload
from integration.servers import Rgw

from s3prl_stream.chaos import (
    ChangedEtag,
    ChaosProxy,
    Cut,
    Exchange,
    Fault,
    FlippedByte,
    Request,
    Short,
    Stall,
    Unavailable,
    WholeObject,
)

Child = Callable[..., Any]

MENDED: dict[str, Sequence[Fault | None]] = {
    "503 bursts": [*[Unavailable()] * 4, *[None] * 9],
    "short reads": [Short(), None, Short(missing_bytes=100), None],
    "fewer bytes than asked for": [Short(honest=True), None, None],
    "cut bodies": [Cut(), Cut(reset=True), None],
    "stalls": [Stall(100.0), *[None] * 30, Stall(100.0, before_headers=True), *[None] * 30],
}
"""Faults that cost time only, dealt out again and again."""

ALL_TOGETHER = [
    *(Unavailable(), Unavailable(), Cut(), Short(), None, Cut(reset=True), WholeObject(), None, Short(honest=True)),
    *(None, Stall(100.0), None, None, Stall(100.0, before_headers=True)),
    *[None, Cut(), None, Unavailable(), None, Short(), Short(honest=True), None, WholeObject()] * 3,
]
"""Each kind that is cheap comes again: a client that has run out of time may not wait for what it is dealt."""
OF_INDEX = [Unavailable(), Cut(), None, None, Short(), None] * 3


def dealt(faults: Iterable[Fault | None], of_index: Iterable[Fault | None] = ()) -> Callable[[Request], Fault | None]:
    """Faults for the shards' requests one after the other, and for those of manifest and index."""
    of_shards, of_others = iter(faults), iter(of_index)
    return lambda request: next(of_shards if request.path.endswith(".tar") else of_others, None)


def put_files(server: ObjectServer, folder: Path) -> str:
    """The path below which a set lies on the server."""
    for path in folder.rglob("*"):
        if path.is_file():
            server.objects[f"/{folder.name}/{path.relative_to(folder).as_posix()}"] = path.read_bytes()
    return f"/{folder.name}"


def assert_mended(found: Reading, local: Reading, proxy: ChaosProxy) -> None:
    assert found.error is None
    assert found.batches == local.batches
    assert found.damaged == []
    assert proxy.faults


def flip_once_in_each(rows: Sequence[Any], flipped: set[str]) -> Callable[[Request], Fault | None]:
    """Flips a byte inside one sample of each shard when it is asked for first, and never again."""
    chosen = {row.shard: row.offset + row.size // 2 for row in rows}

    def choose(request: Request) -> Fault | None:
        name = request.path.rpartition("/")[2]
        if name not in chosen or name in flipped or request.range is None:
            return None
        first, _, last = request.range.removeprefix("bytes=").partition("-")
        if not int(first) <= chosen[name] <= int(last):
            return None
        flipped.add(name)
        return FlippedByte(chosen[name])

    return choose


@pytest.mark.parametrize("workers", [0, pytest.param(2, marks=pytest.mark.slow)])
def test_an_epoch_through_all_faults_together(whole: Path, obstore_child: Child, workers: int) -> None:
    faults = ALL_TOGETHER if workers == 0 else [one for one in ALL_TOGETHER if not isinstance(one, Stall)]
    with serving() as server, ChaosProxy(server.url, dealt(faults, OF_INDEX)) as proxy:
        url = proxy.url + put_files(server, whole)
        found = obstore_child(read_epoch, {}, url, workers=workers, read_timeout="500ms", max_batch_seconds=3.0)
    assert_mended(found, read_epoch({}, whole, max_batch_seconds=3.0), proxy)
    assert {"503", "cut", "reset", "short", "fewer", "full200"} <= proxy.faults.keys()
    if workers == 0:
        assert {"stall", "hang"} <= proxy.faults.keys()
        assert found.counters["retries"] > 0


def test_a_byte_flipped_on_the_way_is_read_again(whole: Path, obstore_child: Child) -> None:
    flipped: set[str] = set()
    with serving() as server, ChaosProxy(server.url, flip_once_in_each(rows_of(whole), flipped)) as proxy:
        url = proxy.url + put_files(server, whole)
        found = obstore_child(read_epoch, {}, url, max_batch_seconds=3.0)
    assert_mended(found, read_epoch({}, whole, max_batch_seconds=3.0), proxy)
    assert proxy.faults == {"flip": 4}
    assert found.counters["rereads"] == 4


def test_a_byte_of_the_index_flipped_on_the_way_is_read_again(whole: Path, obstore_child: Child) -> None:
    """In a page, whose checksum tells; of each file once."""
    flipped: set[str] = set()

    def choose(request: Request) -> Fault | None:
        if request.path.endswith(".parquet") and request.path not in flipped:
            flipped.add(request.path)
            return FlippedByte(600)
        return None

    with serving() as server, ChaosProxy(server.url, choose) as proxy:
        url = proxy.url + put_files(server, whole)
        found = obstore_child(read_epoch, {}, url, max_batch_seconds=3.0)
    assert_mended(found, read_epoch({}, whole, max_batch_seconds=3.0), proxy)
    assert proxy.faults == {"flip": 4}
    assert 1 <= found.counters["rereads"] <= 4  # some pages hold columns that nobody looks at


def assert_one_is_damaged(found: Reading, local: Reading, row: Any) -> None:
    assert found.error is None
    (one,) = found.damaged
    place = (one["shard"], one["key"], one["offset"], one["size"], one["reason"])
    assert place == (row.shard, row.key, row.offset, row.size, "crc")
    assert found.batches == [(b, tuple(r for r in rows if r[0] != row.key)) for b, rows in local.batches]
    assert local.rows - found.rows == {r for r in local.rows if r[0] == row.key}


def test_a_byte_flipped_at_rest_costs_its_sample_and_is_listed(
    whole: Path, obstore_child: Child, tmp_path: Path
) -> None:
    broken = shutil.copytree(whole, tmp_path / "broken")
    row = rows_of(broken)[7]
    flip_audio(broken, row)
    with serving() as server:
        found = obstore_child(read_epoch, {}, server.url + put_files(server, broken), max_batch_seconds=3.0)
    assert_one_is_damaged(found, read_epoch({}, whole, max_batch_seconds=3.0), row)


def assert_stopped_as_changed(found: Reading, local: Reading, shard: str) -> None:
    assert found.error is not None
    assert found.error.startswith("ShardError")
    assert f"{shard}: object changed since it was first read" in found.error
    # a worker that sees the shard for the first time cannot know, and finds its samples damaged
    assert {one["shard"] for one in found.damaged} <= {shard}
    lost = {one["key"] for one in found.damaged}
    expected = [(number, tuple(row for row in rows if row[0] not in lost)) for number, rows in local.batches]
    assert found.batches == expected[: len(found.batches)]


class OnceRead:
    """Does something as soon as a shard is asked for of which somebody has bytes already."""

    def __init__(self, action: Callable[[str], Fault | None]) -> None:
        self.action = action
        self.proxy: ChaosProxy | None = None
        self.path: str | None = None

    def __call__(self, request: Request) -> Fault | None:
        if self.path is None and self.proxy is not None and request.path.endswith(".tar"):
            before = self.proxy.requests[: request.number]
            if any(one.path == request.path and one.method == "GET" and one.bytes_sent for one in before):
                self.path = request.path
                return self.action(request.path)
        return None

    @property
    def shard(self) -> str:
        assert self.path is not None
        return self.path.rpartition("/")[2]


@pytest.mark.parametrize("how", ["another ETag", "other bytes"])
def test_a_shard_replaced_under_the_reader_stops_it(whole: Path, obstore_child: Child, how: str) -> None:
    with serving() as server:

        def replace(path: str) -> Fault | None:
            if how == "another ETag":
                return ChangedEtag()
            server.objects[path] = bytes(len(server.objects[path]))
            return None

        once_read = OnceRead(replace)
        with ChaosProxy(server.url, once_read) as once_read.proxy:
            url = once_read.proxy.url + put_files(server, whole)
            found = obstore_child(read_epoch, {}, url, max_batch_seconds=3.0, epochs=3)
    assert found.damaged == []
    assert_stopped_as_changed(found, read_epoch({}, whole, max_batch_seconds=3.0, epochs=3), once_read.shard)


# ---- the gateway ---------------------------------------------------------------------------------------------------

REAL = "s3://test/chaos-epochs"


@pytest.fixture(scope="module")
def in_gateway(rgw: Rgw, sample_set: Path) -> Rgw:
    """The sample set lies at REAL/sample."""
    with obstore_process() as child:
        child(upload, rgw.environment(), sample_set, f"{REAL}/sample")
    return rgw


@pytest.fixture(scope="module")
def local(sample_set: Path) -> Reading:
    return read_epoch({}, sample_set)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_with_200_answers_of_the_gateway(rgw: Rgw, sample_set: Path, local: Reading, workers: int) -> None:
    """By plain http, because a signature holds for the range too. Every third range gets one: three are an error."""
    asked: set[tuple[str, str | None]] = set()

    def choose(request: Request) -> Fault | None:
        is_new = (request.path, request.range) not in asked
        asked.add((request.path, request.range))
        return WholeObject() if is_new and request.path.endswith(".tar") and len(asked) % 3 == 0 else None

    with obstore_process() as child, ChaosProxy(rgw.endpoint, choose) as proxy:
        child(upload, rgw.environment(), sample_set, "s3://public/chaos-epochs")
        found = child(read_epoch, {}, f"{proxy.url}/public/chaos-epochs", workers=workers)
    assert_mended(found, local, proxy)
    assert proxy.faults.keys() == {"full200"}


def read_real(rgw: Rgw, *, proxy: ChaosProxy | None = None, name: str = "sample", **settings: Any) -> Reading:
    """An epoch in a process of its own, whose workers know the proxy from their environment."""
    environment = rgw.environment(endpoint=None if proxy is None else proxy.url)
    with obstore_process() as child:
        found: Reading = child(read_epoch, environment, f"{REAL}/{name}", **settings)
        return found


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("faults", MENDED)
def test_an_epoch_out_of_the_gateway_through(in_gateway: Rgw, local: Reading, faults: str, workers: int) -> None:
    index = () if faults == "fewer bytes than asked for" else cycle(OF_INDEX)
    with ChaosProxy(in_gateway.endpoint, dealt(cycle(MENDED[faults]), index)) as proxy:
        found = read_real(in_gateway, proxy=proxy, workers=workers)
    assert_mended(found, local, proxy)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_bytes_flipped_on_the_way_from_the_gateway(
    in_gateway: Rgw, local: Reading, sample_set: Path, workers: int
) -> None:
    flipped: set[str] = set()
    with ChaosProxy(in_gateway.endpoint, flip_once_in_each(rows_of(sample_set), flipped)) as proxy:
        found = read_real(in_gateway, proxy=proxy, workers=workers)
    assert_mended(found, local, proxy)
    assert proxy.faults == {"flip": 5}


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_byte_flipped_in_the_gateway_is_listed(
    in_gateway: Rgw, local: Reading, sample_set: Path, tmp_path: Path, workers: int
) -> None:
    broken = shutil.copytree(sample_set, tmp_path / "broken")
    row = rows_of(broken)[77]
    flip_audio(broken, row)
    with obstore_process() as child:
        child(upload, in_gateway.environment(), broken, f"{REAL}/broken")
    found = read_real(in_gateway, name="broken", workers=workers)
    assert_one_is_damaged(found, local, row)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("how", ["another ETag", "other bytes"])
def test_a_shard_replaced_in_the_gateway_stops_the_epoch(
    in_gateway: Rgw, sample_set: Path, tmp_path: Path, how: str, workers: int
) -> None:
    """Over three epochs: in one, perhaps only the worker that had not read the shard before reads it again."""
    name = f"replaced-{workers}"
    with obstore_process() as child:
        child(upload, in_gateway.environment(), sample_set, f"{REAL}/{name}")

        def replace(path: str) -> Fault | None:
            if how == "another ETag":
                return ChangedEtag()
            shard = tmp_path / path.rpartition("/")[2]
            shard.write_bytes(bytes((sample_set / shard.name).stat().st_size))
            child(upload, in_gateway.environment(), tmp_path, f"{REAL}/{name}")
            return None

        once_read = OnceRead(replace)
        with ChaosProxy(in_gateway.endpoint, once_read) as once_read.proxy:
            settings = {"workers": workers, "read_timeout": "10s", "epochs": 3}
            found = read_real(in_gateway, proxy=once_read.proxy, name=name, **settings)
    assert_stopped_as_changed(found, read_epoch({}, sample_set, epochs=3), once_read.shard)


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_the_gateway_is_killed_inside_an_epoch_and_comes_back(in_gateway: Rgw, local: Reading, workers: int) -> None:
    """The third request for a shard finds it dead."""
    killed = threading.Event()
    of_shards = count(1)
    found: list[Reading] = []
    lost: list[Exchange] = []

    def kill(request: Request) -> Fault | None:
        if request.path.endswith(".tar") and next(of_shards) == 3:
            in_gateway.kill_gateway()
            killed.set()
        return None

    def read() -> None:
        with ChaosProxy(in_gateway.endpoint, kill) as proxy:
            found.append(read_real(in_gateway, proxy=proxy, workers=workers))
            lost.extend(one for one in proxy.requests if one.error is not None)

    reader = threading.Thread(target=read)
    reader.start()
    assert killed.wait(120)
    in_gateway.start_gateway()
    reader.join()
    assert lost
    assert found[0].error is None
    assert found[0].batches == local.batches


@pytest.mark.slow
@pytest.mark.parametrize("workers", [0, 2])
def test_a_gateway_with_one_request_slot(in_gateway: Rgw, local: Reading, workers: int) -> None:
    with in_gateway.limited_to(1), ChaosProxy(in_gateway.endpoint) as proxy:
        found = read_real(in_gateway, proxy=proxy, workers=workers)
        busy = sum(one.status == 503 for one in proxy.requests)
    assert found.error is None
    assert found.batches == local.batches
    print(f"{busy} of {len(proxy.requests)} requests were refused")
