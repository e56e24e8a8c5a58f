"""Iterators that a program still holds when it ends are closed while the interpreter is whole.

Python takes its modules apart before it closes the generators that live in them: what stands in their `finally` then
finds None in place of the names of its file, and a program that did nothing wrong ends with tracebacks.
"""

from __future__ import annotations

import atexit
import contextlib
import weakref
from collections.abc import Generator
from typing import Any, TypeVar

Item = TypeVar("Item")

_open: weakref.WeakSet[Generator[Any]] = weakref.WeakSet()


def closed_at_exit(generator: Generator[Item]) -> Generator[Item]:
    """The generator itself, which will be closed at the latest when the program ends."""
    _open.add(generator)
    return generator


@atexit.register
def _close_all() -> None:
    for generator in list(_open):
        with contextlib.suppress(ValueError):  # another thread is inside
            generator.close()
