"""Which frames a network that contrasts or classifies frames must not see: wav2vec 2.0, HuBERT.

Baevski et al., "wav2vec 2.0", NeurIPS 2020, 3.1: a share of all frames is drawn without replacement, and each begins a
span of 10 frames; spans may overlap. Hsu et al., "HuBERT", TASLP 2021, does the same with more of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.arguments import one_of, probability, whole_number
from s3prl_stream.errors import SampleError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.on_batch import Drawn, OnBatch
from s3prl_stream.sample import Batch, Sample

KINDS = {"wav2vec2": 0.65, "hubert": 0.8}
"""Frames in spans as a share of all, overlaps counted twice: 10 times the share of frames that begin one."""

FIELD_SAMPLES, STRIDE_SAMPLES = 400, 320
"""Of both models' convolutions: the waveform samples that a frame sees, and from one frame to the next."""


def span_mask(
    num_frames: int, rng: np.random.Generator, *, prob: float, span_frames: int = 10, min_spans: int = 2
) -> npt.NDArray[np.bool_]:
    """Which of the frames are hidden, bool [num_frames].

    The number of spans is prob * num_frames / span_frames, rounded up or down at random so that this is its mean; each
    begins at another frame. In an utterance of fewer than two spans they are half as long as the utterance, so that
    something is hidden and (from three frames on) something may be seen.

    Args:
        num_frames: 1 or more.
        rng: where the draws come from.
        prob: share of the frames in spans, overlaps counted twice, 0 to 1.
        span_frames: frames in a span.
        min_spans: at least so many, as far as there are places.
    """
    span = min(span_frames, max(num_frames // 2, 1))
    places = num_frames - span + 1
    num_spans = max(int(prob * num_frames / span_frames + rng.random()), min_spans)
    first_N = rng.permutation(places)[:num_spans]
    hidden_F = np.zeros(num_frames, dtype=np.bool_)
    hidden_F[(first_N[:, None] + np.arange(span)).ravel()] = True
    return hidden_F


@chained("mask_spans")
class SpanMask(OnBatch):
    """Draw spans of frames for a network that hides them behind its convolutions.

    In:     wav [T] of any type, or what `like` names, [F, ...].
    Out:    frame_mask bool [F], True where a frame is to be hidden; False on the padding of a batch. 1 -> 1.
    Random: number and beginnings of the spans, by identity.
    Raises: SampleError "too_short" (the sample is left out and listed) for a waveform without a frame.

    Args:
        kind: "wav2vec2" (prob 0.65: half of the frames) or "hubert" (0.8).
        prob: share of the frames in spans, overlaps counted twice; None: that of the kind.
        span_frames: frames in a span.
        min_spans: least number of spans.
        like: the key whose frames are meant; None: those that the convolutions of both models make of wav at 16 kHz,
            1 + (T - 400) // 320.
    """

    positional = "kind"
    provides: Mapping[str, str] = {"frame_mask": "bool [F]"}

    def __init__(
        self,
        source: Iterable[Sample] | None = None,
        *,
        kind: str = "wav2vec2",
        prob: float | None = None,
        span_frames: int = 10,
        min_spans: int = 2,
        like: str | None = None,
    ) -> None:
        if prob is not None:
            probability("mask_spans", prob)
        self.kind = one_of("mask_spans", "kind", kind, KINDS)
        self.prob = prob
        self.span_frames = whole_number("mask_spans", "span_frames", span_frames, least=1)
        self.min_spans = whole_number("mask_spans", "min_spans", min_spans, least=1)
        self.like = like
        self.takes = {"wav": "float32|int16 [T]"} if like is None else {like: "any"}
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {**sample, **{name: torch.from_numpy(mask) for name, mask in self.draw(sample, self.rng(sample)).items()}}

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """All of it: the frames that are hidden."""
        if self.like is None:
            num_frames = (len(sample["wav"]) - FIELD_SAMPLES) // STRIDE_SAMPLES + 1
        else:
            num_frames = len(sample[self.like])
        if num_frames < 1:
            raise SampleError(f"{sample['key']}: too short for one frame to be hidden", reason="too_short")
        prob = KINDS[self.kind] if self.prob is None else self.prob
        mask_F = span_mask(num_frames, rng, prob=prob, span_frames=self.span_frames, min_spans=self.min_spans)
        return {"frame_mask": mask_F}

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:
        lengths = drawn.on_device.get("frame_mask_len")
        return {**batch, "frame_mask": drawn["frame_mask"], **({} if lengths is None else {"frame_mask_len": lengths})}
