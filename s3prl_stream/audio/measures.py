"""What is measured of every clip that is packed, in as few passes over its samples as it takes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.02
SILENT_BELOW = 33
"""-60 dB of full scale (32768), rounded up: a frame of no larger a peak counts as silent."""

_FULL_SCALE = 32768
_CLIPPED = 32767
_ROW = 1024


class Measures(NamedTuple):
    """Of one clip, rounded so that they are small in an index."""

    clipped_share: float
    """Of the samples, those at full scale (+-32767, -32768): 0 to 1."""
    silent_share: float
    """Of the frames of 20 ms, those whose peak is below -60 dB of full scale: 0 to 1."""
    dc_offset: float
    """Mean of the samples, of full scale: -1 to 1."""


def measure(wav: npt.NDArray[np.int16], sample_rate: int) -> Measures:
    """Measure a clip.

    Args:
        wav: [T] int16, T > 0.
        sample_rate: Hz.
    """
    hop = max(1, round(FRAME_SECONDS * sample_rate))
    whole = len(wav) // hop * hop
    frames, tail = wav[:whole].reshape(-1, hop), wav[whole:]
    highest = frames.max(axis=1)
    num_clipped = 0
    if max(highest.max(initial=0), tail.max(initial=0)) >= _CLIPPED or wav.min() <= -_CLIPPED:
        num_clipped = int(np.count_nonzero(wav >= _CLIPPED) + np.count_nonzero(wav <= -_CLIPPED))
    low = frames[highest < SILENT_BELOW]  # few: only these are looked at again
    num_silent = int(np.count_nonzero(low.min(axis=1) > -SILENT_BELOW)) if len(low) else 0
    if len(tail):
        num_silent += int(tail.max() < SILENT_BELOW and tail.min() > -SILENT_BELOW)
    return Measures(
        clipped_share=round(num_clipped / len(wav), 6),
        silent_share=round(num_silent / (len(frames) + (len(tail) > 0)), 4),
        dc_offset=round(_sum(wav) / len(wav) / _FULL_SCALE, 5) + 0.0,
    )


def _sum(wav: npt.NDArray[np.int16]) -> int:
    """Of all samples. Adding rows is twice as fast as adding up; sums of 65536 rows fit into int32."""
    total, step = 0, _ROW << 15
    for start in range(0, len(wav), step):
        part = wav[start : start + step]
        whole = len(part) // _ROW * _ROW
        columns = part[:whole].reshape(-1, _ROW).sum(axis=0, dtype=np.int32)
        total += int(columns.sum(dtype=np.int64)) + int(part[whole:].sum(dtype=np.int64))
    return total
