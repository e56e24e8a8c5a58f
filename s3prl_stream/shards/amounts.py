"""An amount of audio, such as "10h", "10%" or "1h by speaker": the rows that it takes.

Rows stand in the order of a hash of their identity, and are taken up to the amount; for an amount by a column, those of
each value. A table of seconds by the first bits of the hashes tells between which of them the amount ends, so only the
rows there are sorted. A set whose rows can be held is read once, a larger one a second time.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import U64, hash64
from s3prl_stream.shards.member import I64
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.whole_index import IndexBatch

_log = logging.getLogger(__name__)

_AMOUNT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(h|min|s|%)\s*(?:by\s+(\w+)\s*)?$")
_SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}
_MOST_HELD = 1 << 20
"""Rows that are held before those are let go of that the amount cannot reach any more."""
_MOST_CELLS = 1 << 21
"""Of the table of seconds."""
_MOST_BITS = 16

Bools = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]
Read = Callable[[list[str]], Iterator[IndexBatch]]
"""Columns -> the index, from its beginning."""


class Groups:
    """Numbers for the values of a column, in order of appearance.

    Raises:
        UsageError: no such column, or no name of one.
    """

    def __init__(self, shards: ShardSet, column: str) -> None:
        if not isinstance(column, str):
            raise UsageError(f"{column!r:.200} is no name of a column")
        if column not in shards.columns():
            raise UsageError(f"no column {column!r}; {shards.known_columns(column)}")
        self.column = column
        self.numbers: dict[Any, int] = {}

    def of(self, batch: Any) -> I64:
        """Of each row of a batch of the index."""
        encoded = batch.column(self.column).dictionary_encode(null_encoding="encode")
        numbers = [self.numbers.setdefault(value, len(self.numbers)) for value in encoded.dictionary.to_pylist()]
        rows: I64 = np.array(numbers, dtype=np.int64)[encoded.indices.to_numpy(zero_copy_only=False)]
        return rows


def rows_of_amount(shards: ShardSet, amount: str, read: Read) -> Bools:
    """Which rows an amount takes of those that are read.

    Raises:
        UsageError: it is no amount, or the index lacks the column.
    """
    match = _AMOUNT.match(amount) if isinstance(amount, str) else None
    if match is None:
        raise UsageError(f'subset: {amount!r} is no amount; write "10h", "30min", "90s" or "10%", or "10h by speaker"')
    number, unit = float(match[1]), match[2]
    if unit == "%" and number > 100:
        raise UsageError(f"subset: {amount!r} is more than everything")
    groups = None if match[3] is None else Groups(shards, match[3])

    def wanted(seconds_of_groups: F64) -> F64:
        if unit == "%":
            return seconds_of_groups * number / 100
        present = max(int(np.count_nonzero(seconds_of_groups)), 1)  # of which nothing is to be kept takes no share
        return np.full(len(seconds_of_groups), number * _SECONDS[unit] / present)

    table = _SecondsByHash()
    held: list[_Rows] | None = []
    for some in _rows(read, groups):
        table.add(some, 1 if groups is None else len(groups.numbers))
        if held is not None:
            held.append(some)
            if sum(len(part.row) for part in held) > _MOST_HELD:
                # what is wanted of a value gets less with each value that appears; a share of all is not known before
                held = None if unit == "%" else _up_to(held, table.ends(wanted(table.of_groups())))
    totals = table.of_groups()
    _tell_what_is_short(amount, groups, totals, wanted(totals))
    ends = table.ends(wanted(totals))
    result = np.zeros(len(shards), dtype=np.bool_)
    edge = []
    for some in _rows(read, groups) if held is None else held:
        places = ends.compare(some)
        result[some.row[places < 0]] = True
        edge.append(some.at(places == 0))
    rows = _joined(edge)
    rows = rows.at(np.lexsort((rows.hashes, rows.group)))  # of equal hashes the first row first
    before = np.cumsum(rows.seconds) - rows.seconds  # seconds before each row ...
    first = np.searchsorted(rows.group, rows.group)
    before += ends.before[rows.group] - before[first]  # ... of its own group
    result[rows.row] = before < ends.wanted[rows.group]
    return result


class _Rows(NamedTuple):
    """Some rows, N of them."""

    row: I64
    group: I64
    hashes: U64
    seconds: F64

    def at(self, places: npt.NDArray[Any]) -> _Rows:
        return _Rows(*(column[places] for column in self))


def _rows(read: Read, groups: Groups | None) -> Iterator[_Rows]:
    for one in read(["key_hash", "seconds", *([] if groups is None else [groups.column])]):
        hashes = hash64("subset", one.set_name, one.columns.column("key_hash").to_numpy())
        group = np.zeros(len(hashes), dtype=np.int64) if groups is None else groups.of(one.columns)
        some = _Rows(np.arange(one.rows.start, one.rows.stop), group, hashes, one.columns.column("seconds").to_numpy())
        yield some if one.keep is None else some.at(one.keep)


class _Ends(NamedTuple):
    """Where an amount ends, of G groups."""

    bits: int
    bucket: I64  # [G], among the 2**bits of the hashes
    before: F64  # [G], seconds before that
    wanted: F64  # [G]: rows before which less than this stands are taken

    def compare(self, rows: _Rows) -> I64:
        """[N] -1 of a row in an earlier bucket, 0 in that one, 1 in a later one."""
        found: I64 = np.sign(_bucket(rows.hashes, self.bits) - self.bucket[rows.group])
        return found


class _SecondsByHash:
    """Seconds of each group in 2**bits buckets of the hashes; the more groups, the fewer buckets."""

    def __init__(self) -> None:
        self._table_GB = np.zeros((1, 1 << _bits_of(1)))
        self._num_groups = 1

    def add(self, rows: _Rows, num_groups: int) -> None:
        """Of groups that are `num_groups` by now."""
        self._num_groups = num_groups
        if num_groups > len(self._table_GB):
            room = 1 << (num_groups - 1).bit_length()
            narrower = self._table_GB.reshape(len(self._table_GB), 1 << _bits_of(room), -1).sum(axis=2)
            self._table_GB = np.pad(narrower, ((0, room - len(narrower)), (0, 0)))
        cells = (rows.group << self._bits) + _bucket(rows.hashes, self._bits)
        np.add.at(self._table_GB.reshape(-1), cells, rows.seconds)

    @property
    def _bits(self) -> int:
        return self._table_GB.shape[1].bit_length() - 1

    def of_groups(self) -> F64:
        """[G] seconds."""
        totals: F64 = self._table_GB[: self._num_groups].sum(axis=1)
        return totals

    def ends(self, wanted: F64) -> _Ends:
        """Where these seconds [G] end."""
        wanted = wanted - 1e-6
        ends_GB = np.cumsum(self._table_GB[: self._num_groups], axis=1)
        bucket: I64 = (ends_GB < wanted[:, None]).sum(axis=1)
        before = np.where(bucket > 0, ends_GB[np.arange(len(bucket)), bucket - 1], 0.0)
        return _Ends(self._bits, bucket, before, wanted)


def _bits_of(num_groups: int) -> int:
    """Of a table of so many groups."""
    return min(max((_MOST_CELLS // num_groups).bit_length() - 1, 1), _MOST_BITS)


def _bucket(hashes: U64, bits: int) -> I64:
    buckets: I64 = (hashes >> np.uint64(64 - bits)).astype(np.int64)
    return buckets


def _joined(parts: Sequence[_Rows]) -> _Rows:
    return _Rows(*map(np.concatenate, zip(*parts, strict=True)))


def _up_to(parts: Sequence[_Rows], ends: _Ends) -> list[_Rows] | None:
    """Without what lies behind the ends; None: too much is left to hold all that comes."""
    rows = _joined(parts)
    rows = rows.at(ends.compare(rows) <= 0)
    return [rows] if len(rows.row) <= _MOST_HELD // 2 else None


def _tell_what_is_short(amount: str, groups: Groups | None, totals: F64, wanted: F64) -> None:
    short = (totals > 0) & (totals < wanted - 1e-6)
    if not short.any():
        return
    if groups is None:
        _log.warning("subset %r: there are only %.3g h, and all of them are taken", amount, totals[0] / 3600)
        return
    _log.warning(
        "subset %r: %d of %d values of %r have less than their %.3g h, and %.3g h are taken in all",
        *(amount, short.sum(), np.count_nonzero(totals), groups.column),
        *(wanted[short][0] / 3600, np.minimum(totals, wanted).sum() / 3600),
    )
