"""What it took to go on from a cursor, counted, not timed."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any, NamedTuple

from s3prl_stream.sample import PlannedBatch


class Topology(NamedTuple):
    """How a stream is dealt out."""

    ranks: int
    workers: int
    """Of each rank; 0: one thread of its process."""
    prefetch: int
    """Batches built ahead, for each worker."""

    @property
    def most_built_ahead(self) -> int:
        """Batches that all ranks together may have built and not yet handed over."""
        return self.ranks * max(self.workers, 1) * self.prefetch

    def __str__(self) -> str:
        return f"{self.ranks} rank{'s' * (self.ranks > 1)} x {self.workers} worker{'s' * (self.workers != 1)}"


@dataclass
class Receipt:
    """Of one `Loader.load_state_dict`. What is None is not known before the first batch is planned."""

    batch: int
    """The global batch at which the stream goes on."""
    fingerprint: str
    """16 hexadecimal digits of what determines the stream: sets, selection, settings, stages."""
    before: Topology | None
    """Of the loader that made the state; None: the state does not say."""
    now: Topology
    epoch: int | None = None
    """Of the block of this rank's first batch; 0 in a mix, in which each set has its own."""
    block: int | None = None
    """In the epoch."""
    batch_in_block: int | None = None
    index_rows: int | None = None
    """Rows of the index in the blocks planned to reach the first batch of this rank. The block after them is planned
    meanwhile, and `where` or `subset` read their columns when the stream is made; neither is counted."""
    clips_again: int = 0
    """Clips of batches before `batch` that were given out to be read: consumed once, and now again."""
    bytes_again: int = 0
    """Of those, in the shards."""

    def on_block(self, num_index_rows: int) -> None:
        """A block was planned from so many rows. Behind the first batch that is no cost of going on."""
        if self.block is None:
            self.index_rows = (self.index_rows or 0) + num_index_rows

    def on_batch(self, planned: PlannedBatch, in_block: int, *, epoch: int, block: int) -> None:
        """A batch was given out to be read: number `in_block` of that block."""
        if self.block is None:
            self.epoch, self.block, self.batch_in_block = epoch, block, in_block
        if planned.number < self.batch:
            self.clips_again += len(planned.items)
            self.bytes_again += sum(item.size for item in planned.items)

    @property
    def most_built_ahead_before(self) -> int | None:
        """Batches from `batch` on that the loaders before may have built for nothing, each at least in part."""
        return None if self.before is None else self.before.most_built_ahead

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        values = dataclasses.asdict(self)
        for name in ("before", "now"):
            topology = values[name]
            values[name] = None if topology is None else topology._asdict()
        return {**values, "most_built_ahead_before": self.most_built_ahead_before}

    def __str__(self) -> str:
        place = f" (epoch {self.epoch}, block {self.block}, batch {self.batch_in_block} of it)"
        at = "" if self.block is None else place
        rows = "" if self.index_rows is None else f", {self.index_rows} index rows read"
        return (
            f"goes on at batch {self.batch}{at}: {self.before or 'unknown'} before, {self.now} now; "
            f"{self.clips_again} clips ({self.bytes_again} bytes) read again{rows}; stream {self.fingerprint}"
        )
