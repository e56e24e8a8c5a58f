"""A selection: which rows of a set an epoch consists of, compiled once from `where`, `subset` and `balance`.

A bit a row (12.5 MB for 100 M clips). `subset` is nested: whether a row belongs to "1h" depends on a hash of its
identity and a threshold, so 1h lies inside 10h, whatever the seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import hash64, uniform
from s3prl_stream.shards.amounts import Bools, Groups, Read, rows_of_amount
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.where import compile_where
from s3prl_stream.shards.whole_index import IndexBatch, whole_index

_ROWS_AT_ONCE = 1 << 20


class Selection:
    """Rows of a ShardSet.

    `counts` [shards] is the number of selected rows of each shard. `fingerprint` is a hash of the rows and draws.
    """

    def __init__(
        self, bits: npt.NDArray[np.uint8] | None, weights: npt.NDArray[np.float32] | None, num: npt.NDArray[np.int64]
    ) -> None:
        self._bits = bits
        self._weights = weights
        self._first_row = np.cumsum([0, *num])
        edges = itertools.pairwise(self._first_row.tolist())
        self.counts = num if bits is None else np.array([np.count_nonzero(_unpack(bits, *one)) for one in edges])
        digest = hashlib.blake2b(digest_size=8)
        for part in (bits, weights):
            digest.update(b"-" if part is None else part.data)
        self.fingerprint = digest.hexdigest()

    def __len__(self) -> int:
        return int(self.counts.sum())

    @property
    def with_replacement(self) -> bool:
        """True if rows are drawn with replacement (`balance`)."""
        return self._weights is not None

    def mask(self, shard: int) -> Bools | None:
        """Which rows of the shard are selected; None: all."""
        if self._bits is None:
            return None
        start, stop = int(self._first_row[shard]), int(self._first_row[shard + 1])
        return _unpack(self._bits, start, stop)

    def weights(self, shard: int) -> npt.NDArray[np.float32] | None:
        """Expected number of draws of each row of the shard in an epoch; None: each selected row once."""
        return None if self._weights is None else self._weights[self._first_row[shard] : self._first_row[shard + 1]]


def compile_selection(
    shards: ShardSet,
    *,
    where: Any = None,
    subset: str | None = None,
    balance: str | None = None,
    key_range: tuple[float, float] | None = None,
) -> Selection:
    """Compile the choices to rows.

    Args:
        shards: the set.
        where: rows to keep, see `where.compile_where`; a row whose condition is null is not kept.
        subset: "10h", "30min", "90s" or "10%" of the kept audio, optionally "10h by speaker": the same amount of
            each value ("10% by speaker": that share of each). Where there is less, all of it, with a logged warning.
        balance: draw rows with replacement so that each value of this column is drawn equally often in an epoch
            of as many draws as there are rows; both on average, as each row is drawn its share rounded by chance. Rows
            without a value are as good as those of one more value: leave them out by `where`. Exempt from exactly-once.
        key_range: keep rows whose hash of (set, key), from 0 to 1, is at least the first number and below the second:
            (0, 0.01) and (0.01, 1) have no clip in common. `subset` is then taken of what is kept.

    Raises:
        UsageError: a malformed expression or amount, an unknown column, nothing selected.
    """
    read = _reader(shards, where, key_range)
    keep: Bools | None = None
    if subset is not None:
        keep = rows_of_amount(shards, subset, read)
    elif where is not None or key_range is not None:
        keep = np.empty(len(shards), dtype=np.bool_)
        for one in read([]):
            keep[one.rows] = one.keep
    weights = None if balance is None else _balance(shards, balance, keep)
    if keep is not None and not keep.any():
        choices = {"where": None if where is None else str(where), "subset": subset, "key_range": key_range}
        said = ", ".join(f"{name}={value!r:.300}" for name, value in choices.items() if value is not None)
        raise UsageError(f"{said} selects none of the {len(shards)} samples")
    return Selection(None if keep is None else np.packbits(keep), weights, shards.shard_samples)


def selected_hours(shards: ShardSet, *, where: Any = None, subset: str | None = None) -> float:
    """Hours of the clips that `where` and `subset` select; 0 if there are none.

    Raises:
        UsageError: a malformed expression or amount.
    """
    read = _reader(shards, where, None)
    chosen = None if subset is None else rows_of_amount(shards, subset, read)
    parts = []
    for one in read(["seconds"]):
        keep = one.keep if chosen is None else chosen[one.rows]
        seconds = one.columns.column("seconds").to_numpy()
        parts.append(seconds if keep is None else seconds[keep])
    return float(np.concatenate(parts).sum()) / 3600


def longest_seconds(shards: ShardSet) -> float:
    """Seconds of the longest clip of a set; 0 for an empty one."""
    import pyarrow.compute

    batches = (batch for member in shards.members for batch in member.batches(["seconds"]))
    longest = (pyarrow.compute.max(batch.column("seconds")).as_py() for batch in batches)
    return max((float(seconds or 0.0) for seconds in longest), default=0.0)


def _unpack(bits: npt.NDArray[np.uint8], start: int, stop: int) -> Bools:
    chunk = np.unpackbits(bits[start // 8 : (stop + 7) // 8])
    return chunk[start % 8 : start % 8 + stop - start].astype(np.bool_)


@contextlib.contextmanager
def explaining(where: Any) -> Iterator[None]:
    """What Arrow raises where a condition does not fit the cells, as a UsageError."""
    import pyarrow

    try:
        yield
    except (pyarrow.ArrowInvalid, pyarrow.ArrowNotImplementedError, pyarrow.ArrowTypeError) as error:
        raise UsageError(
            f"where: {str(where)!r:.200} cannot be evaluated: a column is compared with a value of another kind "
            f"({str(error).splitlines()[0]})"
        ) from None


def _reader(shards: ShardSet, where: Any, key_range: tuple[float, float] | None) -> Read:
    """Reads the index, with what both conditions keep of it.

    Raises:
        UsageError: a malformed condition; when it is read, one that does not fit the cells.
    """
    expression = where if where is None else compile_where(where, shards.columns(), known_columns=shards.known_columns)
    if key_range is not None:
        try:
            low, high = key_range
            is_range = 0 <= low < high <= 1
        except (TypeError, ValueError):
            is_range = False
        if not is_range:
            raise UsageError(f"key_range: {key_range} is no range from 0 to 1")

    def read(columns: list[str]) -> Iterator[IndexBatch]:
        if key_range is not None:
            columns = list({*columns, "key_hash"})
        with explaining(where):
            for one in whole_index(shards, columns, expression):
                if key_range is not None:
                    numbers = uniform(hash64("key range", one.set_name, one.columns.column("key_hash").to_numpy()))
                    inside = (numbers >= key_range[0]) & (numbers < key_range[1])
                    one = one._replace(keep=inside if one.keep is None else one.keep & inside)
                yield one

    return read


def _balance(shards: ShardSet, column: str, keep: Bools | None) -> npt.NDArray[np.float32]:
    groups = Groups(shards, column)
    codes, sizes = np.empty(len(shards), dtype=np.int32), np.zeros(0, dtype=np.int64)
    for _, on, batch, _ in whole_index(shards, [column]):
        codes[on] = of_rows = groups.of(batch)
        found = np.bincount(of_rows if keep is None else of_rows[keep[on]], minlength=len(groups.numbers))
        found[: len(sizes)] += sizes
        sizes = found
    share = sizes.sum() / max(np.count_nonzero(sizes), 1)
    of_groups = (share / np.maximum(sizes, 1)).astype(np.float32)
    weights: npt.NDArray[np.float32] = codes.view(np.float32)  # of 100 M rows either is 400 MB
    for first in range(0, len(codes), _ROWS_AT_ONCE):
        on = slice(first, first + _ROWS_AT_ONCE)
        weights[on] = of_groups[codes[on]]
    if keep is not None:
        weights[~keep] = 0.0
    return weights
