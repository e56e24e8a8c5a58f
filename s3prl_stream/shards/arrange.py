"""Which sample goes into which shard, and where in it: pure arithmetic on keys, bytes and durations.

All samples are put into a random order that depends on the seed and their keys alone, so recordings and speakers mix;
the order is cut into shards of equal bytes; inside a shard, neighbours of similar duration form runs, and the runs
are shuffled. One read of a run brings equal lengths, and a plain sequential reader still sees shuffled lengths.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from s3prl_stream.hashing import U64, hash64
from s3prl_stream.shards.layout import PACKING_RUN

_MOST_SHARDS = 2.0**53  # below which numbers of shards are exact


def arrange(
    hashes: U64, seconds: npt.NDArray[np.float64], num_bytes: npt.NDArray[np.float64], shard_bytes: float, seed: int
) -> list[npt.NDArray[np.int64]]:
    """Positions of the samples of every shard, in the shard's order.

    No shard's estimate exceeds `shard_bytes` by a whole sample, and no shard is empty.

    Args:
        hashes: [N] of N different keys, `hashing.key_hash`.
        seconds: [N] durations.
        num_bytes: [N] estimated bytes in the shard.
        shard_bytes: wanted size of a shard.
        seed: of the order.
    """
    # of two keys of one hash (a chance of 10 ** -7 for a million) the first comes first
    order = np.argsort(hash64("pack", seed, hashes), kind="stable").astype(np.int64)
    before = np.cumsum(num_bytes[order]) - num_bytes[order]
    num_shards = max(1, int(min(np.ceil(num_bytes.sum() / shard_bytes), _MOST_SHARDS)))
    shard = np.floor(before / num_bytes.sum() * num_shards).astype(np.int64)
    edges = np.flatnonzero(np.diff(shard)) + 1
    return [in_runs(members, seconds, seed, number) for number, members in enumerate(np.split(order, edges))]


def in_runs(
    members: npt.NDArray[np.int64], seconds: npt.NDArray[np.float64], seed: int, shard: int
) -> npt.NDArray[np.int64]:
    """Positions `members` of one shard's samples, in the shard's order; `seconds` are those of all samples."""
    by_duration = members[np.argsort(seconds[members], kind="stable")]
    num_whole = len(members) // PACKING_RUN
    runs = by_duration[: num_whole * PACKING_RUN].reshape(num_whole, PACKING_RUN)
    shuffled = runs[np.argsort(hash64("runs", seed, shard, np.arange(num_whole)), kind="stable")]
    # The incomplete run holds the longest clips; at the end it leaves the others aligned to multiples of a run.
    return np.concatenate([shuffled.ravel(), by_duration[num_whole * PACKING_RUN :]])
