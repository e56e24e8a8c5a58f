"""SpecAugment: features warped in time, with bands of bins and stretches of frames masked.

Park et al., "SpecAugment: A Simple Data Augmentation Method for Automatic Speech Recognition", Interspeech 2019. The
defaults are those of S3PRL's ASR task, for features of some hundred dimensions.

F frames, D bins, N masks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3prl_stream.arguments import number_range, one_of, probability, whole_number
from s3prl_stream.errors import UsageError
from s3prl_stream.padding import is_valid
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.on_batch import Drawn, OnBatch, numbers_of
from s3prl_stream.pipes.stage import Samples
from s3prl_stream.sample import Batch, Sample

F32: TypeAlias = npt.NDArray[np.float32]
I64: TypeAlias = npt.NDArray[np.int64]


@chained("spec_augment", key_names={"feat_name": "feat"})
class SpecAugment(OnBatch):
    """Warp and mask a share of the features.

    In:     feat float32 [F, D].
    Out:    feat float32 [F, D]. 1 -> 1.
    Random: by identity: the coin (uniform); the warped frame and where it goes (integers); widths (integers) and places
            (uniform) of the masks of bins, then of frames.

    Args:
        freq_width: (least, most) bins in a mask of bins, both included; never more than there are.
        freq_masks: how many of them; they may overlap.
        time_width: (least, most) frames in a mask of frames, both included.
        time_masks: how many of them.
        max_time_share: no mask of frames is longer than this share of the frames, 0 to 1.
        warp_frames: a frame is moved by up to so many, and those before and behind it are stretched (linear
            interpolation);
            0: none is. Features of no more than twice as many frames, and two, stay as they are.
        fill: what masks are filled with: "zero" (the mean of normalised features), or "mean" of the features
            themselves.
        prob: share of the features that are changed, 0 to 1.

    Raises:
        UsageError: at construction, for a value out of its range.
    """

    takes: Mapping[str, str] = {"feat": "float32 [F, D]"}
    provides: Mapping[str, str] = {"feat": "float32 [F, D]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        freq_width: Sequence[int] = (0, 50),
        freq_masks: int = 4,
        time_width: Sequence[int] = (0, 40),
        time_masks: int = 2,
        max_time_share: float = 1.0,
        warp_frames: int = 5,
        fill: str = "zero",
        prob: float = 1.0,
    ) -> None:
        self.freq_width, self.time_width = _widths("freq_width", freq_width), _widths("time_width", time_width)
        self.freq_masks = whole_number("spec_augment", "freq_masks", freq_masks, least=0)
        self.time_masks = whole_number("spec_augment", "time_masks", time_masks, least=0)
        self.max_time_share = probability("spec_augment", max_time_share, "max_time_share")
        self.warp_frames = whole_number("spec_augment", "warp_frames", warp_frames, least=0)
        self.fill = one_of("spec_augment", "fill", fill, ("zero", "mean"))
        self.prob = probability("spec_augment", prob)
        super().__init__(source)

    def draw(self, sample: Sample, rng: np.random.Generator) -> dict[str, Any]:
        """The warp as (frame, where it goes), the masks as [N, 2] (first, behind the last)."""
        num_frames, num_bins = sample["feat"].shape
        applied = bool(rng.random() < self.prob)
        warp = {"warp_from": 1, "warp_to": 1}
        if not applied:
            none = {"freq": np.zeros((self.freq_masks, 2), int), "time": np.zeros((self.time_masks, 2), int)}
            return {"applied": applied, **warp, **none}
        if self.warp_frames and num_frames > 2 * self.warp_frames + 2:
            warp_from = int(rng.integers(self.warp_frames + 1, num_frames - self.warp_frames - 1))
            warp_to = warp_from + int(rng.integers(-self.warp_frames, self.warp_frames + 1))
            warp = {"warp_from": warp_from, "warp_to": warp_to}
        most = int(self.max_time_share * num_frames)
        return {
            "applied": applied,
            **warp,
            "freq": _masks(rng, self.freq_masks, self.freq_width, num_bins, num_bins),
            "time": _masks(rng, self.time_masks, self.time_width, num_frames, most),
        }

    def emit(self, sample: Sample) -> Iterator[Sample]:
        drawn = self.draw(sample, self.rng(sample))
        if drawn["applied"]:
            feat_FD = warped(np.asarray(sample["feat"]), drawn["warp_from"], drawn["warp_to"])
            value = feat_FD.mean(dtype=np.float64) if self.fill == "mean" and feat_FD.size else 0.0
            for first, stop in drawn["freq"]:
                feat_FD[:, first:stop] = value
            for first, stop in drawn["time"]:
                feat_FD[first:stop] = value
            sample = {**sample, "feat": torch.from_numpy(feat_FD)}
        yield self.noted(sample, **numbers_of(drawn))

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:
        feat_BFD, lengths_B = batch["feat"], batch["feat_len"]
        feat_BFD = _warped_rows(feat_BFD, lengths_B, drawn["warp_from"], drawn["warp_to"])
        valid_BF1 = is_valid(lengths_B, feat_BFD.shape[1])[:, :, None]
        masked_BFD = (
            _covered(drawn["freq"], feat_BFD.shape[2])[:, None] | _covered(drawn["time"], feat_BFD.shape[1])[:, :, None]
        )
        value: Tensor | float = 0.0
        if self.fill == "mean":
            sums_B = feat_BFD.masked_fill(~valid_BF1, 0.0).sum(dim=(1, 2), dtype=torch.float64)
            value = (sums_B / (lengths_B * feat_BFD.shape[2]).clamp(min=1)).float()[:, None, None]
        return {**batch, "feat": torch.where(masked_BFD & valid_BF1, value, feat_BFD)}


def warped(feat: F32, warp_from: int, warp_to: int) -> F32:
    """A copy of [F, D] in which frame `warp_from` stands at `warp_to`; the first and the last frame stay."""
    if warp_from == warp_to or len(feat) < 3:
        return np.array(feat)
    at_F = np.arange(len(feat), dtype=np.float64)
    place_F = np.interp(at_F, [0, warp_to, len(feat) - 1], [0, warp_from, len(feat) - 1])
    before_F = np.minimum(place_F.astype(np.int64), len(feat) - 2)
    share_F1 = (place_F - before_F).astype(np.float32)[:, None]
    between: F32 = feat[before_F] + share_F1 * (feat[before_F + 1] - feat[before_F])
    return between


def _warped_rows(feat_BFD: Tensor, lengths_B: Tensor, from_B: Tensor, to_B: Tensor) -> Tensor:
    """`warped` of each row."""
    at_F = torch.arange(feat_BFD.shape[1], device=feat_BFD.device, dtype=torch.float64)
    last_B1, from_B1, to_B1 = ((x[:, None]).double() for x in (lengths_B - 1, from_B, to_B))
    early_BF = at_F * from_B1 / to_B1
    late_BF = from_B1 + (at_F - to_B1) * (last_B1 - from_B1) / (last_B1 - to_B1).clamp(min=1)
    place_BF = torch.where(at_F < to_B1, early_BF, late_BF)
    place_BF = torch.where((from_B1 == to_B1) | (at_F > last_B1), at_F, place_BF)
    before_BF = torch.minimum(place_BF.long(), (last_B1.long() - 1).clamp(min=0))
    before_BF = torch.where(at_F > last_B1, at_F.long(), before_BF)
    after_BF = torch.minimum(before_BF + 1, torch.full_like(before_BF, feat_BFD.shape[1] - 1))
    share_BF1 = (place_BF - before_BF).float()[:, :, None]
    early, late = (feat_BFD.gather(1, place[:, :, None].expand_as(feat_BFD)) for place in (before_BF, after_BF))
    return early + share_BF1 * (late - early)


def _covered(masks_BN2: Tensor, size: int) -> Tensor:
    """bool [B, size]: True inside any of the masks of a row."""
    place = torch.arange(size, device=masks_BN2.device)
    return ((place >= masks_BN2[:, :, :1]) & (place < masks_BN2[:, :, 1:])).any(dim=1)


def _masks(rng: np.random.Generator, count: int, width: tuple[int, int], size: int, most: int) -> I64:
    """`count` masks in 0 .. size as (first, behind the last), int64 [N, 2]; none is wider than `most`."""
    widths_N = np.minimum(rng.integers(width[0], width[1] + 1, count), most)
    first_N = (rng.random(count) * (size - widths_N + 1)).astype(np.int64)
    return np.stack([first_N, first_N + widths_N], axis=1)


def _widths(name: str, width: Sequence[int]) -> tuple[int, int]:
    least, most = number_range("spec_augment", name, width, least=0, most=1_000_000)
    if (least, most) != (int(least), int(most)):
        raise UsageError(f"spec_augment: {name}={width!r} are no whole numbers.")
    return int(least), int(most)
