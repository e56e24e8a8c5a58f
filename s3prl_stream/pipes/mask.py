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

from s3prl_stream.arguments import one_of, probability, whole_number
from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import key_hash
from s3prl_stream.padding import is_valid
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.on_batch import Drawn, OnBatch, normals_of_rows, numbers_of
from s3prl_stream.pipes.s3prl_arguments import MASK_REFUSED, mask_arguments
from s3prl_stream.sample import Batch, Sample

Ints: TypeAlias = npt.NDArray[np.int64]

SPAN_FRAMES = 7
TIME_SHARE = 0.15
APART = 1.5
"""Where spans must not overlap, they begin at multiples of so many span lengths."""
NOISE_DEVIATION = 0.2
ZERO_BELOW, REPLACE_BELOW = 0.8, 0.9
"""A dice in [0, 1): below the first the span becomes 0, below the second another span, otherwise it stays."""

BAND_SHARE = {"tera": 0.2, "mockingjay": 0.0, "audio_albert": 0.0}
"""Widest band of the frequency mask as a share of the bins."""


class MaskSettings(NamedTuple):
    """What kind of mask is drawn."""

    band_share: float
    """The band is 0 to int(D * band_share) bins wide, uniformly."""
    legacy: bool = False
    """S3PRL's draws: one dice for all spans, never the last frame or bin, and below 24 frames no span at all, so that
    the mask can be empty."""
    time_share: float = TIME_SHARE
    """Share of the frames in spans, overlaps counted twice; 0: no spans."""
    span_frames: int = SPAN_FRAMES
    overlap: bool = True
    """False: spans begin at multiples of 1.5 span lengths, from a random frame on."""


class MaskDraw(NamedTuple):
    """What is drawn for the mask of one utterance."""

    origin: Ints
    """[F]: frame from which each frame is taken; -1: none, it becomes 0."""
    chosen: npt.NDArray[np.bool_]
    """[F]: frames to be reconstructed."""
    lowest: int
    width: int
    """The band: its first bin, and how many."""


def draw_mask(num_frames: int, num_bins: int, rng: np.random.Generator, settings: MaskSettings) -> MaskDraw:
    """Draw spans of frames (by default of 7 frames, 15 % of all, overlaps allowed) and one band of bins.

    A chosen span becomes 0 (80 %), a copy of another span (10 %) or stays (10 %); the band becomes 0 over all frames.
    Both are to be reconstructed. An utterance too short for a span gets one of min(7, F) frames.
    """
    legacy = settings.legacy
    origin_F, chosen_F = np.arange(num_frames), np.zeros(num_frames, dtype=np.bool_)
    first_N, span = _draw_spans(num_frames, rng, settings)
    if len(first_N):
        frames_NC = first_N[:, None] + np.arange(span)
        dice_N = np.full(len(first_N), rng.random()) if legacy else rng.random(len(first_N))
        other_N = rng.permutation(_num_places(num_frames, span, legacy=legacy))[: len(first_N)]
        origin_F = _origins(num_frames, frames_NC, dice_N, other_N)
        chosen_F[frames_NC.ravel()] = True
    narrowest = 0 if legacy or len(first_N) else 1  # or nothing would be left to reconstruct
    width = int(rng.integers(narrowest, max(int(num_bins * settings.band_share), narrowest) + 1))
    lowest = int(rng.integers(0, num_bins - width + (0 if legacy else 1))) if width else 0
    return MaskDraw(origin_F, chosen_F, lowest, width)


def altered(feat_FD: npt.NDArray[np.float32], drawn: MaskDraw) -> npt.NDArray[np.float32]:
    """The features as the network sees them; a new array."""
    masked_FD = feat_FD[np.maximum(drawn.origin, 0)]
    masked_FD[drawn.origin < 0] = 0.0
    masked_FD[:, drawn.lowest : drawn.lowest + drawn.width] = 0.0
    return masked_FD


def selected(drawn: MaskDraw, num_bins: int) -> npt.NDArray[np.bool_]:
    """What is to be reconstructed, [F, D]."""
    selected_FD = np.repeat(drawn.chosen[:, None], num_bins, axis=1)
    selected_FD[:, drawn.lowest : drawn.lowest + drawn.width] = True
    return selected_FD


