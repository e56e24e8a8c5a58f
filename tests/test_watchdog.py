"""A loader that hangs says where, with stacks, and stops; one whose consumer is slow does not."""

from __future__ import annotations

import gc
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch.utils.data
from streams import RATE, memory

import s3prl_stream as ss
from s3prl_stream.errors import StreamError, StuckLoader, UsageError
from s3prl_stream.one_thread import OneThread, result_within
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.stage import Source, Stage
from s3prl_stream.sample import Sample
from s3prl_stream.shards.member import Rows
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.timing import Place
from s3prl_stream.watchdog import Watchdog

HANGS_AT = "clip0031"
TEST_IS_OVER = threading.Event()


@chained("hangs_for_watchdog")
class Hangs(Stage):
    """A stage that waits at one clip for what does not come."""

    def emit(self, sample: Sample) -> Iterator[Sample]:
        if sample["key"] == HANGS_AT:
            TEST_IS_OVER.wait()
        yield sample


def chain(**settings: Any) -> Source:
    stream = ss.ShardStream(memory([1.0] * 60), epochs=1, max_batch_seconds=10.0, shuffle=False, **settings)
    return Hangs()(stream.load_audio(sample_rate=RATE)).norm_wav()


def patience(workers: int, least: float) -> float:
    """So many seconds, or ten times what a whole loader takes here and now: on a busy machine processes begin late."""
    stream = ss.ShardStream(memory([1.0] * 9), epochs=1, max_batch_seconds=10.0).load_audio(sample_rate=RATE)
    began = time.monotonic()
    list(ss.Loader(stream, num_workers=workers))
    return max(least, float(round(10 * (time.monotonic() - began))))


@pytest.fixture(autouse=True)
def _threads_end_with_their_test() -> Iterator[None]:
    before = set(threading.enumerate())  # a loader that another test has left in the middle ends with the session
    yield
    TEST_IS_OVER.set()
    for thread in set(threading.enumerate()) - before:
        if thread.name in ("loader", "planner"):
            thread.join(60)
            assert not thread.is_alive()
    TEST_IS_OVER.clear()


@pytest.fixture
def _torch_waits_less_for_workers(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It gives a worker that does not end 5 s before it ends it; a cycle of an error's frames holds the last loader."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.2)
    yield
    gc.collect()


@pytest.mark.usefixtures("_torch_waits_less_for_workers")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_stage_that_hangs_is_named_with_its_clip(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    batch = next(b for b in range(9) if HANGS_AT in [row["key"] for row in ss.Loader(chain()).which(b)])
    seconds = patience(workers, 1.0)
    loader = ss.Loader(chain(), num_workers=workers, stuck_after_seconds=seconds)
    got: list[int] = []

    def take_all() -> None:
        got.extend(one["batch_index"] for one in loader)

    with pytest.raises(StreamError) as caught:
        take_all()
    assert got == list(range(batch))
    assert isinstance(caught.value, StuckLoader)
    message = str(caught.value)
    assert f"no batch came within {seconds:g} s" in message
    assert f"is in 'hangs_for_watchdog' of batch {batch}, at clip '{HANGS_AT}'" in message
    assert "\n" not in message
    stacks = capfd.readouterr().err
    assert stacks.count("in emit") == 1  # the frame that hangs, of one thread of one process
    assert "test_watchdog.py" in stacks
    assert stacks.count("s3prl_stream: ") == 1 + workers
    if workers:
        assert "has nothing to do" in message  # the other one: its batches are built


def test_what_is_told_of_each_worker(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody is signalled that is not a living worker: number 0 would be every process of the group."""
    signalled: list[int] = []
    kill = os.kill

    def noted(process: int, number: int) -> None:
        if number == signal.SIGUSR2:
            signalled.append(process)
        else:  # torch ends the workers of an older loader when it is collected, which may be now
            kill(process, number)

    monkeypatch.setattr(os, "kill", noted)
    dog = Watchdog(Place(["read", "mask"]), 2)
    dog.numbers[1] = torch.tensor([2**30, 4, 1, 0])  # no process has this number
    dog.dump()
    assert signalled == []
    assert dog.describe([]) == (
        f"worker 0 has not begun (it imports, or the chain is on its way to it); worker 1 (process {2**30}) is dead"
    )
    batch: Any = SimpleNamespace(number=0, items=[SimpleNamespace(key="a"), SimpleNamespace(key="b")])
    assert [dog._doing([1, 0, 1, slot], {0: batch}) for slot in (1, -1)] == [
        "is in 'mask' of batch 0, at clip 'b'",
        "is in 'mask' of batch 0",
    ]


SCRIPT = """
import sys
sys.path[:0] = {path!r}
import s3prl_stream as ss
from test_watchdog import chain

if __name__ == "__main__":
    try:
        how = dict(num_workers={workers}, stuck_after_seconds={seconds}, multiprocessing_context={method!r})
        list(ss.Loader(chain(), **how))
    except ss.StreamError as error:
        print(error)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "forkserver"), (1, "spawn")])
