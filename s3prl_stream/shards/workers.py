"""Ordered work in several processes, with a bounded number of results in flight, and how it tells how far it is."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.context import SpawnContext, SpawnProcess
from multiprocessing.process import BaseProcess
from types import ModuleType
from typing import Any, TypeVar

from s3prl_stream.errors import StreamError, UsageError
from s3prl_stream.stores.at_once import in_order

Task = TypeVar("Task")
Result = TypeVar("Result")

Progress = Callable[[str, int, "int | None"], None]
"""Called with the step ("listing", "packing" ...), how many shards, tars or clips are done, of how many (None: not
known)."""

_IN_FLIGHT_PER_WORKER = 4
_WORKER_DIED = (
    "a worker process died, most likely killed for lack of memory. Use fewer workers; the same command goes on with "
    "what is not finished."
)


def tell_nobody(step: str, done: int, total: int | None) -> None:
    """The progress of a caller who does not ask for it."""


def check_num_workers(num_workers: int) -> None:
    """UsageError for a number of processes that cannot be."""
    if isinstance(num_workers, bool) or not isinstance(num_workers, int) or num_workers < 0:
        raise UsageError(f"num_workers is {num_workers!r}, expected a whole number, 0 or more.")


class Workers:
    """A pool of processes, or this process itself.

    Processes are spawned, so libraries with threads are safe in them; functions and tasks must be picklable.

    Args:
        num_workers: 0: everything runs here.
    """

    def __init__(self, num_workers: int) -> None:
        self.num_workers = num_workers
        self._in_flight = num_workers * _IN_FLIGHT_PER_WORKER
        self._pool: ProcessPoolExecutor | None = None
        if num_workers > 0:
            context = _Context()
            self._counter = context.Value("q", 0)
            self._pool = ProcessPoolExecutor(
                num_workers, mp_context=context, initializer=_begin, initargs=(self._counter,)
            )

    def __enter__(self) -> Workers:
        return self

    def __exit__(self, *_: object) -> None:
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)

    @property
    def counted(self) -> int:
        """How often `count` was called in all workers so far; only where there are some."""
        return int(self._counter.value)

    def submit(self, function: Callable[[Task], Result], task: Task) -> Future[Result]:
        """Begin a task in a worker process; only where there are some.

        Raises:
            StreamError: a worker process died.
        """
        assert self._pool is not None
        try:
            return self._pool.submit(function, task)
        except BrokenProcessPool:
            raise StreamError(_WORKER_DIED) from None

    def wait(self, futures: Iterable[Future[Result]], seconds: float) -> list[Result]:
        """Results of those that are done, after `seconds` at most.

        Raises:
            StreamError: a worker process died.
        """
        done = wait(futures, timeout=seconds, return_when=FIRST_COMPLETED).done
        try:
            return [future.result() for future in done]
        except BrokenProcessPool:
            raise StreamError(_WORKER_DIED) from None

    def map(self, function: Callable[[Task], Result], tasks: Iterable[Task]) -> Iterator[Result]:
        """Results in the order of the tasks, whichever worker is done first.

        Raises:
            StreamError: a worker process died.
        """
        pool = self._pool
        if pool is None:
            yield from map(function, tasks)
            return
        try:
            yield from in_order(lambda task: pool.submit(function, task), tasks, self._in_flight)
        except BrokenProcessPool:
            raise StreamError(_WORKER_DIED) from None


@contextlib.contextmanager
def without_script() -> Iterator[None]:
    """Processes that are started inside do not run the user's script again; what it defines is unknown to them."""
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


class _Process(SpawnProcess):
    """A spawned process that does not run the user's script again.

    multiprocessing would, to find functions of that script; ours are in modules. So a script needs no
    `if __name__ == "__main__"` around a call of `pack`.
    """

    @staticmethod
    def _Popen(process: BaseProcess) -> Any:  # noqa: N802  # multiprocessing's name
        with without_script():
            return SpawnProcess._Popen(process)


class _Context(SpawnContext):
    Process = _Process


_counter: Any = None


def count() -> None:
    """In a worker process: one more of whatever its tasks count."""
    with _counter.get_lock():
        _counter.value += 1


def _begin(counter: Any) -> None:
    global _counter
    _counter = counter
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # ends it without a page of traceback; the parent says the one line
    end_with_parent()


def end_with_parent(*_: object) -> None:
    """Called once in a worker process, by whatever initializes it: from now on it ends when its parent was killed.

    A pool's worker would wait for tasks for ever: it holds the other end of its own queue. A loader's worker of a fork
    server would too: torch looks at the number of its parent, the server, which lives as long as its children.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def chunks(items: list[Any], size: int) -> Iterator[list[Any]]:
    """Consecutive pieces of at most `size` items."""
    return (items[start : start + size] for start in range(0, len(items), size))
