"""Requests that are under way in a pool of threads, and what has come of them."""

from __future__ import annotations

import concurrent.futures.thread
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from s3prl_stream.errors import StreamError
from s3prl_stream.stores.wanted import still_wanted

IO_THREADS = 16
"""Requests under way in a process, over all its sets."""

_POLL_SECONDS = 0.2


class Fetch:
    """One request of the pool: bytes from `start` to `stop`, or to the end of a file of `at_most` bytes."""

    def __init__(self, start: int, stop: int | None, at_most: int | None = None) -> None:
        self.start, self.stop, self.at_most = start, stop, at_most
        self.users = 0
        self.done = threading.Event()
        self.chunks: list[bytes] = []
        self.error: Exception | None = None

    def covers(self, at: int) -> bool:
        """Is this byte of the file among those that are asked for?"""
        return self.stop is not None and self.start <= at < self.stop

    def is_wanted(self) -> bool:
        """False: give it up. Also once the interpreter ends, which waits for the pool."""
        return self.users > 0 and running()

    def parts(self, start: int, stop: int | None) -> Iterable[memoryview]:
        """Its bytes between two offsets of the file, once they are here.

        Raises:
            AbandonedError: it was given up before they were.
            StreamError: nobody wants them any more, or they cannot be read.
        """
        while not self.done.wait(_POLL_SECONDS):
            if not (still_wanted() and running()):
                raise StreamError("reading was given up, its loader has ended")
        if self.error is not None:
            raise self.error
        return self._between(start, stop)

    def _between(self, start: int, stop: int | None) -> Iterator[memoryview]:
        at = self.start
        for chunk in self.chunks:
            if stop is not None and at >= stop:
                return
            if at + len(chunk) > start:
                yield memoryview(chunk)[max(start - at, 0) : None if stop is None else stop - at]
            at += len(chunk)


def covering(fetches: Sequence[Fetch], start: int, stop: int) -> list[Fetch] | None:
    """The fetches that together hold these bytes; None where one is missing."""
    found = []
    while start < stop:
        fetch = next((one for one in fetches if one.covers(start)), None)
        if fetch is None or fetch.stop is None:
            return None
        found.append(fetch)
        start = fetch.stop
    return found


def running() -> bool:
    """False once the interpreter ends: it waits for the pool, which should not wait for a silent server."""
    return not getattr(concurrent.futures.thread, "_shutdown", False)


_threads: ThreadPoolExecutor | None = None
_threads_lock = threading.Lock()


def pool() -> ThreadPoolExecutor:
    """The threads of this process that wait for answers. A forked child never gets here."""
    global _threads
    with _threads_lock:
        if _threads is None:
            _threads = ThreadPoolExecutor(IO_THREADS, thread_name_prefix="store")
        return _threads
