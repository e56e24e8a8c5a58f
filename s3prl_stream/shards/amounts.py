"""An amount of audio, such as "10h", "10%" or "1h by speaker": the rows that it takes.

Rows stand in the order of a hash of their identity, and are taken up to the amount.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import U64, hash64
from s3prl_stream.shards.member import I64
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.whole_index import whole_index

_log = logging.getLogger(__name__)

_AMOUNT = re.compile(r"^\s*(\d+(?:\.\d+)?)\s*(h|min|s|%)\s*(?:by\s+(\w+)\s*)?$")
_SECONDS = {"h": 3600.0, "min": 60.0, "s": 1.0}
_MOST_UNSORTED = 1 << 20
"""Rows that are held before those are let go that cannot be among the first any more."""

Bools = npt.NDArray[np.bool_]
F64 = npt.NDArray[np.float64]


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


def rows_of_amount(shards: ShardSet, amount: str, keep: Bools | None) -> Bools:
    """Which rows an amount takes of those to keep (None: of all).

    Raises:
        UsageError: it is no amount, or the index lacks the column.
    """
    match = _AMOUNT.match(amount) if isinstance(amount, str) else None
    if match is None:
        raise UsageError(f'subset: {amount!r} is no amount; write "10h", "30min", "90s" or "10%", or "10h by speaker"')
    number, unit, column = float(match[1]), match[2], match[3]
    if unit == "%" and number > 100:
        raise UsageError(f"subset: {amount!r} is more than everything")
    if column is not None:
        return _of_each_value(shards, Groups(shards, column), match, keep)
    if unit != "%":
        wanted = number * _SECONDS[unit]
        result, total = _first(shards, keep, wanted)
        if 0 < total < wanted - 1e-6:
            _log.warning("subset %r: there are only %.3g h, and all of them are taken", amount, total / 3600)
        return result
    # the share of all that there can be, by the manifests; which may be wrong
    at_most = float(shards.shard_seconds.sum()) * 1.001 * number / 100
    result, total = _first(shards, keep, at_most, percent=number)
    return result if total * number / 100 <= at_most else _first(shards, keep, np.inf, percent=number)[0]


class _Rows(NamedTuple):
    """Some rows, N of them."""

    row: I64
    hashes: U64
    seconds: F64

    @classmethod
    def joined(cls, parts: Sequence[_Rows]) -> _Rows:
        return cls(*map(np.concatenate, zip(*parts, strict=True)))

    def at(self, places: I64) -> _Rows:
        return _Rows(self.row[places], self.hashes[places], self.seconds[places])

    def in_order(self) -> _Rows:
        """By their hashes; of equal ones the first row first."""
        return self.at(np.argsort(self.hashes, kind="stable"))

    def seconds_before(self) -> F64:
        """[N] of those that stand before each, in the order as it is."""
        return np.cumsum(self.seconds) - self.seconds

    def up_to(self, seconds: float) -> _Rows:
        """In order, those before which less than this stands: others cannot get there, whatever joins them."""
        ordered = self.in_order()
        stop = np.flatnonzero(ordered.seconds_before() < seconds)
        return ordered.at(np.arange(stop[-1] + 1 if len(stop) else 0))


def _first(shards: ShardSet, keep: Bools | None, at_most: float, percent: float | None = None) -> tuple[Bools, float]:
    """(the first rows up to an amount, seconds of all rows to keep); in little memory if the amount is small.

    Args:
        shards, keep: the rows.
        at_most: seconds that are wanted, or a bound for the percentage of them.
        percent: of the seconds of all rows to keep.
    """
    held = _Rows(np.zeros(0, np.int64), np.zeros(0, np.uint64), np.zeros(0, np.float64))
    waiting: list[_Rows] = []
    num_waiting, total = 0, 0.0
    for set_name, on, batch in whole_index(shards, ["key_hash", "seconds"]):
        hashes = hash64("subset", set_name, batch.column("key_hash").to_numpy())
        some = _Rows(np.arange(on.start, on.stop), hashes, batch.column("seconds").to_numpy())
        some = some if keep is None else some.at(np.flatnonzero(keep[on]))
        total = float(np.cumsum(np.append(total, some.seconds))[-1])  # one by one, so that rounding is that of a sum
        waiting.append(some)
        num_waiting += len(some.row)
        if num_waiting > max(_MOST_UNSORTED, len(held.row)):
            held, waiting, num_waiting = _Rows.joined([held, *waiting]).up_to(at_most), [], 0
    held = _Rows.joined([held, *waiting]).in_order()
    wanted = at_most if percent is None else total * percent / 100
    result = np.zeros(len(shards), dtype=np.bool_)
    result[held.row] = held.seconds_before() < wanted - 1e-6
    return result, total


def _of_each_value(shards: ShardSet, groups: Groups, amount: re.Match[str], keep: Bools | None) -> Bools:
    """The rows of an amount that is shared equally by the values of a column, or of a percentage of each."""
    number, unit = float(amount[1]), amount[2]
    count = len(shards) if keep is None else int(np.count_nonzero(keep))
    group, hashes, seconds = np.empty(count, np.int32), np.empty(count, np.uint64), np.empty(count, np.float64)
    filled = 0
    for set_name, on, batch in whole_index(shards, ["key_hash", "seconds", groups.column]):
        places = slice(None) if keep is None else keep[on]
        of_batch = groups.of(batch)[places]
        to = slice(filled, filled + len(of_batch))
        group[to] = of_batch
        hashes[to] = hash64("subset", set_name, batch.column("key_hash").to_numpy()[places])
        seconds[to] = batch.column("seconds").to_numpy()[places]
        filled = to.stop
    totals = np.bincount(group, weights=seconds, minlength=len(groups.numbers))
    present = max(int(np.count_nonzero(totals)), 1)  # values of which nothing is to be kept take no share
    wanted = totals * number / 100 if unit == "%" else np.full(len(totals), number * _SECONDS[unit] / present)
    short = (totals > 0) & (totals < wanted - 1e-6)
    if short.any():
        _log.warning(
            "subset %r: %d of %d values of %r have less than their %.3g h, and %.3g h are taken in all",
            *(amount[0], short.sum(), np.count_nonzero(totals), groups.column),
            *(wanted[short][0] / 3600, np.minimum(totals, wanted).sum() / 3600),
        )
    order = np.lexsort((hashes, group))
    del hashes
    group, seconds = group[order], seconds[order]
    before = np.cumsum(seconds)  # seconds before each row ...
    before -= seconds
    before -= np.concatenate([[0.0], np.cumsum(totals)])[group]  # ... of its own group
    chosen = np.zeros(count, dtype=np.bool_)
    chosen[order] = before < wanted[group] - 1e-6
    if keep is None:
        return chosen
    result: Bools = keep.copy()
    result[keep] = chosen
    return result
