"""Masks for reconstruction: spans of frames and a band of bins are altered, and the network has to restore them.

From S3PRL's Mockingjay and TERA (Liu et al., "Mockingjay", ICASSP 2020; "TERA", TASLP 2021). S3PRL throws one dice per
utterance, so that whole utterances stay unmasked; by default each span throws its own here, as the papers describe.

All numpy: torch would wake its pool of threads for arrays of this size, in every loading process.

F frames, D bins, N spans, C frames in a span.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.on_batch import Drawn, OnBatch, is_valid
from s3prl_stream.pipes.stage import chained
from s3prl_stream.sample import Batch, Sample

Ints: TypeAlias = npt.NDArray[np.int64]

SPAN_FRAMES = 7
TIME_SHARE = 0.15
ZERO_BELOW, REPLACE_BELOW = 0.8, 0.9
"""A dice in [0, 1): below the first the span becomes 0, below the second another span, otherwise it stays."""

BAND_SHARE = {"tera": 0.2, "mockingjay": 0.0, "audio_albert": 0.0}
"""Widest band of the frequency mask as a share of the bins."""


def reconstruction_mask(
    feat: Tensor, rng: np.random.Generator, *, band_share: float, legacy: bool = False
) -> tuple[Tensor, Tensor]:
    """Alter spans of 7 frames (15 % of all, overlaps allowed) and one band of bins.

    A chosen span becomes 0 (80 %), a copy of another span (10 %) or stays (10 %); the band becomes 0 over all frames.
    Both are to be reconstructed. An utterance too short for a span gets one of min(7, F) frames.

    Args:
        feat: float32 [F, D]; not altered.
        rng: where the draws come from.
        band_share: the band is 0 to int(D * band_share) bins wide, uniformly.
        legacy: S3PRL's draws: one dice for all spans, never the last frame or bin, and below 24 frames no span at all,
            so that the mask can be empty.

    Returns:
        (the altered features, float32 [F, D]; what is to be reconstructed, bool [F, D]).
    """
    feat_FD = np.asarray(feat)
    num_frames, num_bins = feat_FD.shape
    drawn = draw_mask(num_frames, num_bins, rng, band_share=band_share, legacy=legacy)
    band = slice(drawn.lowest, drawn.lowest + drawn.width)
    masked_FD = feat_FD[np.maximum(drawn.origin, 0)]
    masked_FD[drawn.origin < 0] = 0.0
    masked_FD[:, band] = 0.0
    selected_FD = np.repeat(drawn.chosen[:, None], num_bins, axis=1)
    selected_FD[:, band] = True
    return torch.from_numpy(masked_FD), torch.from_numpy(selected_FD)


class MaskDraw(NamedTuple):
    """What is drawn for the mask of one utterance."""

    origin: Ints
    """[F]: frame from which each frame is taken; -1: none, it becomes 0."""
    chosen: npt.NDArray[np.bool_]
    """[F]: frames to be reconstructed."""
    lowest: int
    width: int
    """The band: its first bin, and how many."""


def draw_mask(
    num_frames: int, num_bins: int, rng: np.random.Generator, *, band_share: float, legacy: bool = False
) -> MaskDraw:
    """The random part of `reconstruction_mask`, of which the shape of the features is enough."""
    origin_F, chosen_F = np.arange(num_frames), np.zeros(num_frames, dtype=np.bool_)
    first_N, span = _draw_spans(num_frames, rng, legacy=legacy)
    if len(first_N):
        frames_NC = first_N[:, None] + np.arange(span)
        dice_N = np.full(len(first_N), rng.random()) if legacy else rng.random(len(first_N))
        other_N = rng.permutation(_num_places(num_frames, span, legacy=legacy))[: len(first_N)]
        origin_F = _origins(num_frames, frames_NC, dice_N, other_N)
        chosen_F[frames_NC.ravel()] = True
    width = int(rng.integers(0, int(num_bins * band_share) + 1))
    lowest = int(rng.integers(0, num_bins - width + (0 if legacy else 1))) if width else 0
    return MaskDraw(origin_F, chosen_F, lowest, width)


@chained("mask")
class MaskedReconstruction(OnBatch):
    """Mask features for a network that reconstructs them; `feat` stays as the target.

    In:     feat float32 [F, D].
    Out:    masked_feat float32 [F, D]; loss_mask bool [F, D], True where the loss is taken. 1 -> 1.
    Random: spans, dice, band; by identity.
    Raises: nothing. The loss mask is never empty, except with legacy=True below 24 frames (S3PRL drops those).

    Args:
        kind: "tera" (spans and a band of up to 20 % of the bins), "mockingjay" or "audio_albert" (spans only).
        legacy: the draws of S3PRL; see `reconstruction_mask`.
    """

    positional = "kind"
    takes: Mapping[str, str] = {"feat": "float32 [F, D]"}
    provides: Mapping[str, str] = {"masked_feat": "float32 [F, D]", "loss_mask": "bool [F, D]"}

    def __init__(self, source: Iterable[Sample] | None = None, *, kind: str = "tera", legacy: bool = False) -> None:
        if kind not in BAND_SHARE:
            raise UsageError(f".mask(kind={kind!r}): there are {', '.join(BAND_SHARE)}")
        self.kind = kind
        self.legacy = legacy
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterable[Sample]:
        """The sample with its masked features."""
        masked_FD, selected_FD = reconstruction_mask(
            torch.as_tensor(sample["feat"]), self.rng(sample), band_share=BAND_SHARE[self.kind], legacy=self.legacy
        )
        yield {**sample, "masked_feat": masked_FD, "loss_mask": selected_FD}

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """The `MaskDraw` of a sample."""
        frames, bins = sample["feat"].shape
        return draw_mask(frames, bins, rng, band_share=BAND_SHARE[self.kind], legacy=self.legacy)._asdict()

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:
        """The batch with the masked features of its rows."""
        feat_BFD, lengths_B = batch["feat"], batch["feat_len"]
        origin_BF1 = drawn["origin"][:, :, None]
        bin_D = torch.arange(feat_BFD.shape[2], device=feat_BFD.device)
        band_BD = (bin_D >= drawn["lowest"][:, None]) & (bin_D < (drawn["lowest"] + drawn["width"])[:, None])
        valid_BF1 = is_valid(lengths_B, feat_BFD.shape[1])[:, :, None]
        taken_BFD = feat_BFD.gather(1, origin_BF1.clamp(min=0).expand_as(feat_BFD))
        masked_BFD = taken_BFD.masked_fill((origin_BF1 < 0) | band_BD[:, None] | ~valid_BF1, 0.0)
        selected_BFD = (drawn["chosen"][:, :, None] | band_BD[:, None]) & valid_BF1
        lengths = {"masked_feat_len": lengths_B, "loss_mask_len": lengths_B}
        return {**batch, "masked_feat": masked_BFD, "loss_mask": selected_BFD, **lengths}


def _draw_spans(num_frames: int, rng: np.random.Generator, *, legacy: bool) -> tuple[Ints, int]:
    """(first frames of the chosen spans [N], distinct; frames in a span)."""
    span = min(SPAN_FRAMES, num_frames)
    num_spans = round(TIME_SHARE * num_frames / SPAN_FRAMES)
    if not legacy:
        num_spans = max(num_spans, 1)
    return rng.permutation(_num_places(num_frames, span, legacy=legacy))[:num_spans], span


def _num_places(num_frames: int, span: int, *, legacy: bool) -> int:
    """Number of frames at which a span can begin."""
    return max(num_frames - span + (0 if legacy else 1), 1)


def _origins(num_frames: int, frames_NC: Ints, dice_N: npt.NDArray[np.float64], other_N: Ints) -> Ints:
    """[F]: frame from which each frame is taken [F]; -1: none, it becomes 0. Of overlapping spans the last counts."""
    origin_NC = frames_NC.copy()
    replaced_N = (dice_N >= ZERO_BELOW) & (dice_N < REPLACE_BELOW)
    origin_NC[replaced_N] = other_N[replaced_N, None] + np.arange(frames_NC.shape[1])
    origin_NC[dice_N < ZERO_BELOW] = -1
    origin_F = np.arange(num_frames)
    origin_F[frames_NC.ravel()] = origin_NC.ravel()
    return origin_F
