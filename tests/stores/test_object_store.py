"""The object store's reads, one fault at a time: bytes are right or there is an error, and the counters tell the cost.

Every test runs in a child process (`apart.py`) with a server of its own.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pickle
import random
import shutil
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from apart import in_child
from chaos.ranged_server import ObjectServer, serving

from s3prl_stream.chaos import ChaosProxy, Cut, Fault, Request, Short, Stall, Unavailable, WholeObject
from s3prl_stream.errors import MissingFile, SampleError, ShardError, StreamError, UsageError
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.stores import coalesce, object_clients, object_store, object_tries
from s3prl_stream.stores.object_store import ObjectStore
from s3prl_stream.stores.store import open_store
from s3prl_stream.stores.wanted import reading_while

CONTENT = random.Random(3).randbytes(3_000_000)


@contextlib.contextmanager
def stored(faults: Any = (), content: bytes = CONTENT) -> Iterator[tuple[ObjectStore, ChaosProxy, ObjectServer]]:
    """A store with one file, "a.tar", behind a faulty proxy."""
    with serving() as server:
        server.objects["/set/a.tar"] = content
        with ChaosProxy(server.url, faults) as proxy:
            yield ObjectStore(f"{proxy.url}/set"), proxy, server


def ranges(proxy: ChaosProxy) -> list[str | None]:
    return [one.range for one in proxy.requests if one.method == "GET"]


def raised(kind: type[Exception], action: Callable[[], Any]) -> str:
    with pytest.raises(kind) as caught:
        action()
    return str(caught.value)


@in_child
def test_a_sample_that_is_damaged_at_rest_is_damage_after_a_second_look(sample_set: Path, tmp_path: Path) -> None:
    shutil.copytree(sample_set, tmp_path / "set")
    folder = ShardFolder(ObjectStore(f"file://{tmp_path}/set"))
    shard, rows = folder.shard_names[0], folder.rows(0)
    sample = (shard, int(rows.offset[0]), int(rows.size[0]), int(rows.crc32c[0]), "here")
    assert len(folder.read_bytes(*sample)) == rows.size[0]
    content = bytearray((tmp_path / "set" / shard).read_bytes())
    content[600] ^= 1
    (tmp_path / "set" / shard).write_bytes(content)
    folder = ShardFolder(ObjectStore(f"file://{tmp_path}/set"))
    with pytest.raises(SampleError, match=r"^here: CRC-32C is"):
        folder.read_bytes(*sample)
    assert folder.tars.counters["rereads"] == 1


@in_child
def test_files_are_read_by_name_and_position() -> None:
    with stored() as (store, proxy, _):
        assert store.read("a.tar", 100, 50) == CONTENT[100:150]
        assert store.read("a.tar", len(CONTENT) - 5, 50) == CONTENT[-5:]
        assert store.read("a.tar", len(CONTENT), 1) == b""
        assert store.read("a.tar", 7, 0) == b""
        assert store.size("a.tar") == len(CONTENT)
        assert store.size("none") is None
        assert store.read_whole("a.tar", at_most=len(CONTENT)) == CONTENT
        assert "3000000 bytes, expected at most 2999999" in raised(
            ShardError, lambda: store.read_whole("a.tar", at_most=len(CONTENT) - 1)
        )
        for action in (lambda: store.read("none", 0, 1), lambda: store.read_whole("none", at_most=1)):
            assert "none: cannot be read at byte 0 (not there" in raised(MissingFile, action)
        assert store.counters["requests"] == proxy.num_requests
        assert store.counters["retries"] == 0
        assert "web server does not list" in raised(UsageError, store.list)
    with stored(content=b"short") as (store, _, _):  # of a size that is not known yet
        assert [store.read("a.tar", 1000, 10), store.read("a.tar", 2, 1000)] == [b"", b"ort"]


@in_child
def test_an_empty_file_is_empty_with_head_or_without_and_whatever_a_server_says_of_its_first_byte() -> None:
    for head_status in (None, 405):
        for sends_whole in (False, True):
            with stored(content=b"") as (store, proxy, server):
                server.head_status, server.sends_empty_whole = head_status, sends_whole
                fresh = functools.partial(ObjectStore, f"{proxy.url}/set")
                assert fresh().size("a.tar") == 0
                assert store.read_whole("a.tar", at_most=10) == fresh().read("a.tar", 0, 10) == b""
                assert fresh().read("a.tar", 5, 10) == store.read_again("a.tar", 0, 10) == b""
                assert store.counters["retries"] == 0


@in_child
def test_a_broken_body_goes_on_from_the_byte_that_was_reached() -> None:
    for fault in (Cut(1_000_000), Cut(1_000_000, reset=True), Short(500_000)):
        with stored([fault, None]) as (store, proxy, _):
            assert store.read("a.tar", 10, 2_000_000) == CONTENT[10:2_000_010]
            first, second = ranges(proxy)
            assert first == "bytes=10-2000009"
            assert second is not None
            begin, _, end = second.removeprefix("bytes=").partition("-")
            assert end == "2000009"
            sent = proxy.requests[0].bytes_sent
            assert 10 + sent - 2 * (64 << 10) <= int(begin) <= 10 + sent, (fault, begin, sent)
            assert store.counters == {"requests": 2, "bytes": 2_000_000, "retries": 1, "rereads": 0}


@in_child
def test_bytes_set_the_count_of_failures_back() -> None:
    cuts: list[Fault | None] = [Cut(130_000)] * 22  # more than MAX_FAILURES, but each brings something
    with stored(cuts) as (store, _, _):
        assert store.read("a.tar", 0, 3_000_000) == CONTENT
        assert store.counters["retries"] == 22


@in_child
def test_every_passing_fault_is_one_retry() -> None:
    object_clients.CLIENT_OPTIONS["read_timeout"] = "1s"

    def assert_one_each(faults: Sequence[Fault]) -> None:
        with stored(faults) as (store, proxy, _):
            assert store.read("a.tar", 5, 200_000) == CONTENT[5:200_005], faults
            assert store.counters["retries"] == len(faults) == store.counters["requests"] - 1
            assert store.counters["bytes"] >= 200_000
            assert proxy.num_requests == store.counters["requests"]

    for faults in (
        [Unavailable()] * 4,
        [Unavailable(429), Unavailable(500), Unavailable(408)],
        [Short(honest=True)] * 2,
    ):
        assert_one_each(faults)
    with ThreadPoolExecutor(2) as threads:  # both wait for the limit
        stalls = [[Stall(100.0, after_bytes=70_000)], [Stall(100.0, before_headers=True)]]
        list(threads.map(assert_one_each, stalls))
    # a whole answer, after a look whether the file is empty
    with stored([WholeObject(), None, WholeObject()]) as (store, proxy, _):
        assert store.read("a.tar", 5, 200_000) == CONTENT[5:200_005]
        assert [one.method for one in proxy.requests] == ["GET", "HEAD", "GET", "GET"]
        assert store.counters["retries"] == 1


@in_child
def test_faults_that_do_not_pass_are_errors_that_say_what_to_do() -> None:
    def endless(fault: Fault) -> Callable[[Request], Fault]:
        return lambda request: fault

    with stored(endless(Unavailable())) as (store, proxy, _):
        found = raised(ShardError, lambda: store.read("a.tar", 0, 10))
        assert f"set/a.tar: cannot be read at byte 0 after {object_tries.MAX_FAILURES} attempts" in found
        assert "503 Service Unavailable, SlowDown" in found
        assert proxy.num_requests == object_tries.MAX_FAILURES
    with stored(endless(WholeObject())) as (store, proxy, _):
        assert "server does not serve ranges of files" in raised(ShardError, lambda: store.read("a.tar", 5, 10))
        assert [one.method for one in proxy.requests] == ["GET", "HEAD", "GET", "GET", "GET"]
    with stored(endless(Unavailable(403))) as (store, proxy, _):
        assert "permission denied (403 Forbidden, SlowDown). Check the cred" in raised(
            ShardError, lambda: store.read("a.tar", 5, 10)
        )
        assert proxy.num_requests == 1
    with stored(endless(Unavailable(400))) as (store, proxy, _):
        assert "400 Bad Request" in raised(ShardError, lambda: store.read("a.tar", 5, 10))
        assert proxy.num_requests == 1


@in_child
def test_a_web_server_that_knows_no_head_is_asked_for_a_byte() -> None:
    """Of 405 obstore says that the file is not there."""
    for status in (403, 405, 501):
        with stored() as (store, proxy, server):
            server.head_status = status
            assert store.size("a.tar") == len(CONTENT)
            assert [(one.method, one.range) for one in proxy.requests] == [("HEAD", None), ("GET", "bytes=0-0")]
            assert store.counters["requests"] == 2
            assert store.size("none") is None
    with stored(lambda _: Unavailable(403)) as (store, proxy, _):
        assert "looked up, permission denied (403" in raised(ShardError, lambda: store.size("a.tar"))
        assert proxy.num_requests == 2


@in_child
def test_a_server_that_does_not_say_which_bytes_it_sends_is_an_error_soon() -> None:
    with stored() as (store, proxy, server):
        server.names_ranges = False
        found = raised(ShardError, lambda: store.read("a.tar", 5, 10))
        assert "the server does not serve ranges of files" in found
        assert "Content-Range" in found
    with stored() as (store, proxy, server):
        server.names_length = False
        found = raised(ShardError, lambda: store.read("a.tar", 5, 10))
        assert "the server does not say how long its answers are, as where it compresses them" in found
        assert proxy.num_requests == 3


@in_child
def test_a_redirect_that_leads_nowhere_is_an_error_at_once() -> None:
    for where in ("file:///etc/hostname", "ftp://host/set/a.tar", "/set/a.tar"):
        with stored() as (store, proxy, server):
            store.read("a.tar", 0, 1)  # so it would be patient with this server
            server.redirects_to, before = where, proxy.num_requests
            told = raised(ShardError, functools.partial(store.read, "a.tar", 5, 10))
            assert (
                "set/a.tar: cannot be read at byte 5: the server redirects to where nothing can be fetched, or" in told
            )
            assert proxy.num_requests - before == (11 if where == "/set/a.tar" else 1)


@in_child
def test_nobody_there_is_an_error_soon_unless_somebody_was() -> None:
    with stored() as (once, proxy, _):
        never = ObjectStore(f"{proxy.url}/set")
        once.read("a.tar", 0, 1)
    for store in (never, once, pickle.loads(pickle.dumps(once))):  # a worker knows too
        found = raised(ShardError, functools.partial(store.read, "a.tar", 0, 1))
        assert "Connection refused" in found
        patience = object_tries.MAX_FAILURES_AT_FIRST if store is never else object_tries.MAX_FAILURES
        assert f"after {patience} attempts" in found


@in_child
def test_a_replaced_file_is_an_error_whenever_it_is_noticed() -> None:
    changed = "set/a.tar: object changed since it was first read"
    with stored() as (store, _, server):  # between two reads
        store.read("a.tar", 0, 10)
        server.objects["/set/a.tar"] = CONTENT[::-1]
        told = raised(ShardError, lambda: store.read("a.tar", 10, 10))
        assert f"{changed} (the server says so)" in told  # it was asked for this version alone
        assert changed in raised(ShardError, lambda: store.read_again("a.tar", 10, 10))
        assert changed in raised(ShardError, lambda: store.size("a.tar"))
        assert ObjectStore(f"{server.url}/set").read("a.tar", 0, 10) == CONTENT[::-1][:10]
        with contextlib.closing(store.read_ahead([("a.tar", 50, 10)])):
            assert changed in raised(ShardError, lambda: store.read("a.tar", 50, 10))

    def replacing(request: Request) -> Fault | None:  # between a cut and what follows
        if request.number == 0:
            return Cut(500_000)
        server.objects["/set/a.tar"] = CONTENT[:-1]
        return None

    with stored(replacing) as (store, _, server):
        assert changed in raised(ShardError, lambda: store.read("a.tar", 0, 2_000_000))


@in_child
def test_a_weak_etag_is_compared_and_not_asked_for() -> None:
    with stored() as (store, _, server):
        server.has_weak_etags = True
        assert store.read("a.tar", 0, 10) + store.read("a.tar", 10, 10) == CONTENT[:20]
        server.objects["/set/a.tar"] = CONTENT[::-1]
        found = raised(ShardError, lambda: store.read("a.tar", 10, 10))
        assert 'object changed since it was first read (it was 3000000 bytes, W/"' in found


@in_child
def test_bytes_that_nobody_asked_for_are_an_error_and_those_that_an_answer_lacks_are_asked_for_again() -> None:
    with stored() as (store, _, server):
        server.bytes_too_many = 20
        assert "20 bytes longer than asked for" in raised(ShardError, lambda: store.read("a.tar", 10, 10))

    def short_once(request: Request) -> None:
        server.bytes_too_many = -3 if request.number == 0 else 0

    with stored(short_once) as (store, proxy, server):
        assert store.read("a.tar", 10, 10) == CONTENT[10:20]
        assert ranges(proxy) == ["bytes=10-19", "bytes=17-19"]
        assert store.counters["retries"] == 1


@in_child
def test_a_message_is_no_longer_than_it_must_be() -> None:
    found = raised(MissingFile, lambda: ObjectStore("memory:///").read("long" * 300, 0, 1))
    assert 300 < found.count("long") <= 350, found  # the client says the name once more


@in_child
def test_what_this_store_wrote_itself_is_no_change(tmp_path: Path) -> None:
    with stored() as (store, _, _):
        store.read("a.tar", 0, 10)
        store.write("a.tar", b"new")
        assert store.read("a.tar", 0, 3) == b"new"
        (tmp_path / "file").write_bytes(CONTENT)
        store.upload(tmp_path / "file", "a.tar")
        assert store.read_whole("a.tar", at_most=len(CONTENT)) == CONTENT


@in_child
def test_neighbours_are_one_request_and_nothing_is_asked_for_twice() -> None:
    with stored() as (store, proxy, _):
        wanted = [("a.tar", 0, 1000), ("a.tar", 1000, 500), ("a.tar", 1_500_000, 10)]
        with contextlib.closing(store.read_ahead(wanted)), contextlib.closing(store.read_ahead(wanted[1:])):
            for name, offset, size in [*wanted, ("a.tar", 10, 20)]:
                assert store.read(name, offset, size) == CONTENT[offset : offset + size]
            assert sorted(map(str, ranges(proxy))) == ["bytes=0-1499", "bytes=1500000-1500009"]
        assert not store._ahead
        assert store.read("a.tar", 0, 10) == CONTENT[:10]  # what was read ahead is forgotten
        assert proxy.num_requests == 3


@in_child
def test_a_large_read_is_several_requests() -> None:
    object_store.coalesce = functools.partial(coalesce.coalesce, max_request=1_000_000)  # type: ignore[assignment]
    try:
        with stored() as (store, proxy, _):
            assert store.read("a.tar", 5, 2_999_000) == CONTENT[5:2_999_005]
            assert proxy.num_requests == 3
            with contextlib.closing(store.read_ahead([("a.tar", 0, 3_000_000)])):
                assert store.read("a.tar", 999_990, 1_500_000) == CONTENT[999_990:2_499_990]
                assert store.read("a.tar", 2_000_000, 10) == CONTENT[2_000_000:2_000_010]
            assert proxy.num_requests == 6
    finally:
        object_store.coalesce = coalesce.coalesce  # type: ignore[assignment]


@in_child
def test_bytes_are_read_again_from_their_source_though_they_were_read_ahead() -> None:
    with stored() as (store, proxy, _), contextlib.closing(store.read_ahead([("a.tar", 0, 1000)])):
        assert store.read("a.tar", 10, 20) == CONTENT[10:30]
        assert store.read_again("a.tar", 10, 20) == CONTENT[10:30]
        assert ranges(proxy) == ["bytes=0-999", "bytes=10-29"]
        assert store.counters["rereads"] == 1


@in_child
def test_closing_gives_up_what_is_under_way_and_a_reader_without_it_reads_alone() -> None:
    arrived = threading.Event()

    def stalling(request: Request) -> Fault | None:
        arrived.set()
        return Stall(100.0, after_bytes=65_536) if request.number == 0 else None

    with stored(stalling) as (store, proxy, _):
        ahead = store.read_ahead([("a.tar", 0, 1_000_000)])
        (fetch,) = store._ahead["a.tar"]
        assert arrived.wait(20)
        ahead.close()
        ahead.close()
        assert fetch.done.wait(20)
        assert isinstance(fetch.error, object_store.AbandonedError)
        assert proxy.num_requests == 1  # a silent server is not asked again for what nobody wants
        assert store.read("a.tar", 0, 100) == CONTENT[:100]


@in_child
def test_a_reader_that_is_wanted_no_more_ends_at_once() -> None:
    for before_headers in (False, True):
        arrived, found = threading.Event(), list[str]()

        def stalling(request: Request, before: bool = before_headers, arrived: threading.Event = arrived) -> Fault:
            arrived.set()
            return Stall(100.0, before_headers=before)

        with stored(stalling) as (store, proxy, _):

            def read(store: ObjectStore = store, gone: threading.Event = arrived, found: list[str] = found) -> None:
                with reading_while(lambda: not gone.is_set()):
                    found.append(raised(StreamError, lambda: store.read("a.tar", 0, 1_000_000)))

            reader = threading.Thread(target=read)
            reader.start()
            reader.join(20)
            assert ["its loader has ended" in one for one in found] == [True]
            assert proxy.num_requests == 1


@in_child
def test_a_store_goes_to_other_processes_without_what_is_under_way() -> None:
    with stored() as (store, _, _), contextlib.closing(store.read_ahead([("a.tar", 0, 1000)])):
        copy = pickle.loads(pickle.dumps(store))
        assert copy.counters["requests"] == 0
        assert not copy._ahead
        assert copy.read("a.tar", 3, 4) == CONTENT[3:7]


@in_child
def test_a_forked_child_gets_an_error_and_its_parent_goes_on() -> None:
    with stored() as (store, _, server):
        store.read("a.tar", 0, 1)
        fresh = open_store(f"{server.url}/set")
        actions: Sequence[Callable[[], Any]] = (
            lambda: store.read("a.tar", 0, 1),
            lambda: store.read_ahead([("a.tar", 0, 1)]),
            lambda: store.size("a.tar"),
            lambda: fresh.read_whole("a.tar", at_most=1),
        )
        reader, writer = os.pipe()
        pid = os.fork()
        if not pid:
            told = "none"
            with contextlib.suppress(BaseException):
                told = "|".join(raised(StreamError, action) for action in actions)
            os.write(writer, told.encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        os.waitpid(pid, 0)
        assert told.count('multiprocessing_context="forkserver"') == len(actions), told
        assert store.read("a.tar", 0, 5) == CONTENT[:5]


@in_child
def test_no_message_holds_a_secret() -> None:
    with stored([Unavailable(), *[Unavailable(403)] * 9]) as (_, proxy, _):
        host = proxy.url.removeprefix("http://")
        store = ObjectStore(f"http://user:hidden@{host}/set")
        os.environ |= {
            "AZURE_STORAGE_ACCOUNT_NAME": "account",
            "AZURE_STORAGE_SAS_KEY": "sv=2021&sig=hidden%2B",
            "AZURE_STORAGE_ENDPOINT": proxy.url,
            "AWS_ACCESS_KEY_ID": "hidden",
            "AWS_SECRET_ACCESS_KEY": "hidden",
            "AWS_ENDPOINT_URL": proxy.url,
            "AWS_REGION": "x",
        }
        for one in (store, ObjectStore("az://container/set"), ObjectStore("s3://bucket/set")):
            for action in (
                functools.partial(one.read, "a.tar", 0, 1),
                functools.partial(one.size, "a.tar"),
                functools.partial(one.write, "a.tar", b"x"),
            ):
                try:
                    action()
                except ShardError:
                    told = traceback.format_exc()
                assert "denied" in told
                assert "hidden" not in told, told
            assert "hidden" not in f"{one!r}{one.url}"
    assert "hidden" not in raised(UsageError, lambda: ObjectStore("http://host/set?signature=hidden"))
    assert "hidden" not in raised(UsageError, lambda: ObjectStore("s3://user:hidden@/set"))


@in_child
def test_a_store_in_memory_and_one_on_a_disk_are_listed_written_and_emptied(tmp_path: Path) -> None:
    for url in ("memory:///", f"file://{tmp_path}"):
        store = ObjectStore(url)
        store.write("set-000000.tar", CONTENT)
        store.write("index/part-00000.parquet", b"rows")
        assert store.list() == [("index/part-00000.parquet", 4), ("set-000000.tar", len(CONTENT))]
        assert store.list("index/") == store.list("index/pa") == [("index/part-00000.parquet", 4)]
        assert store.list("none") == []
        assert store.read("set-000000.tar", 100, 10) == CONTENT[100:110]
        store.delete("set-000000.tar")
        store.delete("set-000000.tar")
        assert store.size("set-000000.tar") is None


@in_child
def test_the_pauses_do_not_touch_the_global_random_numbers() -> None:
    random.seed(1)
    before = random.getstate()
    with stored([Unavailable()] * 3) as (store, _, _):
        store.read("a.tar", 0, 1)
    assert random.getstate() == before
