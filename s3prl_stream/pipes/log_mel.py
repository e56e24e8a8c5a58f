"""Log-mel and log spectrogram of one waveform, as S3PRL's TERA has them.

They are numpy on purpose. Each utterance is transformed alone by one thread, with sums in a fixed order, so its
features do not depend on threads, workers or neighbours in the batch. The same in torch gave other bits with one thread
than with two (the matrix product with the filters) and was no faster. A filter touches few of the 201 bins, so the
product is a sparse one.

T waveform samples at 16 kHz, F frames.
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

from s3prl_stream.pipes.kaldi import HOP_SAMPLES, NUM_BINS, SAMPLE_RATE, WINDOW_SAMPLES, in_blocks, through, too_short

F64: TypeAlias = npt.NDArray[np.float64]

NUM_FREQUENCIES = WINDOW_SAMPLES // 2 + 1


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
    filters = _mel_filters()
    return _log_of_power(wav, lambda power_FK: through(filters, power_FK), NUM_BINS)


def log_spectrogram(wav: Tensor) -> Tensor:
    """ln(power + 1e-10) of the windows of `log_mel`, before its filters (S3PRL's "linear" with log).

    Args:
        wav: float32 [T] at 16 kHz, T > 200.

    Returns:
        float32 [1 + T // 160, 201]: 0 to 8 kHz in steps of 40 Hz.

    Raises:
        SampleError: too short to be reflected.
    """
    return _log_of_power(wav, lambda power_FK: power_FK, NUM_FREQUENCIES)


def _log_of_power(wav: Tensor, band: Callable[[F64], F64], num_bins: int) -> Tensor:
    """ln(x + 1e-10) of what `band` makes of the power spectrum [F, 201] of Hann windows, centred on their frame.

    In float64: numpy's FFT of float32 takes six times as long, and its rounding is 1e-4 of a log-mel in quiet bins.
    """
    if len(wav) <= WINDOW_SAMPLES // 2:
        raise too_short("features", wav, WINDOW_SAMPLES // 2 + 1)

    def logarithms(windows: F64) -> F64:
        spectrum = np.fft.rfft(windows * hann_window())
        found: F64 = np.log(band(np.square(spectrum.real) + np.square(spectrum.imag)) + 1e-10)
        return found

    windows = np.lib.stride_tricks.sliding_window_view(_reflected(wav), WINDOW_SAMPLES)[::HOP_SAMPLES]
    return torch.from_numpy(in_blocks(windows, logarithms, num_bins))


def _reflected(wav: Tensor) -> F64:
    """Half a window more at each end. Not by np.pad, which copies three times, at a third of the cost of a log-mel."""
    reach = WINDOW_SAMPLES // 2
    padded_T = np.empty(len(wav) + 2 * reach)
    padded_T[reach:-reach] = wav.numpy()
    padded_T[:reach] = padded_T[2 * reach : reach : -1]
    padded_T[-reach:] = padded_T[-reach - 2 : -2 * reach - 2 : -1]
    return padded_T


@cache
def hann_window() -> F64:
    """The periodic Hann window, float64 [400]."""
    phase = 2 * np.pi * np.arange(WINDOW_SAMPLES) / WINDOW_SAMPLES
    return 0.5 - 0.5 * np.cos(phase)


@cache
def _mel_filters() -> Any:
    """`mel_filter_matrix` the other way round, sparse: [80, 201]."""
    from scipy.sparse import csr_array

    return csr_array(mel_filter_matrix().double().numpy().T)


def mel_filter_matrix() -> Tensor:
    """The filters of `log_mel`, float32 [201, 80]."""
    hertz = torch.linspace(0.0, SAMPLE_RATE / 2, WINDOW_SAMPLES // 2 + 1)
    top_mel = 2595.0 * math.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    corners = 700.0 * (10.0 ** (torch.linspace(0.0, top_mel, NUM_BINS + 2) / 2595.0) - 1.0)
    distance = corners - hertz[:, None]
    falling = distance[:, 2:] / corners.diff()[1:]
    rising = -distance[:, :-2] / corners.diff()[:-1]
    return torch.minimum(rising, falling).clamp(min=0.0)
