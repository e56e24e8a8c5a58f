"""Spectral features of one waveform: log-mel (TERA), log spectrogram, Kaldi's filter bank (Mockingjay, APC), MFCC.

The kinds, what may be done to any of them (slopes, one scale), and the stage. The spectra are in `log_mel.py` and
`kaldi.py`, the form for batches in `batch_features.py`.

T waveform samples at 16 kHz, F frames, D feature bins.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
import torch
from torch import Tensor

from s3prl_stream.arguments import one_of, whole_number
from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.kaldi import (
    HOP_SAMPLES,
    NUM_BINS,
    NUM_CEPSTRA,
    SAMPLE_RATE,
    WINDOW_SAMPLES,
    kaldi_fbank,
    kaldi_mfcc,
)
from s3prl_stream.pipes.log_mel import NUM_FREQUENCIES, log_mel, log_spectrogram
from s3prl_stream.pipes.on_batch import Drawn, OnBatch
from s3prl_stream.pipes.s3prl_arguments import FEATURES_REFUSED
from s3prl_stream.pipes.stage import Source, stages_of
from s3prl_stream.sample import Batch, Sample

DIMS = {
    "logmel80": NUM_BINS,
    "linear201": NUM_FREQUENCIES,
    "fbank80": NUM_BINS,
    "fbank80_povey": NUM_BINS,
    "mfcc13": NUM_CEPSTRA,
}
"""Dimensions of each kind, before deltas."""
KINDS = tuple(DIMS)
CENTRED_KINDS = ("logmel80", "linear201")
"""Windows are centred on their frame; those of the other kinds lie inside of the waveform."""
NORMS = ("utterance", "fixed", "none")

LOG_FLOOR, LOG_CENTER, LOG_SPREADS = -14.0, -6.0, (4.0, 0.75, 0.3)
"""Of the log-mel and of Kaldi's filter bank of speech at about -25 dB, which differ by little, and of their first and
second slopes (measured on LibriSpeech). What is below the floor is no speech but rounding noise."""
FIXED_KINDS = ("logmel80", "fbank80", "fbank80_povey")
"""Those that the fixed scale is for."""


def num_frames(kind: str, num_samples: int) -> int:
    """Frames that `extract` makes of a waveform of so many samples at 16 kHz; 0 where it is too short for one."""
    if kind in CENTRED_KINDS:
        return 1 + num_samples // HOP_SAMPLES if num_samples > WINDOW_SAMPLES // 2 else 0
    return 1 + (num_samples - WINDOW_SAMPLES) // HOP_SAMPLES if num_samples >= WINDOW_SAMPLES else 0


def with_deltas(feat: Tensor, order: int) -> Tensor:
    """[F, D] -> [F, D * (order + 1)]: the features, their slope over time, the slope of that, and so on.

    The slope is the regression over 5 frames (the ends are repeated): with n = 1 and 2,
    sum of n * (x[f + n] - x[f - n]) / (2 * sum of n * n), as HTK and Kaldi have it.
    """
    parts = [np.asarray(feat, dtype=np.float32)]
    for _ in range(order):
        padded = np.pad(parts[-1], ((2, 2), (0, 0)), mode="edge")
        at = [padded[place : place + len(feat)] for place in range(5)]
        rise = (at[3] - at[1]) + np.float32(2) * (at[4] - at[0])
        parts.append(rise / np.float32(10))
    return torch.from_numpy(np.concatenate(parts, axis=1))


def cmvn(feat: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 (unbiased) per bin over the frames of one utterance; [F, D] -> [F, D].

    In float64: of constant bins (digital silence) float32 would leave the rounding of the mean divided by 1e-10.

    Raises:
        SampleError: fewer than two frames.
    """
    if len(feat) < 2:
        raise SampleError(f"cmvn: {len(feat)} frame(s); a deviation needs at least 2", reason="too_short")
    values = np.asarray(feat).astype(np.float64)
    values -= values.mean(axis=0)
    values /= np.sqrt(np.einsum("fd,fd->d", values, values, optimize=False) / (len(values) - 1)) + 1e-10
    return torch.from_numpy(values.astype(np.float32))


def fixed_scale(feat: Tensor, deltas: int = 0) -> Tensor:
    """Log energies as (max(x, -14) + 6) / 4: of the order of 1, without statistics of the utterance.

    Unlike `cmvn` it keeps the mean spectrum, which is much of what a short clip holds, and silent bins stay silent
    rather than becoming noise of deviation 1. For waveforms at about -25 dB, such as `norm_wav` makes.

    Args:
        feat: [..., D * (deltas + 1)], of `FIXED_KINDS`, and orders of slopes behind (`with_deltas`), which are divided
            by 0.75 and 0.3.
        deltas: how many orders.
    """
    energies, *slopes = feat.chunk(deltas + 1, dim=-1)
    parts = [(energies.clamp(min=LOG_FLOOR) - LOG_CENTER) / LOG_SPREADS[0]]
    parts += [slope / spread for slope, spread in zip(slopes, LOG_SPREADS[1:], strict=False)]
    return torch.cat(parts, dim=-1) if slopes else parts[0]


