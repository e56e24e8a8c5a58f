"""Random level."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from s3prl_stream.arguments import number_range, probability
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.on_batch import Drawn, OnBatch, numbers_of
from s3prl_stream.pipes.stage import Samples
from s3prl_stream.sample import Batch, Sample


@chained("random_gain", key_names={"wav_name": "wav"})
class RandomGain(OnBatch):
    """Make a share of the waveforms louder or quieter by a gain drawn uniformly in dB; nothing is clipped.

    In:     wav float32 [T].
    Out:    wav float32 [T]. 1 -> 1.
    Random: by identity: the coin (uniform), the gain (uniform).

    Args:
        gain_db: (lowest, highest) gain in dB, or one number.
        prob: share of the waveforms that are changed, 0 to 1.

    Raises:
        UsageError: at construction, for a value out of its range.
    """

    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"wav": "float32 [T]"}

    def __init__(
        self, source: Samples | None = None, *, gain_db: Sequence[float] | float = (-6.0, 6.0), prob: float = 1.0
    ) -> None:
        self.gain_db = number_range("random_gain", "gain_db", gain_db)
        self.prob = probability("random_gain", prob)
        super().__init__(source)

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:  # noqa: ARG002
        """The gain; 0 dB where the coin says no."""
        return {"gain_db": float(rng.uniform(*self.gain_db)) if rng.random() < self.prob else 0.0}

    def emit(self, sample: Sample) -> Iterator[Sample]:
        drawn = self.draw(sample, self.rng(sample))
        yield self.noted({**sample, "wav": sample["wav"] * 10.0 ** (drawn["gain_db"] / 20.0)}, **numbers_of(drawn))

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:
        gain_B1 = (10.0 ** (drawn["gain_db"].double() / 20.0))[:, None]
        return {**batch, "wav": batch["wav"] * gain_B1.float()}
