"""Who spoke when: diarization error of turns, and the median filter that is applied before scoring."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError

Bools = npt.NDArray[np.bool_]


class Turn(NamedTuple):
    """A stretch of speech of one speaker, in seconds."""

    start: float
    end: float
    speaker: str


class DiarizationError(NamedTuple):
    """Parts of the diarization error, in seconds; they add up over recordings by `+`."""

    missed: float = 0.0
    false_alarm: float = 0.0
    confused: float = 0.0
    total: float = 0.0
    """Speech in the reference; where n speak at once it counts n times."""

    @property
    def rate(self) -> float:
        """(missed + false alarm + confused) / total: 0 at best, and no limit above.

        Raises:
            UsageError: the reference has no speech.
        """
        if not self.total:
            raise UsageError("diarization error: the references have no speech, so there is no rate")
        return (self.missed + self.false_alarm + self.confused) / self.total

    def __add__(self, other: object) -> DiarizationError:
        if not isinstance(other, DiarizationError):
            return NotImplemented
        return DiarizationError(*(one + two for one, two in zip(self, other, strict=True)))


def diarization_error(
    answer: Iterable[Turn],
    reference: Iterable[Turn],
    *,
    collar_seconds: float = 0.0,
) -> DiarizationError:
    """Error of one recording under the best matching of the answer's speakers with the reference's.

    As NIST's md-eval computes it, on the real time line: between two neighbouring ends of turns nothing changes.

    Args:
        answer, reference: turns; several of one speaker that overlap count once.
        collar_seconds: this much on each side of every end of a reference's turn is not scored (usually 0.25 or 0).
    """
    from scipy.optimize import linear_sum_assignment

    said, spoken = list(answer), list(reference)
    ends = [time for turn in spoken for time in (turn.start, turn.end)]
    edges = {time for turn in [*said, *spoken] for time in (turn.start, turn.end)}
    edges |= {time + side for time in ends for side in (-collar_seconds, collar_seconds)}
    times = np.array(sorted(edges), dtype=np.float64)
    middles, seconds = (times[1:] + times[:-1]) / 2, np.diff(times)
    answer_PS, reference_PS = _active(said, middles), _active(spoken, middles)
    if collar_seconds > 0:
        seconds = seconds * ~np.any([np.abs(middles - time) < collar_seconds for time in ends], axis=0)
    together = (reference_PS * seconds[:, None]).T.astype(np.float64) @ answer_PS.astype(np.float64)
    rows, columns = linear_sum_assignment(-together)
    num_spoken, num_said = reference_PS.sum(axis=1), answer_PS.sum(axis=1)
    both = float((np.minimum(num_spoken, num_said) * seconds).sum())
    return DiarizationError(
        float((np.maximum(num_spoken - num_said, 0) * seconds).sum()),
        float((np.maximum(num_said - num_spoken, 0) * seconds).sum()),
        max(both - float(together[rows, columns].sum()), 0.0),
        float((num_spoken * seconds).sum()),
    )


def median_filter(active_FS: Bools, width_frames: int) -> Bools:
    """The median over an odd number of frames around each, speaker by speaker; before and after there is silence.

    Args:
        active_FS: [frames, speakers].
        width_frames: 1 leaves everything as it is; SUPERB tries 1 and 11.

    Raises:
        UsageError: the width is even or below 1.
    """
    if width_frames < 1 or width_frames % 2 == 0:
        raise UsageError(f"median_filter: width_frames is {width_frames}; it must be odd, so that there is a middle")
    half = width_frames // 2
    padded = np.pad(active_FS, ((half, half), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, width_frames, axis=0)
    filtered: Bools = windows.sum(axis=-1) > half
    return filtered


def _active(turns: Sequence[Turn], middles_P: npt.NDArray[np.float64]) -> Bools:
    """[pieces, speakers]: who speaks at these times."""
    speakers = {name: number for number, name in enumerate(dict.fromkeys(turn.speaker for turn in turns))}
    active = np.zeros((len(middles_P), len(speakers)), dtype=np.bool_)
    for turn in turns:
        active[(turn.start <= middles_P) & (middles_P < turn.end), speakers[turn.speaker]] = True
    return active
