"""Effects in sox's spelling as a stage, with arguments that may be ranges."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from s3prl_stream.arguments import number_range, probability
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.effects import Effects, apply_effects, check_effects, keeps_length, stretch_of
from s3prl_stream.pipes.segments import Segments, as_segments
from s3prl_stream.pipes.stage import Samples, Stage
from s3prl_stream.sample import UNCUTTABLE_KEYS, Sample

CUTTING = frozenset({"trim", "silence"})
REORDERING = CUTTING | {"reverse"}


@chained("sox_effects")
class SoxEffects(Stage):
    """Apply a list of sox-style effects to a share of the waveforms.

    In:     wav float32 [T]; sample_rate (Hz).
    Out:    wav float32 [T'], clipped at full scale, and its sample_rate. Segments follow `speed` and `tempo`; they are
            left out after effects that cut or reverse, and after those that cut text and tokens too. 1 -> 1.
    Random: by identity: the coin (uniform), then each range in turn (uniform), then what `dither` needs.

    Args:
        effects: such as [["gain", "-3.0"], ["pitch", (-200, 200)]]: a name of `effects.KNOWN` and its arguments. An
            argument that is a pair (lowest, highest) is drawn for each waveform.
        prob: share of the waveforms that is changed, 0 to 1.

    Raises:
        UsageError: at construction, for an unknown effect or argument.
    """

    positional = "effects"
    takes: Mapping[str, str] = {"wav": "float32 [T]", "sample_rate": "any"}
    provides: Mapping[str, str] = {"wav": "float32 [T]", "sample_rate": "any"}

    def __init__(self, source: Samples | None = None, *, effects: Sequence[Sequence[Any]], prob: float = 1.0) -> None:
        self.effects = effects
        self.prob = probability("sox_effects", prob)
        ends = [_with_ranges(effects, end) for end in (0, 1)]
        for concrete in ends:
            check_effects(concrete)
        names = {str(effect[0]) for effect in effects}
        if names & REORDERING:
            self.removes = frozenset({"segments", *(UNCUTTABLE_KEYS if names & CUTTING else ())})
        self.keeps_length = keeps_length(ends[0])
        self.stretch = max(1.0, stretch_of(ends[0]), stretch_of(ends[1]))
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        rng = self.rng(sample)
        kept = {name: value for name, value in sample.items() if name not in self.removes}
        if rng.random() >= self.prob:
            yield self.noted(kept, applied=False)
            return
        effects = _drawn(self.effects, rng)
        rate, wav = int(sample["sample_rate"]), sample["wav"].numpy()
        changed, new_rate = apply_effects(wav, rate, effects, rng)
        if kept.get("segments") is not None:
            kept["segments"] = scaled_segments(kept, stretch_of(effects))
        out = {**kept, "wav": torch.from_numpy(np.ascontiguousarray(changed)), "sample_rate": new_rate}
        yield self.noted(out, applied=True, effects=effects)


def scaled_segments(sample: Sample, by: float) -> Segments:
    """The segments of a sample whose waveform has become `by` times as long."""
    segments = as_segments(sample["segments"], str(sample["key"]))
    return [{**one, "start": one["start"] * by, "end": one["end"] * by} for one in segments]


def _with_ranges(effects: Sequence[Sequence[Any]], end: int) -> Effects:
    """The effects with one end (0: lowest, 1: highest) of each range."""
    if not isinstance(effects, list | tuple):
        return effects
    return [
        [number_range("sox_effects", effect[0], part)[end] if isinstance(part, tuple) else part for part in effect]
        if isinstance(effect, list | tuple)
        else effect
        for effect in effects
    ]


def _drawn(effects: Sequence[Sequence[Any]], rng: np.random.Generator) -> Effects:
    return [[float(rng.uniform(*part)) if isinstance(part, tuple) else part for part in effect] for effect in effects]
