"""One pass over the index of all sets. Of 100 M rows it takes a minute, so it tells how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.sign_of_life import SignOfLife

if TYPE_CHECKING:
    import pyarrow as pa

_ROWS_AT_ONCE = 20_000


class IndexBatch(NamedTuple):
    """Some rows that follow one another."""

    set_name: str
    rows: slice
    """Their numbers among the rows of all sets."""
    columns: pa.RecordBatch
    keep: npt.NDArray[np.bool_] | None = None
    """Which of them are wanted; None: all."""


def whole_index(shards: ShardSet, columns: list[str], where: Any = None) -> Iterator[IndexBatch]:
    """The index in row order, set after set; columns and `where` as in `SetMember.batches`, null is not to keep."""
    row, life = 0, SignOfLife()
    for member in shards.members:
        for batch in _joined(member.batches(columns, where)):
            keep = None if where is None else batch.column("keep").fill_null(False).to_numpy(zero_copy_only=False)
            yield IndexBatch(member.name, slice(row, row + batch.num_rows), batch, keep)
            row += batch.num_rows
            life.tell("reading the index: %.1f of %.1f million rows", row / 1e6, len(shards) / 1e6)


def _joined(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The same rows in fewer batches: those of a set are of a shard each, and cost more than their rows."""
    import pyarrow

    waiting, num_rows = [], 0
    for batch in batches:
        waiting.append(batch)
        num_rows += batch.num_rows
        if num_rows >= _ROWS_AT_ONCE:
            yield from pyarrow.Table.from_batches(waiting).combine_chunks().to_batches()
            waiting, num_rows = [], 0
    if waiting:
        yield from pyarrow.Table.from_batches(waiting).combine_chunks().to_batches()
