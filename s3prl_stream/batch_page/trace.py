"""One planned batch through its chain once more, with what each stage made of each clip.

Nothing is copied from a run: the chain is a pure function, so it draws again what it drew there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from s3prl_stream.pipes.record_draws import RecordDraws
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import PlannedBatch, Sample
from s3prl_stream.stream import ShardStream


class Trace(NamedTuple):
    """What became of the clips of a batch."""

    stages: list[Stage]
    """Without `record_draws`: what is drawn is recorded in any case."""
    after: list[dict[int, list[Sample]]]
    """Place of a clip in the planned batch -> its samples: [0] as read, [1] after the first stage ..."""
    damaged: list[dict[str, Any]]
    """As `Loader.damaged`."""


def trace_batch(root: ShardStream, stages: Sequence[Stage], planned: PlannedBatch) -> Trace:
    """Read and process one batch on this process's CPU, also where the chain moves to a device.

    Args:
        root: of the chain.
        stages: the bound stages of the chain, root first.
        planned: what of a planned batch is delivered.

    Raises:
        ShardError: a shard cannot be read as a whole.
    """
    shown = [stage for stage in stages if not isinstance(stage, RecordDraws)]
    watches = [_Watch() for _ in range(len(shown) + 1)]
    watched: list[Stage] = [RecordDraws(), watches[0]]
    for stage, watch in zip(shown, watches[1:], strict=True):
        watched += [stage, watch]
    damaged = root.samples_of(planned, watched)[1] if planned.items else {}
    return Trace(shown, [watch.seen for watch in watches], list(damaged.values()))


class _Watch(Stage):
    """Remembers the samples that pass, by their place in the batch."""

    functional_name = "watch"

    def __init__(self) -> None:
        super().__init__()
        self.seen: dict[int, list[Sample]] = {}

    def emit(self, sample: Sample) -> Iterator[Sample]:
        self.seen.setdefault(sample.get("slot", -1), []).append(sample)
        yield sample
