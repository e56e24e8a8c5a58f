"""Samples that could not be used: each is listed and costs itself, and too many in a row stop the run."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypeAlias

from s3prl_stream.errors import SampleError, TooManyFailures
from s3prl_stream.sample import PlannedBatch

Damaged: TypeAlias = dict[int, dict[str, Any]]
"""Place of an item in its planned batch -> the row that tells what became of it."""


def row_of(planned: PlannedBatch, slot: int, *, set_name: str, shard: str, error: SampleError) -> dict[str, Any]:
    """Which stretch of which clip is lost, where its bytes are, and why."""
    item = planned.items[slot]
    return {
        "set": set_name,
        "shard": shard,
        "key": item.key,
        "offset": item.offset,
        "size": item.size,
        "first_frame": item.first_frame,
        "num_frames": item.num_frames,
        "epoch": item.epoch,
        "draw": item.draw,
        "batch_index": planned.number,
        "reason": error.reason,
        "message": str(error.args[0]),
    }


class Failures:
    """Stops a run where damage is no longer the exception."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._in_a_row = 0

    def count(self, num_good: int, damaged: Collection[dict[str, Any]]) -> None:
        """Take note of one batch: how many samples it has, and which it lost.

        Raises:
            TooManyFailures: more than `limit` samples in a row.
        """
        self._in_a_row = 0 if num_good else self._in_a_row + len(damaged)
        if damaged and self._in_a_row > self.limit:
            raise TooManyFailures(
                f"{self._in_a_row} samples in a row could not be used (max_consecutive_failures={self.limit}); "
                f"the last: {list(damaged)[-1]['message']}. `s3prl-stream verify --full` lists all damage."
            )
