"""Room impulse responses, measured or simulated, and the convolution with them.

A response is float32 [R] whose direct path, its strongest sample, stands at `DIRECT_AT` and is 1: level and time of the
direct sound stay as they are.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from s3prl_stream.pipes.audio_bank import I16, AudioBank

F32: TypeAlias = npt.NDArray[np.float32]

DIRECT_AT = 32
"""Samples kept before the direct path: the beginning of a band-limited pulse, 2 ms at 16 kHz."""

DECAY_60_DB = 3.0 * np.log(10.0)
"""An amplitude that falls by 60 dB in one unit of time falls as exp(-DECAY_60_DB * t)."""


class RirBank(AudioBank):
    """Measured room impulse responses, one a file, opened once on a machine; for `reverberate(rooms=RirBank("rirs"))`.

    Arguments, attributes and errors are those of `AudioBank`.
    """

    keeps_silence = True

    def draw(self, rng: np.random.Generator, *, max_seconds: float) -> F32:
        """One of the responses, at most so long behind its direct path."""
        return self.response(int(rng.integers(len(self))), max_seconds=max_seconds)

    def response(self, number: int, *, max_seconds: float) -> F32:
        """The one of this number, from 0."""
        return aligned(self.clip(number), round(max_seconds * self.sample_rate))

    def _prepared(self, wav: I16) -> I16:
        return wav if wav.any() else wav[:0]


def aligned(response: npt.NDArray[np.generic], max_samples: int) -> F32:
    """Any response [R] with its strongest sample at `DIRECT_AT` and equal to 1, at most `max_samples` behind it."""
    direct = int(np.abs(response.astype(np.float64)).argmax())
    begin = max(direct - DIRECT_AT, 0)
    kept = response[begin : direct + max_samples].astype(np.float64) / float(response[direct])
    return np.pad(kept, (DIRECT_AT - (direct - begin), 0)).astype(np.float32)


def simulated(
    rng: np.random.Generator, sample_rate: int, *, rt60_seconds: float, drr_db: float, delay_ms: float
) -> F32:
    """A direct path and behind it noise that decays by 60 dB in `rt60_seconds`, down to -60 dB.

    J.-D. Polack, "La transmission de l'energie sonore dans les salles", 1988: what follows the first echoes of a room
    is like Gaussian noise under an exponential. `drr_db` is the ratio of the energies of the direct path and of all the
    rest, which begins `delay_ms` later.
    """
    delay = max(round(delay_ms * sample_rate / 1000), 1)
    seconds = np.arange(max(round(rt60_seconds * sample_rate), 1)) / sample_rate
    tail = rng.standard_normal(len(seconds), dtype=np.float32) * np.exp(-DECAY_60_DB / rt60_seconds * seconds)
    tail *= 10.0 ** (-drr_db / 20.0) / np.sqrt(np.square(tail, dtype=np.float64).sum())
    response = np.zeros(DIRECT_AT + delay + len(tail), dtype=np.float32)
    response[DIRECT_AT] = 1.0
    response[DIRECT_AT + delay :] = tail
    return response


def reverberated(wav: F32, response: F32) -> F32:
    """wav float32 [T] convolved with a response float32 [R] -> [T]; the direct sound stays where it is.

    By one FFT, in one thread and in float64: in float32 it takes four fifths of the time, and leaves noise that shows
    in the log spectra of what is quiet.
    """
    import scipy.fft

    if not len(wav):
        return wav
    num_points = fft_size(len(wav) + len(response) - 1)
    spectrum = scipy.fft.rfft(wav.astype(np.float64), num_points)
    spectrum *= scipy.fft.rfft(response.astype(np.float64), num_points)
    wet = scipy.fft.irfft(spectrum, num_points, overwrite_x=True)
    result: F32 = wet[DIRECT_AT : DIRECT_AT + len(wav)].astype(np.float32)
    return result


def fft_size(least: int) -> int:
    """The number of points, from `least` on, whose FFT costs least."""
    import scipy.fft

    return int(scipy.fft.next_fast_len(least, real=True))
