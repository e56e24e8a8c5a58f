"""Kaldi's features of one waveform: 25 ms windows every 10 ms, without dither.

The filter bank is numpy in float64 and in one thread, as the log-mel is (`features.py`). torchaudio's is in float32,
and off by up to 3e-3 in quiet bins of real speech. The windows lie inside of the waveform, so that a rest shorter than
a hop is left out. T waveform samples at 16 kHz, F frames, K frequencies, D bins.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3prl_stream.errors import SampleError, UsageError

F64: TypeAlias = npt.NDArray[np.float64]

SAMPLE_RATE = 16_000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
FFT_SAMPLES = 512
NUM_BINS = 80
FLOOR = float(np.finfo(np.float32).eps)
"""The least energy of a bin."""
NUM_CEPSTRA = 13


def kaldi_fbank(wav: Tensor, *, window: str = "hamming") -> Tensor:
    """80 log mel energies.

    Args:
        wav: float32 [T] at 16 kHz in [-1, 1] (not scaled to 16 bits), T >= 400.
        window: "hamming" (S3PRL's APC, VQ-APC and NPC) or "povey" (Kaldi's own, S3PRL's Mockingjay).

    Returns:
        float32 [1 + (T - 400) // 160, 80].

    Raises:
        SampleError: shorter than one window.
    """
    if len(wav) < WINDOW_SAMPLES:
        raise too_short("kaldi", wav, WINDOW_SAMPLES)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(wav, dtype=np.float64), WINDOW_SAMPLES)[::HOP_SAMPLES]
    windows = windows - windows.mean(axis=1, keepdims=True)
    flat = np.empty_like(windows)
    flat[:, 1:] = windows[:, 1:] - 0.97 * windows[:, :-1]
    flat[:, 0] = 0.03 * windows[:, 0]
    spectrum = np.fft.rfft(flat * window_of(window), n=FFT_SAMPLES)
    power_FK = np.square(spectrum.real) + np.square(spectrum.imag)
    bins, weights, first = _sparse_filters()
    mel_FD = np.add.reduceat(power_FK[:, bins] * weights, first, axis=1)
    return torch.from_numpy(np.log(np.maximum(mel_FD, FLOOR)).astype(np.float32))


@cache
def window_of(name: str) -> F64:
    """Kaldi's "hamming" or "povey" window, float64 [400]."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / (WINDOW_SAMPLES - 1))
    window: F64 = 0.08 + 0.92 * hann if name == "hamming" else hann**0.85
    return window


@cache
def filter_matrix() -> F64:
    """80 triangles on Kaldi's mel scale from 20 Hz to 8 kHz: float64 [257, 80]; nothing at 8 kHz itself."""

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    # in float32 and in this order, as torchaudio has them: in float64 a bin moves by up to 1e-4
    lowest = mel(20.0)
    step = (mel(SAMPLE_RATE / 2) - lowest) / (NUM_BINS + 1)
    place_D = torch.arange(NUM_BINS)[:, None]
    left, centre, right = (lowest + (place_D + edge) * step for edge in (0.0, 1.0, 2.0))
    mel_of_bin = 1127.0 * (1.0 + (SAMPLE_RATE / FFT_SAMPLES * torch.arange(FFT_SAMPLES // 2)) / 700.0).log()[None]
    filters = torch.minimum((mel_of_bin - left) / (centre - left), (right - mel_of_bin) / (right - centre)).clamp(
        min=0.0
    )
    return np.pad(filters.double().numpy().T, ((0, 1), (0, 0)))


@cache
def _sparse_filters() -> tuple[npt.NDArray[np.int64], F64, npt.NDArray[np.int64]]:
    """The filters, non-zero weights only: (FFT bin [N], weight [N], where each filter begins in them [80])."""
    filters = filter_matrix().T
    filter_index, bins = np.nonzero(filters)
    return bins, filters[filter_index, bins], np.searchsorted(filter_index, np.arange(NUM_BINS))


def kaldi_mfcc(wav: Tensor) -> Tensor:
    """13 cepstral coefficients of 23 log mel energies, Povey window; float32 [1 + (T - 400) // 160, 13].

    Arguments and errors are those of `kaldi_fbank`; torchaudio's, so it must be there (UsageError).
    """
    feat_FD: Tensor = _compliance().mfcc(_checked(wav), num_ceps=NUM_CEPSTRA, sample_frequency=SAMPLE_RATE, dither=0.0)
    return feat_FD


def too_short(where: str, wav: Any, needed: int) -> SampleError:
    """The error for a waveform of too few samples."""
    return SampleError(f"{where}: {len(wav)} samples; at least {needed} are needed at 16 kHz", reason="too_short")


def _checked(wav: Tensor) -> Tensor:
    if len(wav) < WINDOW_SAMPLES:
        raise too_short("kaldi", wav, WINDOW_SAMPLES)
    return torch.as_tensor(wav, dtype=torch.float32)[None]


def _compliance() -> Any:
    try:
        from torchaudio.compliance import kaldi
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"the Kaldi features need torchaudio, which cannot be imported here ({error}). "
            "torch 2.11.0 with torchaudio 2.11.0 work together; or use the kind 'logmel80', which does without."
        ) from error
    return kaldi
