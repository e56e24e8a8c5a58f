"""Keys that stand twice in a set: in one whose shards are sound, by a mixture of two sets."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from s3prl_stream.checking.examine import read_index
from s3prl_stream.checking.inventory import Entry
from s3prl_stream.hashing import U64, repeated
from s3prl_stream.stores.store import Store


def duplicates(
    store: Store, entries: Sequence[Entry], hashes: Sequence[U64]
) -> Iterator[tuple[str, tuple[str, str, int, int]]]:
    """(where the first one is, (shard, key, offset, size)) of each sample whose key an earlier one has.

    Args:
        store, entries: the shards.
        hashes: of the keys of each shard.
    """
    import pyarrow

    twice = _repeated(hashes)
    first: dict[str, str] = {}
    for entry, some in zip(entries, hashes, strict=True):
        if not len(twice) or not np.isin(some, twice).any():
            continue
        for table in read_index(store, entry).candidates()[:1]:
            suspects = table.filter(pyarrow.array(np.isin(table.column("key_hash").to_numpy(), twice)))
            for row in suspects.select(["key", "offset", "size"]).to_pylist():
                place = f"the sample of {entry.name} at byte {row['offset']}"
                if first.setdefault(row["key"], place) != place:
                    yield first[row["key"]], (entry.name, row["key"], row["offset"], row["size"])


def _repeated(hashes: Sequence[U64]) -> U64:
    """Values that are there more than once; a sixteenth of all values is looked at at a time, for the memory."""
    found = []
    for first_digit in range(16):
        found.append(repeated(np.concatenate([one[one >> np.uint64(60) == first_digit] for one in hashes])))
    return np.concatenate(found)
