"""Time stretched without changing pitch: WSOLA, in one thread of numpy.

Verhelst and Roelands, "An overlap-add technique based on waveform similarity (WSOLA) for high quality time-scale
modification of speech", ICASSP 1993, with the three lengths of sox's `tempo`, whose output it has. Chosen over a phase
vocoder: speech keeps its onsets, it costs less, and its bits do not depend on threads.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

F32: TypeAlias = npt.NDArray[np.float32]

SEGMENT_MS, SEARCH_MS, OVERLAP_MS = 82.0, 14.68, 12.0
"""Of sox's `tempo` and `pitch`: one segment, how far it may move to fit the one before, and where both overlap."""


def stretch(
    wav: F32,
    sample_rate: int,
    factor: float,
    *,
    segment_ms: float = SEGMENT_MS,
    search_ms: float = SEARCH_MS,
    overlap_ms: float = OVERLAP_MS,
) -> F32:
    """wav float32 [T] or [C, T] -> [..., round(T / factor)], `factor` times as fast, its pitch kept.

    Segments are taken every `factor * (segment - overlap)` samples, each from where, within `search_ms`, its beginning
    is most like what followed the segment before it, and are cross-faded there; channels move together.

    Args:
        wav: not altered.
        sample_rate: Hz.
        factor: above 1 is shorter.
        segment_ms, search_ms, overlap_ms: see `SEGMENT_MS`.
    """
    wav_CT = np.atleast_2d(wav)
    num_out = round(wav_CT.shape[1] / factor)
    overlap = max(round(sample_rate * overlap_ms / 1000), 1)
    segment = max(round(sample_rate * segment_ms / 1000), 2 * overlap + 1)
    search = max(round(sample_rate * search_ms / 1000), 1)
    step_out = segment - overlap
    num_segments = max(-(-num_out // step_out), 1)
    begins = np.round(np.arange(num_segments) * factor * step_out).astype(int)
    # sox begins in the middle of the first search range; so do we, with zeros in front, or all would be early by it
    padding = (search // 2, max(int(begins[-1]) + search + segment - wav_CT.shape[1], 0))
    padded_CT = np.pad(wav_CT, ((0, 0), padding))
    fade = np.linspace(0.0, 1.0, overlap, endpoint=False, dtype=np.float32)
    out_CT = np.empty((len(wav_CT), num_segments * step_out), dtype=np.float32)
    tail_CK = padded_CT[:, search // 2 : search // 2 + overlap]
    for number, begin in enumerate(begins):
        at = begin + (_best_offset(padded_CT[:, begin : begin + search + overlap], tail_CK) if number else search // 2)
        place = out_CT[:, number * step_out : (number + 1) * step_out]
        place[:] = padded_CT[:, at : at + step_out]
        place[:, :overlap] = tail_CK + fade * (place[:, :overlap] - tail_CK)
        tail_CK = padded_CT[:, at + step_out : at + segment]
    stretched: F32 = out_CT[:, :num_out]
    return stretched if wav.ndim == 2 else stretched[0]


def _best_offset(region_CN: F32, tail_CK: F32) -> int:
    """Where in the region [search + overlap] the tail [overlap] fits best: least sum of squared differences."""
    overlap = tail_CK.shape[1]
    energy_N = np.cumsum(np.pad(np.square(region_CN, dtype=np.float64).sum(axis=0), (1, 0)))
    moving = energy_N[overlap:-1] - energy_N[: -overlap - 1]
    # np.correlate adds up in one thread and in a fixed order
    likeness = sum(
        np.correlate(region_N, tail_K, "valid")[:-1] for region_N, tail_K in zip(region_CN, tail_CK, strict=True)
    )
    return int(np.argmin(moving - 2.0 * likeness))
