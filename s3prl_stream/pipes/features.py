"""Spectral features of one waveform: log-mel (TERA) and Kaldi's log filter bank (Mockingjay, APC, NPC).

The log-mel is numpy on purpose. Each utterance is transformed alone by one thread, with sums in a fixed order, so its
features do not depend on threads, workers or neighbours in the batch. The same in torch gave other bits with one
thread than with two (the matrix product with the filters) and was no faster. A filter touches few of the 201 bins, so
the product is a gather and a segmented sum.

T waveform samples at 16 kHz, F frames, D feature bins.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.stage import Stage, chained
from s3prl_stream.sample import Sample

F32: TypeAlias = npt.NDArray[np.float32]

SAMPLE_RATE = 16_000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
NUM_BINS = 80

KINDS = ("logmel80", "fbank80", "fbank80_povey")
NORMS = ("utterance", "fixed", "none")

LOG_FLOOR, LOG_CENTER, LOG_SPREAD = -14.0, -6.0, 4.0
"""Of the log-mel of speech at -25 dB: what is below the floor is no speech but rounding noise."""


def log_mel(wav: Tensor) -> Tensor:
    """The log-mel spectrogram on which S3PRL trains TERA and Audio ALBERT, before normalisation.

    Power spectrum of Hann windows of 400 samples every 160, centred on their frame (the ends are reflected), through
    80 triangular filters on the HTK mel scale from 0 to 8 kHz with peak 1, then ln(x + 1e-10).

    Args:
        wav: float32 [T] at 16 kHz, T > 200.

    Returns:
        float32 [1 + T // 160, 80].

    Raises:
        SampleError: too short to be reflected.
    """
    if len(wav) <= WINDOW_SAMPLES // 2:
        raise _too_short("log_mel", wav, WINDOW_SAMPLES // 2 + 1)
    padded_T = np.pad(np.asarray(wav, dtype=np.float32), WINDOW_SAMPLES // 2, mode="reflect")
    windows = np.lib.stride_tricks.sliding_window_view(padded_T, WINDOW_SAMPLES)[::HOP_SAMPLES]
    spectrum = np.fft.rfft(windows * _hann())
    power = spectrum.real**2 + spectrum.imag**2
    bins, weights, first = _mel_filters()
    mel_FD = np.add.reduceat(power[:, bins] * weights, first, axis=1)
    return torch.from_numpy(np.log(mel_FD + np.float32(1e-10)).astype(np.float32, copy=False))


def kaldi_fbank(wav: Tensor, *, window: str = "hamming") -> Tensor:
    """Kaldi's 80 log mel energies (25 ms windows every 10 ms, no dither) as torchaudio computes them.

    Args:
        wav: float32 [T] at 16 kHz in [-1, 1] (not scaled to 16 bits), T >= 400.
        window: "hamming" (S3PRL's APC, VQ-APC and NPC) or "povey" (Kaldi's own, S3PRL's Mockingjay).

    Returns:
        float32 [1 + (T - 400) // 160, 80].

    Raises:
        SampleError: shorter than one window.
        UsageError: torchaudio cannot be imported.
    """
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"the Kaldi features need torchaudio, which cannot be imported here ({error}). "
            "torch 2.11.0 with torchaudio 2.11.0 work together; or use the kind 'logmel80', which does without."
        ) from error
    if len(wav) < WINDOW_SAMPLES:
        raise _too_short("kaldi_fbank", wav, WINDOW_SAMPLES)
    wav_1T = torch.as_tensor(wav, dtype=torch.float32)[None]
    feat_FD: Tensor = kaldi.fbank(
        wav_1T, num_mel_bins=NUM_BINS, sample_frequency=SAMPLE_RATE, window_type=window, dither=0.0
    )
    return feat_FD


def cmvn(feat: Tensor) -> Tensor:
    """Mean 0 and standard deviation 1 (unbiased) per bin over the frames of one utterance; [F, D] -> [F, D].

    In float64: of constant bins (digital silence) float32 would leave the rounding of the mean divided by 1e-10.

    Raises:
        SampleError: fewer than two frames.
    """
    if len(feat) < 2:
        raise SampleError(f"cmvn: {len(feat)} frame(s); a deviation needs at least 2", reason="too_short")
    values = np.asarray(feat, dtype=np.float64)
    normalised = (values - values.mean(axis=0)) / (values.std(axis=0, ddof=1) + 1e-10)
    return torch.from_numpy(normalised.astype(np.float32))


def fixed_scale(feat: Tensor) -> Tensor:
    """The log-mel as (max(x, -14) + 6) / 4: of the order of 1, without statistics of the utterance.

    Unlike `cmvn` it keeps the mean spectrum, which is much of what a short clip holds, and silent bins stay silent
    rather than becoming noise of deviation 1. For waveforms that `norm_wav` brought to -25 dB; [F, D] -> [F, D].
    """
    return (feat.clamp(min=LOG_FLOOR) - LOG_CENTER) / LOG_SPREAD


def extract(wav: Tensor, kind: str, *, norm: str) -> Tensor:
    """float32 [T] at 16 kHz -> the features of this kind, float32 [F, 80], normalised as in `ExtractFeat`.

    Raises:
        SampleError: too short for this kind (see `log_mel`, `kaldi_fbank`, `cmvn`).
        UsageError: an unknown kind.
    """
    if kind == "logmel80":
        feat_FD = log_mel(wav)
    elif kind in KINDS:
        feat_FD = kaldi_fbank(wav, window="povey" if kind == "fbank80_povey" else "hamming")
    else:
        raise UsageError(f"features: kind {kind!r} is unknown; there are {', '.join(KINDS)}")
    return normalised(feat_FD, norm)


def normalised(feat: Tensor, norm: str) -> Tensor:
    """`cmvn` ("utterance"), `fixed_scale` ("fixed") or nothing ("none")."""
    return cmvn(feat) if norm == "utterance" else fixed_scale(feat) if norm == "fixed" else feat


@chained("features")
class ExtractFeat(Stage):
    """Compute spectral features of each waveform.

    In:     wav float32 [T] at 16 kHz.
    Out:    feat float32 [F, 80]; F = 1 + T // 160 (logmel80) or 1 + (T - 400) // 160 (fbank80). 1 -> 1.
    Random: none.
    Raises: SampleError (the sample is left out and listed) if there are fewer than two frames or T <= 200.

    Args:
        kind: "logmel80" (TERA, Audio ALBERT), "fbank80" (Hamming window: APC, VQ-APC, NPC) or "fbank80_povey"
            (Mockingjay); the last two need torchaudio.
        norm: "utterance": mean 0 and deviation 1 of each bin over the utterance (`cmvn`, as S3PRL does); "fixed": one
            scale for all utterances (`fixed_scale`, of the log-mel only), which keeps the mean spectrum; "none".
    """

    positional = "kind"
    takes: Mapping[str, str] = {"wav": "float32 [T]"}
    provides: Mapping[str, str] = {"feat": "float32 [F, D]"}

    def __init__(
        self, source: Iterable[Sample] | None = None, *, kind: str = "logmel80", norm: str = "utterance"
    ) -> None:
        if kind not in KINDS:
            raise UsageError(f".features(kind={kind!r}): there are {', '.join(KINDS)}")
        if norm not in NORMS:
            raise UsageError(f".features(norm={norm!r}): there are {', '.join(NORMS)}")
        if norm == "fixed" and kind != "logmel80":
            raise UsageError(f".features({kind!r}, norm='fixed'): the fixed scale is that of the log-mel, 'logmel80'")
        self.kind = kind
        self.norm = norm
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterable[Sample]:
        """The sample with its features."""
        rate = sample.get("sample_rate", SAMPLE_RATE)
        if rate != SAMPLE_RATE:
            raise UsageError(
                f".features(): the audio is at {rate} Hz; load it with load_audio(sample_rate={SAMPLE_RATE})"
            )
        yield {**sample, "feat": extract(sample["wav"], self.kind, norm=self.norm)}


def _too_short(where: str, wav: Any, needed: int) -> SampleError:
    return SampleError(f"{where}: {len(wav)} samples; at least {needed} are needed at 16 kHz", reason="too_short")


@cache
def _hann() -> F32:
    """The periodic Hann window, float32 [400]."""
    phase = 2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES
    return (0.5 - 0.5 * np.cos(phase)).astype(np.float32)


@cache
def _mel_filters() -> tuple[npt.NDArray[np.int64], F32, npt.NDArray[np.int64]]:
    """The 80 filters, non-zero weights only: (FFT bin [K], weight [K], where each filter begins in them [80]).

    All in float32, in torch: S3PRL's filters were computed so, and in float64 the features differ by 6e-5.
    """
    hertz = torch.linspace(0.0, SAMPLE_RATE / 2, WINDOW_SAMPLES // 2 + 1)
    top_mel = 2595.0 * math.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    corners = 700.0 * (10.0 ** (torch.linspace(0.0, top_mel, NUM_BINS + 2) / 2595.0) - 1.0)
    distance = corners - hertz[:, None]
    falling = distance[:, 2:] / corners.diff()[1:]
    rising = -distance[:, :-2] / corners.diff()[:-1]
    filters = torch.minimum(rising, falling).clamp(min=0.0).T.numpy()
    filter_index, bins = np.nonzero(filters)
    first = np.searchsorted(filter_index, np.arange(NUM_BINS))
    return bins, filters[filter_index, bins], first
