"""Where a long recording is cut so that no word is: in the middle of its longest silences."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FRAME_SECONDS = 0.01
SHORTEST_SILENCE_SECONDS = 0.1
SHORTEST_PIECE_SHARE = 1 / 8
"""Of the longest that is allowed: nearer than this to an end of a piece, no silence is cut."""

_FLOOR_DB = -90.0
_SHARE_ABOVE_FLOOR = 0.25


class Silence(NamedTuple):
    """A stretch of quiet frames."""

    middle: int
    """Frame number."""
    frames: int


def levels_db(wav: npt.NDArray[np.int16], hop: int) -> npt.NDArray[np.float64]:
    """[T] int16 -> the level of each whole frame of `hop` samples: root mean square in dB of full scale, from -90."""
    frames = wav[: len(wav) // hop * hop].reshape(-1, hop).astype(np.float32)
    power = np.einsum("fs,fs->f", frames, frames).astype(np.float64) / hop / 32768.0**2
    levels: npt.NDArray[np.float64] = 10 * np.log10(np.maximum(power, 10 ** (_FLOOR_DB / 10)))
    return levels


def find_silences(levels: npt.NDArray[np.float64], shortest_frames: int) -> list[Silence]:
    """Stretches of at least `shortest_frames` frames below a quarter of the way from the floor to the loud frames.

    Floor and loud are the 10th and 95th percentile of the levels (dB), so recordings of any loudness and noise are
    treated alike; where they are one, there are no silences.
    """
    if not len(levels):
        return []
    floor, loud = np.percentile(levels, [10, 95])
    quiet = levels < floor + _SHARE_ABOVE_FLOOR * (loud - floor)
    edges = np.flatnonzero(np.diff(quiet.astype(np.int8), prepend=0, append=0))
    starts, stops = edges[::2], edges[1::2]
    return [
        Silence(int(start + stop) // 2, int(stop - start))
        for start, stop in zip(starts, stops, strict=True)
        if stop - start >= shortest_frames
    ]


def cuts_in_silences(num_frames: int, silences: list[Silence], longest: int) -> list[int]:
    """Frame numbers between which every piece has at most `longest` frames: [0, ..., num_frames], sorted.

    A piece that is too long is cut in the middle of the longest silence in it (of equal ones: that nearest to the
    middle of the piece), but not near its ends; where there is none, into equal pieces. Nothing is left out.
    """
    cuts = [0, num_frames]
    pieces = [(0, num_frames)]
    margin = max(1, int(longest * SHORTEST_PIECE_SHARE))
    while pieces:
        start, stop = pieces.pop()
        if stop - start <= longest:
            continue
        inside = [one for one in silences if start + margin <= one.middle <= stop - margin]
        if not inside:
            num_pieces = math.ceil((stop - start) / longest)
            cuts += [start + (stop - start) * number // num_pieces for number in range(1, num_pieces)]
            continue
        best = max(inside, key=lambda one: (one.frames, -abs(2 * one.middle - start - stop), -one.middle))
        cuts.append(best.middle)
        pieces += [(start, best.middle), (best.middle, stop)]
    return sorted(cuts)
