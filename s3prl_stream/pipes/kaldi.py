"""Kaldi's features of one waveform: 25 ms windows every 10 ms, without dither.

All is numpy in float64 and in one thread, as the log-mel is (`features.py`). torchaudio's is in float32,
and off by up to 3e-3 in quiet bins of real speech. The windows lie inside of the waveform, so that a rest shorter than
a hop is left out. T waveform samples at 16 kHz, F frames, K frequencies, D bins.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from s3prl_stream.errors import SampleError

F32: TypeAlias = npt.NDArray[np.float32]
F64: TypeAlias = npt.NDArray[np.float64]

SAMPLE_RATE = 16_000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
FFT_SAMPLES = 512
NUM_BINS = 80
FLOOR = float(np.finfo(np.float32).eps)
"""The least energy of a bin."""
NUM_CEPSTRA = 13
CEPSTRAL_BINS = 23
BLOCK_FRAMES = 128
"""Frames at a time: their spectra stay in a cache, in memory that is used again. Arrays for a whole clip are given back
to the system each time, and pages that come back zeroed took four times as long as the arithmetic."""


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
    return torch.from_numpy(_of_energies(wav, NUM_BINS, window))


def kaldi_mfcc(wav: Tensor) -> Tensor:
    """13 cepstral coefficients of 23 log mel energies, Povey window; float32 [1 + (T - 400) // 160, 13].

    The orthonormal DCT of the energies, each coefficient n then raised by 1 + 11 sin(pi n / 22). The first one is their
    mean times sqrt(23), not the energy. Errors are those of `kaldi_fbank`.
    """
    n_C, d_D = np.arange(NUM_CEPSTRA), np.arange(CEPSTRAL_BINS)
    dct_DC = np.sqrt(2.0 / CEPSTRAL_BINS) * np.cos(np.pi / CEPSTRAL_BINS * (d_D[:, None] + 0.5) * n_C)
    dct_DC[:, 0] = np.sqrt(1.0 / CEPSTRAL_BINS)
    dct_DC *= 1.0 + 11.0 * np.sin(np.pi * n_C / 22.0)

    def cepstra(energies_FD: F64) -> F64:
        # not BLAS, which splits a sum by the number of threads
        found: F64 = np.einsum("fd,dc->fc", energies_FD, dct_DC, optimize=False)
        return found

    return torch.from_numpy(_of_energies(wav, CEPSTRAL_BINS, "povey", cepstra))


def in_blocks(windows_FT: F64, compute: Callable[[F64], F64], num_bins: int) -> F32:
    """`compute` of all windows, [F, T] -> float32 [F, num_bins], a few at a time."""
    features_FD = np.empty((len(windows_FT), num_bins), dtype=np.float32)
    for at in range(0, len(windows_FT), BLOCK_FRAMES):
        features_FD[at : at + BLOCK_FRAMES] = compute(windows_FT[at : at + BLOCK_FRAMES])
    return features_FD


def _of_energies(wav: Tensor, num_bins: int, window: str, then: Callable[[F64], F64] | None = None) -> F32:
    """ln of the energy in each filter [F, num_bins], or what `then` makes of them."""
    if len(wav) < WINDOW_SAMPLES:
        raise too_short("kaldi", wav, WINDOW_SAMPLES)
    filters = _sparse_filters(num_bins)

    def energies(windows: F64) -> F64:
        flat = np.empty_like(windows)
        np.multiply(windows[:, :-1], -0.97, out=flat[:, 1:])
        flat[:, 1:] += windows[:, 1:]
        flat[:, 0] = 0.03 * windows[:, 0]
        flat -= 0.03 * windows.mean(axis=1, keepdims=True)  # taken off before the pre-emphasis, which leaves so much
        flat *= window_of(window)
        spectrum = np.fft.rfft(flat, n=FFT_SAMPLES)
        power_FK = np.square(spectrum.real) + np.square(spectrum.imag)
        logarithms: F64 = np.log(np.maximum(through(filters, power_FK), FLOOR))
        return then(logarithms) if then else logarithms

    samples_T = np.asarray(wav, dtype=np.float64)
    windows_FT = np.lib.stride_tricks.sliding_window_view(samples_T, WINDOW_SAMPLES)[::HOP_SAMPLES]
    return in_blocks(windows_FT, energies, NUM_CEPSTRA if then else num_bins)


@cache
def window_of(name: str) -> F64:
    """Kaldi's "hamming" or "povey" window, float64 [400]."""
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(WINDOW_SAMPLES) / (WINDOW_SAMPLES - 1))
    window: F64 = 0.08 + 0.92 * hann if name == "hamming" else hann**0.85
    return window


@cache
def filter_matrix(num_bins: int = NUM_BINS) -> F64:
    """Triangles on Kaldi's mel scale from 20 Hz to 8 kHz: float64 [257, num_bins]; nothing at 8 kHz itself."""

    def mel(hertz: float) -> float:
        return 1127.0 * math.log(1.0 + hertz / 700.0)

    # in float32 and in this order, as torchaudio has them: in float64 a bin moves by up to 1e-4
    lowest = mel(20.0)
    step = (mel(SAMPLE_RATE / 2) - lowest) / (num_bins + 1)
    place_D = torch.arange(num_bins)[:, None]
    left, centre, right = (lowest + (place_D + edge) * step for edge in (0.0, 1.0, 2.0))
    mel_of_bin = 1127.0 * (1.0 + (SAMPLE_RATE / FFT_SAMPLES * torch.arange(FFT_SAMPLES // 2)) / 700.0).log()[None]
    filters = torch.minimum((mel_of_bin - left) / (centre - left), (right - mel_of_bin) / (right - centre)).clamp(
        min=0.0
    )
    return np.pad(filters.double().numpy().T, ((0, 1), (0, 0)))


def through(filters: Any, power_FK: F64) -> F64:
    """Energies float64 [F, D] of a power spectrum in the filters, a sparse matrix [D, K].

    Sums are in a fixed order and in one thread, which those of a dense product are not.
    """
    energies: F64 = (filters @ np.ascontiguousarray(power_FK.T)).T
    return energies


@cache
def _sparse_filters(num_bins: int) -> Any:
    """`filter_matrix` the other way round: [num_bins, 257]."""
    from scipy.sparse import csr_array

    return csr_array(filter_matrix(num_bins).T)


def too_short(where: str, wav: Any, needed: int) -> SampleError:
    """The error for a waveform of too few samples."""
    return SampleError(f"{where}: {len(wav)} samples; at least {needed} are needed at 16 kHz", reason="too_short")
