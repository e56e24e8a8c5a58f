"""Whether anybody is still interested in what a thread reads: who waits for a store can be told to stop."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar

_wanted: ContextVar[Callable[[], bool]] = ContextVar("wanted")


@contextlib.contextmanager
def reading_while(wanted: Callable[[], bool]) -> Iterator[None]:
    """What this thread reads inside waits for a store only as long as `wanted()`; then it ends with a StreamError.

    One inside another: as long as both say so.
    """
    outer = _wanted.get(None)
    before = _wanted.set(wanted if outer is None else lambda: wanted() and outer())
    try:
        yield
    finally:
        _wanted.reset(before)


def still_wanted() -> bool:
    """False if nobody is interested any more in what this thread reads."""
    wanted = _wanted.get(None)
    return wanted is None or wanted()
