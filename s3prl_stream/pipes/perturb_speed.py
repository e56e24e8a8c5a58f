"""Speed perturbation: tempo and pitch together, as Kaldi's recipes have it.

Ko et al., "Audio augmentation for speech recognition", Interspeech 2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence

import torch

from s3prl_stream.arguments import one_number, probability
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.effects import change_speed
from s3prl_stream.pipes.outline import Outline
from s3prl_stream.pipes.sox_effects import scaled_segments
from s3prl_stream.pipes.stage import Samples, Stage
from s3prl_stream.sample import Sample


@chained("perturb_speed", key_names={"wav_name": "wav"})
class SpeedPerturbation(Stage):
    """Play each waveform at one of some speeds.

    In:     wav float32 [T].
    Out:    wav float32 [round(T / factor)], at the sample rate it had; segments follow. 1 -> 1.
    Random: by identity: the coin (uniform), which factor (integer).

    A waveform gets longer by up to 1 / the least factor, so the batches of a stream are planned smaller by that.

    Args:
        factors: one of them is drawn for each waveform, all equally often; 1.1 is faster, shorter and higher.
        prob: share of the waveforms for which one is drawn, 0 to 1; the others keep their speed.

    Raises:
        UsageError: at construction, for a value out of its range.
    """

    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"wav": "float32 [T]"}
    keeps_length = False

    def __init__(
        self, source: Samples | None = None, *, factors: Sequence[float] = (0.9, 1.0, 1.1), prob: float = 1.0
    ) -> None:
        if not isinstance(factors, Iterable) or isinstance(factors, str) or not len(factors):
            raise UsageError(f"perturb_speed: factors={factors!r} are no list of factors, such as (0.9, 1.0, 1.1)")
        self.factors = tuple(one_number("perturb_speed", "factors", factor, least=0.1, most=10) for factor in factors)
        self.prob = probability("perturb_speed", prob)
        self.stretch = max(1.0, 1.0 / min(self.factors))
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        factor = self._factor(sample)
        if factor != 1.0:
            sample = {**sample, "wav": torch.from_numpy(change_speed(sample["wav"].numpy(), factor))}
            if sample.get("segments") is not None:
                sample["segments"] = scaled_segments(sample, 1.0 / factor)
        yield self.noted(sample, factor=factor)

    def outline(self, before: Outline) -> Iterator[Outline]:
        """Its length, from what is drawn for it."""
        yield before._replace(num_frames=round(before.num_frames / self._factor(before.sample)))

    def _factor(self, sample: Sample) -> float:
        rng = self.rng(sample)
        return 1.0 if rng.random() >= self.prob else self.factors[int(rng.integers(len(self.factors)))]
