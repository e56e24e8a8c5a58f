"""The switch for looking at random draws: in the sample itself, so that it works in any loader."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample


@chained("record_draws")
class RecordDraws(Stage):
    """Have the random stages after this one write down the numbers that they draw; no other value changes.

    In:     anything.
    Out:    draws, {stage: {name: number}}; in a batch a list of them. 1 -> 1.
    Random: none.

    What is an array, or is in the sample anyhow (masks, where a crop or a chunk begins), is not written down again. It
    does not belong to what a batch is: a state of the same chain without it may be loaded.
    """

    provides: Mapping[str, str] = {"draws": "any"}
    in_identity = False

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {**sample, "draws": {}}
