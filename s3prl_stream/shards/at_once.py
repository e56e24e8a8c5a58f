"""Several small requests to a store under way at once: its answers take time, and one after the other they add up."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from s3prl_stream.shards.wanted import reading_while

MOST_AT_ONCE = 8

Item = TypeVar("Item")
Result = TypeVar("Result")


def at_once(function: Callable[[Item], Result], items: Iterable[Item], *, is_remote: bool) -> Generator[Result]:
    """`function` of each item, in order; an error comes where it would have come one by one.

    Args:
        function: reads or writes something. Threads call it.
        items: as few as there are threads are taken ahead.
        is_remote: False: a disk answers at once, so no threads, and nothing ahead.
    """
    if not is_remote:
        yield from map(function, items)
        return
    wanted = True

    def call(item: Item) -> Result:
        with reading_while(lambda: wanted):
            return function(item)

    under_way: deque[Future[Result]] = deque()
    threads = ThreadPoolExecutor(MOST_AT_ONCE, "at-once")
    try:
        for item in items:
            # with what the caller's thread waits for: who ends it ends these, too
            under_way.append(threads.submit(contextvars.copy_context().run, call, item))
            if len(under_way) >= MOST_AT_ONCE:
                yield under_way.popleft().result()
        while under_way:
            yield under_way.popleft().result()
    finally:
        wanted = False
        threads.shutdown(cancel_futures=True)
