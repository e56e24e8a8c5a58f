"""From stretches to batches: runs of neighbours, buckets of similar duration, a budget of padded seconds.

The order of one block is: runs of at most `run` neighbours -> runs sorted by duration bucket and, inside a bucket,
by a hash -> one pass that cuts this sequence into batches under the budget (so a bucket's remainder begins the next
bucket's first batch) -> batches in the order of a hash.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.hashing import U64, hash64
from s3prl_stream.plan.settings import PlanSettings
from s3prl_stream.shards.member import I64

F64 = npt.NDArray[np.float64]

BUCKET_RATIO = 1.05
"""A bucket's longest clip over its shortest."""
BATCHES_PER_BUCKET = 4
"""Neighbouring buckets join until they hold this many batches, so that a small set's batches are not frozen ..."""
MAX_BUCKET_RATIO = 1.25
"""... but never beyond this ratio, which bounds the padding."""


class Batches(NamedTuple):
    """Batches of one block: batch i is `sequence[edges[i, 0] : edges[i, 1]]`, indices into the stretches."""

    sequence: I64
    edges: I64  # [batches, 2]


def make_batches(
    seconds: F64, run_of: I64, random_of_run: U64, settings: PlanSettings, place: tuple[int | str, ...]
) -> Batches:
    """Arrange the stretches of one block.

    Args:
        seconds: [N] durations, none above the budget.
        run_of: [N] number of each stretch's run; runs are contiguous and numbered from 0.
        random_of_run: [runs] hashes that order the runs inside a bucket.
        settings: of the plan.
        place: names the block, for the order of its batches.
    """
    if not settings.shuffle:
        sequence: I64 = np.arange(len(seconds))
        edges = _cut(seconds, settings)
        return Batches(sequence, np.stack([edges[:-1], edges[1:]], axis=1))
    first_of_run = first_of_runs(run_of)
    run_seconds = np.maximum.reduceat(seconds, first_of_run)
    run_total = np.add.reduceat(seconds, first_of_run)
    bucket = _buckets(run_seconds, run_total, settings)
    order = np.lexsort((random_of_run, bucket))
    sequence = concatenate_runs(order, first_of_run, len(seconds))
    edges = _cut(seconds[sequence], settings)
    random = hash64("batch", settings.seed, *place, np.arange(len(edges) - 1))
    pairs = np.stack([edges[:-1], edges[1:]], axis=1)
    return Batches(sequence, pairs[np.argsort(random, kind="stable")])


def first_of_runs(run_of: I64) -> I64:
    """[runs] where each run begins."""
    first: I64 = np.flatnonzero(np.diff(run_of, prepend=-1))
    return first


def group_runs(seconds: F64, shard: I64, settings: PlanSettings, epoch: int) -> I64:
    """[N] number of the run of each stretch; stretches lie in the order of their bytes.

    Neighbours of one shard whose durations differ little form a group (what the packer put together). A group of n
    is cut into round(n / run) runs whose inner edges are shifted by a phase that changes each epoch, so that other
    neighbours meet.
    """
    if settings.run == 1:
        return np.arange(len(seconds))
    level = np.floor(np.log(np.maximum(seconds, 1e-3)) / np.log(BUCKET_RATIO))
    new_group = (np.diff(shard, prepend=-1) != 0) | (np.abs(np.diff(level, prepend=level[:1])) > 1)
    first = np.flatnonzero(new_group)
    size = np.diff(first, append=len(seconds))
    group = np.repeat(np.arange(len(first)), size)
    runs_in_group = np.maximum(np.round(size / settings.run).astype(np.int64), 1)
    length = size / runs_in_group
    phase = hash64("phase", settings.seed, epoch, shard[first], np.arange(len(first))).astype(np.float64) * 2.0**-64
    shifted = (np.arange(len(seconds)) - first[group]) / length[group] + phase[group] - 0.5
    inside = np.clip(np.floor(shifted), 0, runs_in_group[group] - 1).astype(np.int64)
    runs: I64 = np.cumsum((np.diff(inside, prepend=0) != 0) | new_group) - 1
    return runs


def _buckets(run_seconds: F64, run_total: F64, settings: PlanSettings) -> I64:
    """Duration bucket of each run: fixed ratio, thin neighbours joined."""
    level = np.floor(np.log(np.maximum(run_seconds, 1e-3)) / np.log(BUCKET_RATIO)).astype(np.int64)
    level -= level.min()
    filled = np.bincount(level, weights=run_total)
    most = max(int(np.log(MAX_BUCKET_RATIO) / np.log(BUCKET_RATIO)), 1)
    wanted = BATCHES_PER_BUCKET * settings.max_batch_seconds
    bucket = np.zeros(len(filled), dtype=np.int64)
    number, first, total = 0, 0, 0.0
    for index, amount in enumerate(filled):
        if index > first and (total >= wanted or index - first >= most):
            number, first, total = number + 1, index, 0.0
        bucket[index] = number
        total += float(amount)
    found: I64 = bucket[level]
    return found


def concatenate_runs(order: I64, first_of_run: I64, count: int) -> I64:
    """Stretches in the order of their runs: `order` is a permutation of the runs of `count` stretches."""
    size = np.diff(first_of_run, append=count)[order]
    starts = first_of_run[order]
    ends = np.cumsum(size)
    sequence: I64 = np.arange(count) - np.repeat(ends - size, size) + np.repeat(starts, size)
    return sequence


def _cut(seconds: F64, settings: PlanSettings) -> I64:
    """Edges of greedy batches: as many as fit (count x longest <= budget), at least one."""
    budget = settings.max_batch_seconds * (1 + 1e-9)
    limit = settings.max_batch_size or len(seconds)
    counts = np.arange(1, len(seconds) + 1)
    edges, start = [0], 0
    while start < len(seconds):
        first = seconds[start]
        most = min(limit, int(budget / first) + 1) if first else limit  # no batch has more that begins with this one
        window = np.maximum.accumulate(seconds[start : start + most])
        fit = int((window * counts[: len(window)]).searchsorted(budget, side="right"))
        start += max(fit, 1)
        edges.append(start)
    return np.array(edges, dtype=np.int64)
