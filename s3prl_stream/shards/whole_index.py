"""One pass over the index of all sets. Of 100 M rows it takes a minute, so it tells how far it is."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.sign_of_life import SignOfLife

if TYPE_CHECKING:
    import pyarrow as pa


class IndexBatch(NamedTuple):
    """Some rows that follow one another."""

    set_name: str
    rows: slice
    """Their numbers among the rows of all sets."""
    columns: pa.RecordBatch


def whole_index(shards: ShardSet, columns: list[str], where: Any = None) -> Iterator[IndexBatch]:
    """The index in row order, set after set; columns and `where` as in `SetMember.batches`."""
    row, life = 0, SignOfLife()
    for member in shards.members:
        for batch in member.batches(columns, where):
            yield IndexBatch(member.name, slice(row, row + batch.num_rows), batch)
            row += batch.num_rows
            life.tell("reading the index: %.1f of %.1f million rows", row / 1e6, len(shards) / 1e6)
