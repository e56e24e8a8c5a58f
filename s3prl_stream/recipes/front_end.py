"""From waveforms to the features of a recipe: the same in its stream, and for whoever uses the network later.

T waveform samples at 16 kHz, F frames, D bins.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from s3prl_stream.pipes.features import CENTRED_KINDS, dims_of, extract, normalised
from s3prl_stream.pipes.kaldi import HOP_SAMPLES, WINDOW_SAMPLES
from s3prl_stream.pipes.norm_wav import scale_to_db
from s3prl_stream.pipes.stage import Stage

MIN_SAMPLES = 800
"""Shorter waveforms are padded with zeros to this length when features are asked for, as S3PRL's upstreams do."""


@dataclass(frozen=True)
class FrontEnd:
    """Which features, of waveforms at which level."""

    kind: str
    """Of `ExtractFeat`."""
    target_db: float | None = None
    """RMS level that waveforms are brought to first; None: they stay as they are."""
    deltas: int = 0
    """Orders of slopes that are appended, see `ExtractFeat`."""

    @property
    def feat_dim(self) -> int:
        """D."""
        return dims_of(self.kind, self.deltas)

    @property
    def stride(self) -> int:
        """Samples from one frame to the next."""
        return HOP_SAMPLES

    def chain(self, stage: Stage, *, norm: str) -> Stage:
        """A chain of `wav` continued to `feat`."""
        if self.target_db is not None:
            stage = stage.norm_wav(target_db=self.target_db)
        return stage.features(self.kind, norm=norm, deltas=self.deltas)

    def features(self, wav: Any, *, norm: str) -> Tensor:
        """One waveform [T] -> features float32 [F, D], on the CPU."""
        padded = np.zeros(max(len(wav), MIN_SAMPLES), dtype=np.float32)
        padded[: len(wav)] = np.asarray(wav.detach().cpu() if isinstance(wav, Tensor) else wav)
        if self.target_db is not None:
            padded = scale_to_db(padded, self.target_db)
        return extract(torch.from_numpy(padded), self.kind, norm=norm, deltas=self.deltas)

    def num_frames(self, lengths: Sequence[int] | Tensor) -> Tensor:
        """Frames int64 [B] of waveforms of these lengths (samples)."""
        samples = torch.as_tensor(lengths).clamp(min=MIN_SAMPLES)
        return 1 + (samples if self.kind in CENTRED_KINDS else samples - WINDOW_SAMPLES) // self.stride

    def legacy_features(self, wavs: Sequence[Any]) -> list[Tensor]:
        """Of the waveforms [T] of a batch, as S3PRL computes them: normalised features [F, D] each.

        Its log-mel sees the zeros behind a shorter waveform, and counts the frames by the share of the longest one's.
        """
        if self.kind not in CENTRED_KINDS:
            return [self.features(wav, norm="utterance") for wav in wavs]
        longest = max(len(wav) for wav in wavs)
        counts = self.legacy_num_frames([len(wav) for wav in wavs]).tolist()
        feats = []
        for wav, count in zip(wavs, counts, strict=True):
            scaled = np.asarray(wav, dtype=np.float32)
            if self.target_db is not None:
                scaled = scale_to_db(scaled, self.target_db)
            padded = torch.from_numpy(np.pad(scaled, (0, longest - len(scaled))))
            feats.append(normalised(extract(padded, self.kind, norm="none", deltas=self.deltas)[:count], "utterance"))
        return feats

    def legacy_num_frames(self, lengths: Sequence[int] | Tensor) -> Tensor:
        """Frames int64 [B] that S3PRL counts of waveforms of these lengths (samples) in one batch."""
        if self.kind not in CENTRED_KINDS:
            return self.num_frames(lengths)
        samples = [int(length) for length in lengths]
        per_frame = max(samples) / (1 + max(samples) // self.stride)
        return torch.tensor([round(one / per_frame) for one in samples])
