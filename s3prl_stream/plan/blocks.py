"""An epoch as a sequence of blocks: shards in an order of their own, cut into groups of whole shards."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from s3prl_stream.hashing import hash64
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.shards.member import I64, SetMember


class EpochBlocks(NamedTuple):
    """Shards of one epoch in order, and where each block begins."""

    shards: I64  # shard numbers, those without a selected sample left out
    edges: I64  # block k is shards[edges[k] : edges[k + 1]]

    def __len__(self) -> int:  # number of blocks
        return len(self.edges) - 1

    def block(self, number: int) -> I64:
        """Shard numbers of one block."""
        return self.shards[self.edges[number] : self.edges[number + 1]]


def shard_identities(members: Sequence[SetMember]) -> np.ndarray[tuple[int, ...], np.dtype[np.uint64]]:
    """uint64 for each shard: a hash of its set's name and its number there, so other sets do not change it."""
    return np.concatenate([hash64("shard", m.name, np.arange(len(m.shard_names))) for m in members])


def epoch_blocks(
    identities: np.ndarray[tuple[int, ...], np.dtype[np.uint64]], counts: I64, settings: PlanSettings, epoch: int
) -> EpochBlocks:
    """Order the shards by a hash of (seed, epoch, shard) and cut the order into blocks of about `block_samples`.

    A last block of less than half the size joins the one before it. 80 000 shards take milliseconds.

    Args:
        identities: of the shards.
        counts: selected samples of each shard; shards without one are left out.
        settings: seed, shuffle, and the size of a block.
        epoch: whose order.
    """
    size = settings.block_samples
    present = np.flatnonzero(counts)
    if settings.shuffle:
        present = present[np.argsort(hash64("order", settings.seed, epoch, identities[present]), kind="stable")]
    ends = np.cumsum(counts[present])
    number = (ends - 1) // size
    edges = np.concatenate([[0], np.flatnonzero(np.diff(number)) + 1, [len(present)]])
    starts = np.concatenate([[0], ends])[edges]
    if len(edges) > 2 and starts[-1] - starts[-2] < size / 2:
        edges = np.delete(edges, -2)
    return EpochBlocks(present, edges)
