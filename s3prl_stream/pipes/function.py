"""Stages as a function of one sample, for loaders that map functions over their own samples."""

from __future__ import annotations

from collections.abc import Mapping

from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes.plain_source import PlainSource, naming, tagged
from s3prl_stream.pipes.run_stages import through
from s3prl_stream.pipes.sequential import SequentialDataPipe
from s3prl_stream.pipes.stage import Stage, stages_of
from s3prl_stream.sample import Sample
from s3prl_stream.timing import StageClock


class SampleFunction:
    """`SampleFunction(NormWav(), NoiseAugmentation())(sample)`: the sample after these stages.

    It pickles, holds no position and no generator: what it draws follows from (seed, epoch, the sample's key).

    Args:
        *stages: stages or sequences of them that make one sample of each (1 -> 1).
        seed: of the draws.
        epoch: of the draws. Set the attribute before each epoch; worker processes have the copy that they began with.

    Raises:
        ChainError: a stage may make several samples of one, or none, or looks at whole batches.
        UsageError: a stage would learn from the data (give it categories= or tokenizer=); when called, a sample that
            has neither "key" nor WebDataset's "__key__", or not what a stage takes.
        SampleError: when called with a sample that a stage cannot use.
    """

    def __init__(self, *stages: Stage | SequentialDataPipe, seed: int = 0, epoch: int = 0) -> None:
        self.stages = stages_of(SequentialDataPipe(*stages)(PlainSource(iter(()))))
        self.seed = seed
        self.epoch = epoch
        for stage in self.stages:
            if not stage.keeps_count or stage.scope == "batch":
                raise ChainError(
                    f"{type(stage).__name__} does not make one sample of one, and a function must. Give it the whole "
                    "iterable: stage(samples)."
                )

    def __call__(self, sample: Mapping[str, object]) -> Sample:
        """The sample after the stages; the one that came in stays as it is."""
        if not isinstance(sample, Mapping):
            raise UsageError(f"a {type(sample).__name__} is no sample, which is a dict; of a list call it for each")
        key = sample.get("key", sample.get("__key__"))
        if isinstance(key, list | tuple) or getattr(key, "ndim", None):
            raise UsageError(
                f"'key' is {key!r:.80}: these are several samples, a dict of lists, as Hugging Face's set_transform "
                "and map(batched=True) give. Call the function for each of them (docs/use_one_pipe.md)."
            )
        if key is None:
            raise UsageError(
                'a sample without "key": what is drawn for it must follow from a name of its own. Give it one, such as '
                "its file's name. It has: " + ", ".join(map(str, sample))
            )
        known = tagged(sample, str(key), seed=self.seed, epoch=self.epoch)
        with naming(known):
            made = through(self.stages, known, StageClock())
        if len(made) != 1:
            raise ChainError(
                f"{' > '.join(stage.stage_id for stage in self.stages)} made {len(made)} samples of {str(key)!r}, and "
                "a function must make one: a stage that does not says keeps_count = False."
            )
        return made[0]

    def __repr__(self) -> str:
        stages = ", ".join(stage.describe() for stage in self.stages)
        return f"SampleFunction({stages}, seed={self.seed}, epoch={self.epoch})"
