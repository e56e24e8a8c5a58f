"""A loader over an object store: the same batches as from a disk, requests ahead of need, and none after its end."""

from __future__ import annotations

import itertools
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest
from apart import in_child
from chaos.ranged_server import served
from streams import delivered

import s3prl_stream as ss
from s3prl_stream.chaos import Fault, Request, Stall
from s3prl_stream.errors import ChainError, StateError, UsageError
from s3prl_stream.pipes.stage import Source
from s3prl_stream.shards import read_ahead


def chain(data: Any, **settings: Any) -> Source:
    stream = ss.ShardStream(data, **{"epochs": 1, "max_batch_seconds": 3.0, "run": 4, **settings})
    return stream.load_audio(sample_rate=16_000).add_noise(snr=(3, 20), prob=0.5)


@in_child
def test_batches_are_those_of_the_local_set(whole: Path) -> None:
    for settings, workers_of_each in (({"epochs": 2, "chunk_seconds": 0.3}, (0, 2)), ({"shuffle": False}, (0,))):
        expected = [delivered(batch) for batch in ss.Loader(chain(whole, **settings))]
        with served(whole) as (url, _, _):
            for workers in workers_of_each:
                loader = ss.Loader(chain(url, **settings), num_workers=workers)
                assert [delivered(batch) for batch in loader] == expected
            first = ss.Loader(chain(url, **settings), rank=1, world_size=2)
            assert [delivered(batch) for batch in first if batch["key"]] == expected[1::2]


@in_child
def test_the_default_run_is_one_request_in_a_store_and_one_clip_on_a_disk(whole: Path) -> None:
    with served(whole) as (url, _, _):
        for data, run in ((whole, 1), (url, 4)):
            assert ss.ShardStream(data).settings.run == run
            assert ss.ShardStream(data, run=2).settings.run == 2
        state = ss.Loader(chain(whole, run=None)).state_dict()
        with pytest.raises(StateError, match="run was 1, is 4"):
            ss.Loader(chain(url, run=None)).load_state_dict(state)
        ss.Loader(chain(url, run=1)).load_state_dict(state)


@in_child
def test_samples_and_plain_torch_loaders_read_it_too(whole: Path) -> None:
    keys = [sample["key"] for sample in chain(whole)]
    with served(whole) as (url, proxy, _):
        assert [sample["key"] for sample in chain(url)] == keys
        assert 0 < sum(one.path.endswith(".tar") for one in proxy.requests) < len(keys)  # neighbours together


@in_child
def test_no_byte_is_asked_for_twice_and_every_retry_is_seen(whole: Path) -> None:
    with served(whole) as (url, proxy, _):
        shards = ss.open_shards(url)
        list(ss.Loader(chain(shards)))
        read = sorted(
            (one.path, *map(int, str(one.range).removeprefix("bytes=").split("-")))
            for one in proxy.requests
            if one.path.endswith(".tar")
        )
        for (path, _, last), (next_path, first, _) in itertools.pairwise(read):
            assert next_path != path or first > last
        counters = shards.members[0].store.counters  # type: ignore[attr-defined]
        assert counters["requests"] == proxy.num_requests
        assert counters["retries"] == counters["rereads"] == 0


@in_child
def test_requests_of_coming_batches_are_under_way_before_they_are_built(whole: Path) -> None:
    """The first batch waits until requests of others have come, which they only do if they are made ahead."""
    for workers in (0, 1):
        enough = threading.Event()
        tars = 0

        def wait_for_others(request: Request, enough: threading.Event = enough) -> Fault | None:
            nonlocal tars
            tars += request.path.endswith(".tar")
            if tars > 6:
                enough.set()
            return None

        with served(whole, wait_for_others) as (url, _, _):
            batches = iter(ss.Loader(chain(url, max_batch_size=2, run=1), num_workers=workers, prefetch=1))
            next(batches)
            assert enough.wait(20)
            del batches


