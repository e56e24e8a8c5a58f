"""Judging a task under another trainer: the clips of the validation part, and the model that answers."""

from __future__ import annotations

from collections.abc import Iterator

from s3prl_stream.adapters.updates import UpdateLoss
from s3prl_stream.downstream.model import DownstreamModel
from s3prl_stream.errors import UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.pipes.stage import Source
from s3prl_stream.sample import Batch


class Judged:
    """The batches of a stream that ends, all of them on every rank, from the beginning each time.

    It has no state: a trainer that looked for one would keep the place in the last pass.
    """

    def __init__(self, stream: Source) -> None:
        self.stream = stream

    def __iter__(self) -> Iterator[Batch]:
        return iter(Loader(self.stream, rank=0, world_size=1))


def judged_model(loss: UpdateLoss) -> DownstreamModel:
    """The model whose loss it is; UsageError if that is no model of a task."""
    if not isinstance(loss.objective, DownstreamModel):
        raise UsageError("only the model of a task can be judged; ss.training_parts gives one")
    return loss.objective
