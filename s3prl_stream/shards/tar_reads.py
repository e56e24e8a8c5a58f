"""How a tar is read: here and there in pieces, ahead by its offsets, or once from front to back."""

from __future__ import annotations

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterator

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import DamagedFile, SampleError, ShardError
from s3prl_stream.shards.index_files import MAX_OFFSETS_BYTES
from s3prl_stream.shards.layout import offsets_name
from s3prl_stream.stores.coalesce import coalesce
from s3prl_stream.stores.store import Ahead, Store

LOCAL_WINDOW_BYTES = 16 << 10
REMOTE_WINDOW_BYTES = 32 << 10
_WINDOWS = 4
_OFFSETS_AHEAD = 64
RANGE_BYTES = 8 << 20
"""One read of what is read whole: few requests to an object store, little memory."""

More = Callable[[], bytes]
"""The next piece of a tar, of any size; b"" at its end."""


class Windows:
    """Positioned reads with the last few pieces kept: a header, the audio behind it and the next header are one."""

    def __init__(self, store: Store, name: str, num_bytes: int) -> None:
        self._store, self._name, self._size = store, name, num_bytes
        self._window_bytes = REMOTE_WINDOW_BYTES if store.is_remote else LOCAL_WINDOW_BYTES
        self._windows: deque[tuple[int, bytes]] = deque(maxlen=_WINDOWS)

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer where the file ends."""
        size = min(size, self._size - offset)
        if size <= 0:
            return b""
        for start, data in reversed(self._windows):
            if start <= offset and offset + size <= start + len(data):
                return data[offset - start : offset - start + size]
        data = self._store.read(self._name, offset, max(size, min(self._window_bytes, self._size - offset)))
        if len(data) <= 16 * self._window_bytes:  # a large body is asked for once
            self._windows.append((offset, data))
        return data[:size]


class FrontToBack:
    """What comes piece by piece, as if it could be read anywhere: forward, or back to `keep_from`."""

    def __init__(self, more: More) -> None:
        self.keep_from = 0
        """What lies before this byte will not be asked for any more."""
        self._more = more
        self._kept = bytearray()
        self._start = 0

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer where it ends."""
        while self._start + len(self._kept) < offset + size:
            new = self._more()
            if not new:
                break
            self._kept += new
            done = min(self.keep_from - self._start, len(self._kept))
            if 2 * done > len(self._kept):  # seldom, for the rest is moved
                del self._kept[:done]
                self._start += done
        assert offset >= self._start, f"a step back to {offset}, kept from {self._start}"
        with memoryview(self._kept) as kept:
            return bytes(kept[offset - self._start : offset - self._start + size])


class HashedTar(FrontToBack):
    """A file read once in ranges of 8 MiB and hashed on the way.

    Where a range cannot be read, what is asked for inside it is tried by itself: a bad disk sector costs its samples.

    Args:
        store, name: the file.
        num_bytes: where to stop.
    """

    def __init__(self, store: Store, name: str, num_bytes: int) -> None:
        self._store, self._name = store, name
        self._sha256, self._unreadable = hashlib.sha256(), list[tuple[int, int]]()
        self._ranges = ranges = _hashed_ranges(store, name, num_bytes, self._sha256.update, self._unreadable)
        super().__init__(lambda: next(ranges, b""))

    def read(self, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer where the file ends.

        Raises:
            SampleError(reason="unreadable"): the disk cannot read them.
            ShardError: the store does not answer.
        """
        data = super().read(offset, size)
        if any(start < offset + size and offset < stop for start, stop in self._unreadable):
            try:
                return self._store.read(self._name, offset, size)
            except DamagedFile as error:
                raise SampleError(str(error), reason="unreadable") from None
        return data

    def finish(self) -> str | None:
        """Read the rest; the SHA-256 of the whole, None if a part of it could not be read."""
        for _ in self._ranges:
            pass
        return None if self._unreadable else self._sha256.hexdigest()


def _hashed_ranges(
    store: Store, name: str, num_bytes: int, add: Callable[[bytes], object], unreadable: list[tuple[int, int]]
) -> Iterator[bytes]:
    """One after the other, each added to a hash. (No method: a tar that knows itself keeps its file open for long.)"""
    for start in range(0, num_bytes, RANGE_BYTES):
        size = min(RANGE_BYTES, num_bytes - start)
        try:
            data = store.read(name, start, size)
        except DamagedFile:
            unreadable.append((start, start + size))
            data = bytes(size)  # keeps the places of what follows
        add(data)
        yield data


class FoundOffsets:
    """The `.tar.idx` beside a tar: byte offsets of its samples, and an end (of the file, or of the last sample).

    They are a hint: they say what to fetch ahead from an object store, and are compared with what the headers say.
    """

    def __init__(self, store: Store, name: str, num_bytes: int) -> None:
        self._store, self._name = store, name
        self._offsets: npt.NDArray[np.int64] | None = None
        self._is_there = False
        self._ahead: list[Ahead] = []
        self._fetched_to = 0
        with contextlib.suppress(ShardError):
            content = store.read_whole(offsets_name(name), at_most=MAX_OFFSETS_BYTES)
            self._is_there = True
            self._offsets = _sound_offsets(content, num_bytes)

    def fetch_ahead(self, position: int) -> None:
        """Begin to fetch the surroundings of the next samples, where the tar lies in an object store."""
        if self._offsets is None or not self._store.is_remote or position < self._fetched_to:
            return
        first = int(np.searchsorted(self._offsets, position))
        some = self._offsets[first : first + _OFFSETS_AHEAD]
        if not len(some):
            return
        self._close()
        # a window begins with the small files before the next sample, or with that sample
        around = [(max(int(at) - REMOTE_WINDOW_BYTES, 0), int(at) + REMOTE_WINDOW_BYTES) for at in some]
        for start, stop in coalesce(around, max_gap=0):  # a store would read the sound between two headers as well
            self._ahead.append(self._store.read_ahead([(self._name, start, stop - start)]))
        self._fetched_to = int(some[-1])

    def verdict(self, starts: list[int]) -> str:
        """Whether the offsets are those of the samples that were found."""
        self._close()
        if not self._is_there:
            return "none"
        if self._offsets is None:
            return "wrong"
        return "used" if np.isin(self._offsets, np.array(starts, dtype=np.int64)).all() else "wrong"

    def _close(self) -> None:
        while self._ahead:
            self._ahead.pop().close()


def _sound_offsets(content: bytes, num_bytes: int) -> npt.NDArray[np.int64] | None:
    """[samples] without the end; None if they are no growing multiples of 512 within the tar."""
    if len(content) % 8 or len(content) < 16:
        return None
    numbers = np.frombuffer(content, dtype="<u8")
    if numbers[-1] > num_bytes or (numbers[1:] <= numbers[:-1]).any() or (numbers[:-1] % 512).any():
        return None
    return numbers[:-1].astype(np.int64)