@chained(
    "mask",
    aliases={
        "mask_proportion": "time_share",
        "mask_frequency": "band_share",
        "mask_allow_overlap": "overlap",
        "noise_proportion": "noise_prob",
    },
    key_names={"target_feat_name": "feat", "source_feat_name": "masked_feat", "label_mask_name": "loss_mask"},
    refused=MASK_REFUSED,
    translate=mask_arguments,
)
class MaskedReconstruction(OnBatch):
    """Mask features for a network that reconstructs them; `feat` stays as the target.

    In:     feat float32 [F, D].
    Out:    masked_feat float32 [F, D]; loss_mask bool [F, D], True where the loss is taken. 1 -> 1.
    Random: spans, dice, band, then (with noise_prob) a coin and the noise; by identity.
    Raises: nothing. The loss mask is never empty, except with legacy=True below 24 frames (S3PRL drops those).

    Args:
        kind: "tera" (spans and a band of up to 20 % of the bins), "mockingjay" or "audio_albert" (spans only).
        legacy: the draws of S3PRL; see `MaskSettings`.
        time_share: share of the frames in spans, 0 to 1, overlaps counted twice. (S3PRL: mask_proportion)
        span_frames: frames in a span. (S3PRL: mask_consecutive_min and _max)
        band_share: widest band as a share of the bins, 0 to 1; None: that of the kind. (S3PRL: mask_frequency)
        overlap: whether spans may overlap. (S3PRL: mask_allow_overlap)
        noise_prob: share of the utterances whose input gets Gaussian noise of deviation 0.2 (TERA's magnitude
            alteration): before they are masked, with legacy=True after it. (S3PRL: noise_proportion)
    """

    positional = "kind"
    takes: Mapping[str, str] = {"feat": "float32 [F, D]"}
    provides: Mapping[str, str] = {"masked_feat": "float32 [F, D]", "loss_mask": "bool [F, D]"}

    def __init__(
        self,
        source: Iterable[Sample] | None = None,
        *,
        kind: str = "tera",
        legacy: bool = False,
        time_share: float = 0.15,
        span_frames: int = 7,
        band_share: float | None = None,
        overlap: bool = True,
        noise_prob: float = 0.0,
    ) -> None:
        self.kind = one_of("mask", "kind", kind, BAND_SHARE)
        self.time_share = probability("mask", time_share, "time_share")
        self.span_frames = whole_number("mask", "span_frames", span_frames, least=1)
        self.noise_prob = probability("mask", noise_prob, "noise_prob")
        widest = BAND_SHARE[kind] if band_share is None else probability("mask", band_share, "band_share")
        if not self.time_share and not widest:
            raise UsageError(".mask(time_share=0): with no band either, there is nothing to reconstruct")
        self.legacy = legacy
        self.band_share = band_share
        self.overlap = overlap
        self.settings = MaskSettings(widest, legacy, self.time_share, self.span_frames, overlap)
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterable[Sample]:
        feat_FD, rng = np.asarray(sample["feat"]), self.rng(sample)
        num_frames, num_bins = feat_FD.shape
        mask = draw_mask(num_frames, num_bins, rng, self.settings)
        drawn = numbers_of(mask._asdict())
        noise_FD = None
        if self.noise_prob:
            drawn["noisy"] = bool(rng.random() < self.noise_prob)
        if drawn.get("noisy"):
            noise_FD = rng.standard_normal(feat_FD.shape, dtype=np.float32) * np.float32(NOISE_DEVIATION)
        if noise_FD is not None and not self.legacy:
            feat_FD = feat_FD + noise_FD
        masked_FD = altered(feat_FD, mask)
        if noise_FD is not None and self.legacy:
            masked_FD += noise_FD
        selected_FD = selected(mask, num_bins)
        out = {**sample, "masked_feat": torch.from_numpy(masked_FD), "loss_mask": torch.from_numpy(selected_FD)}
        yield self.noted(out, **drawn)

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """The `MaskDraw` of a sample, and with noise_prob the coin and a seed for the noise."""
        num_frames, num_bins = sample["feat"].shape
        drawn = draw_mask(num_frames, num_bins, rng, self.settings)._asdict()
        if not self.noise_prob:
            return drawn
        noisy = bool(rng.random() < self.noise_prob)
        return {**drawn, "noisy": noisy, "seed": key_hash(f"{self.stage_id}/{sample['identity']}") >> 1}

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:
        feat_BFD, lengths_B = batch["feat"], batch["feat_len"]
        origin_BF1 = drawn["origin"][:, :, None]
        bin_D = torch.arange(feat_BFD.shape[2], device=feat_BFD.device)
        band_BD = (bin_D >= drawn["lowest"][:, None]) & (bin_D < (drawn["lowest"] + drawn["width"])[:, None])
        valid_BF1 = is_valid(lengths_B, feat_BFD.shape[1])[:, :, None]
        noise_BFD = None
        if self.noise_prob:
            counts = [feat_BFD.shape[1] if noisy else 0 for noisy in drawn.host["noisy"].tolist()]
            normals_BFD = normals_of_rows(feat_BFD, drawn.host["seed"], counts)
            noise_BFD = normals_BFD * NOISE_DEVIATION * valid_BF1
        if noise_BFD is not None and not self.legacy:
            feat_BFD = feat_BFD + noise_BFD
        taken_BFD = feat_BFD.gather(1, origin_BF1.clamp(min=0).expand_as(feat_BFD))
        masked_BFD = taken_BFD.masked_fill((origin_BF1 < 0) | band_BD[:, None] | ~valid_BF1, 0.0)
        if noise_BFD is not None and self.legacy:
            masked_BFD = masked_BFD + noise_BFD
        selected_BFD = (drawn["chosen"][:, :, None] | band_BD[:, None]) & valid_BF1
        lengths = {"masked_feat_len": lengths_B, "loss_mask_len": lengths_B}
        return {**batch, "masked_feat": masked_BFD, "loss_mask": selected_BFD, **lengths}


def _draw_spans(num_frames: int, rng: np.random.Generator, settings: MaskSettings) -> tuple[Ints, int]:
    """(first frames of the chosen spans [N], distinct; frames in a span)."""
    span = min(settings.span_frames, num_frames)
    num_spans = round(settings.time_share * num_frames / settings.span_frames)
    if not settings.legacy and settings.time_share:
        num_spans = max(num_spans, 1)
    places = _num_places(num_frames, span, legacy=settings.legacy)
    if settings.overlap:
        return rng.permutation(places)[:num_spans], span
    offset = int(rng.integers(0, min(span, places - 1) + 1))
    first_N = np.arange(offset, places, max(round(APART * span), 1))
    return rng.permutation(first_N)[:num_spans], span


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