def test_a_process_whose_loader_hangs_ends(workers: int, method: str | None, tmp_path: Path) -> None:
    """By itself, although a thread of it hangs; the stacks of workers of any start method are on its stderr."""
    seconds = 2 if workers == 0 else 20  # a worker that is spawned imports torch first
    path = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    (tmp_path / "train.py").write_text(SCRIPT.format(path=path, workers=workers, seconds=seconds, method=method))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "train.py")], capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "is in 'hangs_for_watchdog'" in done.stdout
    assert HANGS_AT in done.stdout
    assert done.stderr.count("in emit") == 1
    assert done.stderr.count("s3prl_stream: stacks of process") == workers


@pytest.mark.slow
def test_a_worker_of_a_fork_server_ends_with_a_process_that_was_killed(tmp_path: Path) -> None:
    """Torch looks whether its parent lives, and that is the server, which lives as long as its children."""
    script = """
import multiprocessing, sys
sys.path[:0] = {path!r}
import s3prl_stream as ss
from streams import RATE, memory

if __name__ == "__main__":
    stream = ss.ShardStream(memory([1.0] * 60), max_batch_seconds=10.0).load_audio(sample_rate=RATE)
    batches = iter(ss.Loader(stream, num_workers=1, multiprocessing_context="forkserver"))
    next(batches)
    print(*(one.pid for one in multiprocessing.active_children()), flush=True)
    sys.stdin.read()
"""
    path = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    (tmp_path / "train.py").write_text(script.format(path=path))
    words = [sys.executable, str(tmp_path / "train.py")]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        (worker,) = map(int, process.stdout.readline().split())
        process.kill()
    for _ in range(600):
        if not _lives(worker):
            return
        time.sleep(0.1)
    os.kill(worker, signal.SIGKILL)
    pytest.fail("the worker outlived its process by a minute")


def _lives(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


class HangingIndex(MemoryShards):
    """A set whose index hangs from the second block on."""

    def rows(self, shard: int) -> Rows:
        if shard >= 2:
            TEST_IS_OVER.wait()
        return super().rows(shard)


@pytest.mark.usefixtures("_torch_waits_less_for_workers")
@pytest.mark.parametrize("workers", [0, 1])
def test_a_plan_that_hangs_is_told(workers: int, capfd: pytest.CaptureFixture[str]) -> None:
    from streams import clips

    data = HangingIndex(clips([1.0] * 60), samples_per_shard=16)
    stream = ss.ShardStream(data, epochs=1, max_batch_seconds=10.0, shuffle=False, block_samples=32)
    loader = ss.Loader(
        stream.load_audio(sample_rate=RATE), num_workers=workers, stuck_after_seconds=patience(workers, 0.5)
    )
    got: list[Any] = []
    with pytest.raises(StuckLoader, match="planning block 1 of epoch 0 has not ended"):
        got.extend(iter(loader))
    assert "in rows" in capfd.readouterr().err


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_slow_consumer_is_no_hang(workers: int) -> None:
    limit = patience(workers, 1.0)
    stream = ss.ShardStream(memory([1.0] * 60), epochs=1, max_batch_seconds=20.0).load_audio(sample_rate=RATE)
    batches = iter(ss.Loader(stream, num_workers=workers, stuck_after_seconds=limit))
    assert next(batches)["batch_index"] == 0
    threading.Event().wait(limit * 1.2)
    assert [batch["batch_index"] for batch in batches] == [1, 2]


def test_the_limit_is_checked() -> None:
    for wrong in (0, -1.0, float("nan")):
        with pytest.raises(UsageError, match="stuck_after_seconds"):
            ss.Loader(chain(), stuck_after_seconds=wrong)


def test_calls_of_one_thread_come_in_order_and_bring_their_errors() -> None:
    order: list[int] = []
    with OneThread("test") as thread:
        futures = [thread.submit(order.append, number) for number in range(9)]
        assert [result_within(future, 60.0, "it") for future in futures] == [None] * 9
        assert order == list(range(9))

        def fails() -> None:
            raise TimeoutError("of a socket")

        with pytest.raises(TimeoutError, match="of a socket"):  # the call's own, not the limit
            result_within(thread.submit(fails), 60.0, "it")


def test_an_error_goes_with_the_last_who_holds_it() -> None:
    """No frame of ours holds it in a ring: what its frames hold, such as the tensors of a batch, would stay as long."""

    class LostError(Exception):
        pass

    def fails() -> None:
        raise LostError

    gc.collect()
    gc.disable()
    try:
        with OneThread("test") as thread:
            try:
                result_within(thread.submit(fails), 60.0, "it")
            except LostError as error:
                alive = weakref.ref(error)
        assert alive() is None
    finally:
        gc.enable()


def test_what_has_not_begun_is_dropped_at_the_end() -> None:
    may_go_on, begun, done = threading.Event(), threading.Event(), []

    def first() -> None:
        begun.set()
        may_go_on.wait()
        done.append("first")

    with OneThread("test") as thread:
        thread.submit(first)
        thread.submit(done.append, "second")
        begun.wait()
        threading.Timer(0.05, may_go_on.set).start()
    assert done == ["first"]
    assert not thread._thread.is_alive()
