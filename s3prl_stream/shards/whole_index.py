"""One pass over the index of all sets. Of 100 M rows it takes a minute, so it tells how far it is."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

from s3prl_stream.shards.shardset import ShardSet

if TYPE_CHECKING:
    import pyarrow as pa

_TELL_EVERY_SECONDS = 10.0

_log = logging.getLogger(__name__)


class IndexBatch(NamedTuple):
    """Some rows that follow one another."""

    set_name: str
    rows: slice
    """Their numbers among the rows of all sets."""
    columns: pa.RecordBatch


def whole_index(shards: ShardSet, columns: list[str], where: Any = None) -> Iterator[IndexBatch]:
    """The index in row order, set after set; columns and `where` as in `SetMember.batches`."""
    row, told_at = 0, time.monotonic()
    for member in shards.members:
        for batch in member.batches(columns, where):
            yield IndexBatch(member.name, slice(row, row + batch.num_rows), batch)
            row += batch.num_rows
            if time.monotonic() - told_at > _TELL_EVERY_SECONDS:
                told_at = time.monotonic()
                _log.info("reading the index: %.1f of %.1f million rows", row / 1e6, len(shards) / 1e6)