@in_child
def test_the_budget_bounds_what_is_under_way(whole: Path) -> None:
    with served(whole) as (url, _, _):
        shards = ss.open_shards(url)
        store = shards.members[0].tars  # type: ignore[attr-defined]
        stream = ss.ShardStream(shards, epochs=1, max_batch_size=2)
        ahead = read_ahead.ReadAhead(shards, budget_bytes=100_000)
        most = 0
        for task in read_ahead.with_coming(stream.planned(), 1, 8):
            with ahead.reading(task):
                under_way = [fetch.stop - fetch.start for fetches in store._ahead.values() for fetch in fetches]
                assert sum(under_way) <= 100_000
                most = max(most, len(under_way))
        assert most > 2
        assert not store._ahead


@in_child
def test_an_abandoned_loader_ends_at_once_though_its_store_is_silent(whole: Path) -> None:
    settings = {"max_batch_size": 2, "run": 1}
    first = {(row["shard"], row["offset"]) for row in ss.Loader(chain(whole, **settings)).which(0)}
    silent = threading.Event()

    def silent_later(request: Request) -> Fault | None:
        """Whatever is not for the first batch gets no answer."""
        offset = int(str(request.range).removeprefix("bytes=").split("-")[0]) if request.range else 0
        if not request.path.endswith(".tar") or (request.path.rpartition("/")[2], offset) in first:
            return None
        silent.set()
        return Stall(1000.0, before_headers=True)

    before = {thread.name for thread in threading.enumerate()}
    with served(whole, silent_later) as (url, _, _):
        shards = ss.open_shards(url)
        batches = iter(ss.Loader(chain(shards, **settings)))
        next(batches)
        assert silent.wait(20)
        batches.close()  # type: ignore[attr-defined]
        assert not shards.members[0].tars._ahead  # type: ignore[attr-defined]
    last = "/set/set-000003.tar.parquet"
    with served(whole, lambda request: Stall(1000.0) if request.path == last else None) as (url, _, _):
        shards = ss.open_shards(url)  # the last block's index never comes
        batches = iter(ss.Loader(chain(shards, shuffle=False, block_samples=12, chunk_seconds=0.1, max_batch_size=1)))
        next(batches)
        batches.close()  # type: ignore[attr-defined]
    left = {thread.name for thread in threading.enumerate()} - before
    assert not any(name.startswith(("loader", "planner")) for name in left), left


@in_child
def test_workers_do_not_fork_where_a_store_is_used(whole: Path) -> None:
    with served(whole) as (url, _, _):
        with pytest.raises(UsageError, match="a set lies in an object store"):
            ss.Loader(chain(url), num_workers=1, multiprocessing_context="fork")
        with pytest.raises(UsageError, match="this process has used an object store"):
            ss.Loader(chain(whole), num_workers=1, multiprocessing_context="fork")
        assert len(list(ss.Loader(chain(whole), num_workers=1))) > 1
        unsendable = chain(url)
        unsendable.function = lambda: None  # type: ignore[attr-defined]
        with pytest.raises(ChainError, match="cannot be sent to a forkserver worker"):
            ss.Loader(unsendable, num_workers=1)


WITHOUT_GUARD = """
    import s3prl_stream as ss
    print("begun")
    stream = ss.ShardStream("URL", epochs=1, max_batch_seconds=3.0).load_audio(sample_rate=16_000)
    print(sum(len(batch["key"]) for batch in ss.Loader(stream, num_workers=2)))
"""
WITH_A_STAGE = """
    import s3prl_stream as ss
    from s3prl_stream.pipes.stage import Stage

    class Counted(Stage):
        def emit(self, sample):
            yield {**sample, "clips": 1}

    if __name__ == "__main__":
        print("begun")
        stream = ss.ShardStream("URL", epochs=1, max_batch_seconds=3.0).load_audio(sample_rate=16_000)
        print(sum(int(batch["clips"].sum()) for batch in ss.Loader(Counted()(stream), num_workers=2)))
"""


@pytest.mark.slow
@pytest.mark.parametrize("program", [WITHOUT_GUARD, WITH_A_STAGE])
def test_a_script_needs_no_main_guard_unless_workers_need_what_is_in_it(
    program: str, whole: Path, tmp_path: Path
) -> None:
    with served(whole) as (url, _, _):
        script = tmp_path / "script.py"
        script.write_text(textwrap.dedent(program.replace("URL", url)))
        done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    assert (done.stdout, done.stderr) == ("begun\n24\n", "")
