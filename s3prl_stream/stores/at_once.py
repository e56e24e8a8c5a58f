"""Several small requests to a store under way at once: its answers take time, and one after the other they add up."""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

from s3prl_stream.stores.wanted import reading_while

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

    def begin(item: Item) -> Future[Result]:
        # with what the caller's thread waits for: who ends it ends these, too
        return threads.submit(contextvars.copy_context().run, call, item)

    threads = ThreadPoolExecutor(MOST_AT_ONCE, "at-once")
    try:
        yield from in_order(begin, items, MOST_AT_ONCE)
    finally:
        wanted = False
        threads.shutdown(cancel_futures=True)


def in_order(begin: Callable[[Item], Future[Result]], items: Iterable[Item], most: int) -> Iterator[Result]:
    """Results in the order of the items, of which `most` are begun before the first one's result is waited for."""
    under_way: deque[Future[Result]] = deque()
    for item in items:
        under_way.append(begin(item))
        if len(under_way) >= most:
            yield under_way.popleft().result()
    while under_way:
        yield under_way.popleft().result()
