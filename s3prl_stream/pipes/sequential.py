"""Stages bound one after the other: the same chain as `source.first().second()`, in S3PRL's spelling."""

from __future__ import annotations

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.stage import Samples, Stage


class SequentialDataPipe:
    """Several stages that are used like one: `SequentialDataPipe(LoadAudio(), NormWav())(data)`.

    It can stand among the stages of another one, serve several sources, and leaves its stages as they are.

    Args:
        *stages: stages, or other sequences, in the order of the data. None at all is refused.
    """

    def __init__(self, *stages: Stage | SequentialDataPipe) -> None:
        for position, stage in enumerate(stages):
            if not isinstance(stage, Stage | SequentialDataPipe):
                raise UsageError(
                    f"SequentialDataPipe: argument {position} is {stage!r}; give stages such as NormWav(), and the "
                    "data afterwards: SequentialDataPipe(NormWav())(data)."
                )
        if not stages:
            raise UsageError("SequentialDataPipe: give at least one stage, such as SequentialDataPipe(NormWav()).")
        self.stages = stages

    def __call__(self, source: Samples) -> Stage:
        """The last stage of the chain that begins at `source` (a root, a chain, a list, an iterable or a dict)."""
        bound: Stage = self.stages[0](source)
        for stage in self.stages[1:]:
            bound = stage(bound)
        return bound

    def __repr__(self) -> str:
        return f"SequentialDataPipe({', '.join(_describe(stage) for stage in self.stages)})"


def _describe(stage: Stage | SequentialDataPipe) -> str:
    return stage.describe() if isinstance(stage, Stage) else repr(stage)