def extract(wav: Tensor, kind: str, *, norm: str, deltas: int = 0) -> Tensor:
    """float32 [T] at 16 kHz -> the features of this kind, float32 [F, D], as `ExtractFeat` makes them.

    Raises:
        SampleError: too short for this kind (see `log_mel`, `kaldi_fbank`, `cmvn`).
        UsageError: an unknown kind.
    """
    one_of("features", "kind", kind, KINDS)
    if kind == "logmel80":
        feat_FD = log_mel(wav)
    elif kind == "linear201":
        feat_FD = log_spectrogram(wav)
    elif kind == "mfcc13":
        feat_FD = kaldi_mfcc(wav)
    else:
        feat_FD = kaldi_fbank(wav, window="povey" if kind == "fbank80_povey" else "hamming")
    return normalised(with_deltas(feat_FD, deltas) if deltas else feat_FD, norm, deltas)


def dims_of(kind: str, deltas: int = 0) -> int:
    """D of the features of a kind: 80 of "logmel80", 240 of "fbank80" with two orders of deltas.

    Raises:
        UsageError: an unknown kind.
    """
    return DIMS[one_of("features", "kind", kind, DIMS)] * (deltas + 1)


def normalised(feat: Tensor, norm: str, deltas: int = 0) -> Tensor:
    """`cmvn` ("utterance"), `fixed_scale` ("fixed") or nothing ("none")."""
    return cmvn(feat) if norm == "utterance" else fixed_scale(feat, deltas) if norm == "fixed" else feat


@chained(
    "features",
    aliases={"cmvn": ("norm", {True: "utterance", False: "none"})},
    key_names={"wav_name": "wav"},
    refused=FEATURES_REFUSED,
)
class ExtractFeat(OnBatch):
    """Compute spectral features of each waveform.

    In:     wav float32 [T] at 16 kHz.
    Out:    feat float32 [F, D]; F is `num_frames(kind, T)`: 1 + T // 160 (logmel80, linear201) or
            1 + (T - 400) // 160 (the others); D is `dims_of(kind, deltas)`. 1 -> 1.
    Random: none.
    Raises: SampleError (the sample is left out and listed) if there is no frame, or only one with norm="utterance".

    Args:
        kind: "logmel80" (TERA, Audio ALBERT), "linear201" (log spectrogram, the target of the large Mockingjay),
            "fbank80" (Kaldi's, Hamming window: APC, VQ-APC, NPC), "fbank80_povey" (Kaldi's own window: Mockingjay) or
            "mfcc13" (Kaldi's, of 23 filters).
        norm: "utterance": mean 0 and deviation 1 of each bin over the utterance (`cmvn`, as S3PRL does); "fixed": one
            scale for all utterances (`fixed_scale`, of `FIXED_KINDS`), which keeps the mean spectrum; "none". (S3PRL:
            cmvn)
        deltas: how many orders of slopes over 5 frames are appended (`with_deltas`); Mockingjay has 2.
        feat_name: the key of the result, for a second kind beside the first: "target_feat", for example.
    """

    positional = "kind"
    takes: Mapping[str, str] = {"wav": "float32 [T]"}

    def __init__(
        self,
        source: Iterable[Sample] | None = None,
        *,
        kind: str = "logmel80",
        norm: str = "utterance",
        deltas: int = 0,
        feat_name: str = "feat",
    ) -> None:
        self.kind = one_of("features", "kind", kind, KINDS)
        self.norm = one_of("features", "norm", norm, NORMS)
        if norm == "fixed" and kind not in FIXED_KINDS:
            raise UsageError(f".features({kind!r}, norm='fixed'): there is a fixed scale of {', '.join(FIXED_KINDS)}")
        self.deltas = whole_number("features", "deltas", deltas, least=0, most=2)
        self.feat_name = feat_name
        self.provides = {feat_name: "float32 [F, D]"}
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterable[Sample]:
        _check_rate(sample)
        yield {**sample, self.feat_name: extract(sample["wav"], self.kind, norm=self.norm, deltas=self.deltas)}

    def check_chain(self, source: Source) -> None:
        """Not every kind has a form for batches."""
        from s3prl_stream.pipes.batch_features import BATCH_KINDS

        if self.kind not in BATCH_KINDS and any(stage.moves for stage in stages_of(source)):
            raise ChainError(f".features({self.kind!r}) has no form for batches: put it before .on(device)")

    def sketch(self, sample: Sample) -> Sample:
        """Its shape; the errors are those of `extract`."""
        _check_rate(sample)
        wav = sample["wav"]
        frames = num_frames(self.kind, len(wav))
        if frames < (2 if self.norm == "utterance" else 1):
            extract(torch.zeros(len(wav)), self.kind, norm=self.norm)
        return {**sample, self.feat_name: torch.empty(frames, dims_of(self.kind, self.deltas), device="meta")}

    def on_batch(self, batch: Batch, drawn: Drawn) -> Batch:  # noqa: ARG002
        from s3prl_stream.pipes.batch_features import extract_rows

        feat_BFD, frames_B = extract_rows(batch["wav"], batch["wav_len"], self.kind, norm=self.norm, deltas=self.deltas)
        return {**batch, self.feat_name: feat_BFD, f"{self.feat_name}_len": frames_B}


def _check_rate(sample: Sample) -> None:
    rate = sample.get("sample_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise UsageError(f".features(): the audio is at {rate} Hz; load it with load_audio(sample_rate={SAMPLE_RATE})")
