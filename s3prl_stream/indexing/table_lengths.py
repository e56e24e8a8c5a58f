"""Lengths from a table, for clips whose first bytes do not tell how long they are: believed after a spot check.

A clip in Ogg or MP3 tells its length at its end, or not at all: two to four requests, or all of its bytes. A table
that says it saves them. But tables round, trim, or describe another version, so some clips of each tar are measured
all the same, and one that differs by a single frame ends the belief for its tar.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from s3prl_stream.audio.lengths import ClipLength, ReadAt, checked_length, clip_length, rate_in_head
from s3prl_stream.errors import SampleError, StreamError
from s3prl_stream.hashing import key_hash
from s3prl_stream.indexing.durations import Table, lookup_names

FIRST_MEASURED = 4
"""Clips of each tar that are measured before any is believed."""

ONE_MEASURED_IN = 32
"""Of those behind them, chosen by the hash of the key."""

_ROW = np.dtype([("name", np.uint64), ("seconds", np.float64)])


class TableDiffers(StreamError):
    """A clip is not as long as the table says."""


def write_lengths(table: Table, path: Path) -> None:
    """The durations of a table as 16 bytes a name, sorted, for processes that share one file."""
    rows = np.fromiter(((_hash_of(name), seconds) for name, seconds in table.durations()), dtype=_ROW)
    np.save(path, np.sort(rows, order="name"))


def _hash_of(name: str) -> int:
    """Of names, too, whose bytes in a tar are not UTF-8: lone surrogates, which `key_hash` refuses."""
    return key_hash(name.encode("utf-8", "surrogatepass").decode("latin-1"))


class TableLengths:
    """What `write_lengths` wrote; opened in each process."""

    def __init__(self, path: str) -> None:
        self._rows = np.load(path, mmap_mode="r")
        self._names = self._rows["name"]

    def seconds(self, key: str) -> float | None:
        """Duration of the sample of this key (as WebDataset cuts it); None: the table does not say."""
        for name in lookup_names(key):
            hashed = np.uint64(_hash_of(name))
            at = int(np.searchsorted(self._names, hashed))
            if at < len(self._names) and self._names[at] == hashed:
                seconds = float(self._rows["seconds"][at])
                return None if math.isnan(seconds) else seconds
        return None


class LengthsOfTar:
    """The lengths of one tar's clips.

    Args:
        table: None: all are measured.

    Attributes:
        num_believed: clips that were not measured.
        num_measured: clips that were, to check the table.
    """

    def __init__(self, table: TableLengths | None) -> None:
        self._table = table
        self.num_believed = self.num_measured = 0

    def length(self, key: str, read: ReadAt, size: int, codec: str) -> ClipLength:
        """The length of one clip; arguments and errors as of `clip_length`.

        Raises:
            TableDiffers: the table is wrong about it.
        """
        told = None if self._table is None else self._told(key, read, size, codec)
        if told is None:
            return clip_length(read, size, codec)
        if self.num_measured >= FIRST_MEASURED and key_hash(key) % ONE_MEASURED_IN:
            self.num_believed += 1
            return told
        self.num_measured += 1
        found = clip_length(read, size, codec)
        if found[:2] != told[:2]:
            raise TableDiffers(
                f"{key!a}: {told.frames} frames at {told.sample_rate} Hz in the table, the audio has {found.frames} at "
                f"{found.sample_rate}"
            )
        return found

    def _told(self, key: str, read: ReadAt, size: int, codec: str) -> ClipLength | None:
        assert self._table is not None
        seconds = self._table.seconds(key)
        rate = None if seconds is None else rate_in_head(read, size, codec)
        if seconds is None or rate is None:
            return None
        try:
            return checked_length(ClipLength(round(seconds * rate), rate, False), size, codec)
        except SampleError:
            return None  # no such clip; measuring tells
