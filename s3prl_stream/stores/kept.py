"""Things that are costly to open or to read, kept in each process: the last ones that were asked for."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

Key = TypeVar("Key")
Value = TypeVar("Value")


class Kept(Generic[Key, Value]):
    """Values by key, made when they are asked for; of more than `most`, those go that nobody has asked for longest.

    Safe from several threads. A forked child begins with none, and so does what comes out of a pickle.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> int:
        return self._most

    def __setstate__(self, most: int) -> None:
        self._most = most
        self._begin()

    def __contains__(self, key: Key) -> bool:
        with self._own_lock():
            return key in self._values

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """The value of a key; `make` makes it where it is not kept."""
        with self.using(key, make) as value:
            return value

    @contextmanager
    def using(self, key: Key, make: Callable[[], Value]) -> Iterator[Value]:
        """The same; inside, no other thread gets any value."""
        with self._own_lock():
            if key not in self._values:
                while len(self._values) >= self._most:
                    self._values.popitem(last=False)
                self._values[key] = make()
            self._values.move_to_end(key)
            yield self._values[key]

    def forget(self, key: Key) -> None:
        """The next time it is made anew."""
        with self._own_lock():
            self._values.pop(key, None)

    def _own_lock(self) -> threading.Lock:
        if self._pid != os.getpid():  # a forked child: the lock may be held by a thread that is not here
            self._begin()
        return self._lock
