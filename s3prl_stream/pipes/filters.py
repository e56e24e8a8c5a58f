"""The filters of sox: their arguments in its units, and their coefficients."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError

F32: TypeAlias = npt.NDArray[np.float32]
Sound: TypeAlias = tuple[F32, int]
"""(float32 [T] or [C, T], Hz)."""
Coefficients: TypeAlias = tuple[list[float], list[float]]
"""(b, a) of H(z) = (b0 + b1 / z + ...) / (a0 + a1 / z + ...)."""
Apply: TypeAlias = Callable[[F32, int, np.random.Generator | None], Sound]


def biquad(function: str, default_unit: str, arguments: Sequence[str], flags: str = "", default: str = "") -> Apply:
    """The filters which take a frequency, a width and, the equaliser, a gain.

    Only `band` may go without a width and has no default: half its frequency.
    """
    given = [argument for argument in arguments if argument not in flags.split()]
    asked = [argument for argument in arguments if argument in flags.split()]
    hertz = number(given[0])
    width = _width(given[1] if len(given) > 1 else default or f"{hertz / 2}h", default_unit)
    settings: dict[str, Any] = {"gain_db": number(given[2])} if function == "equalizer" else {}
    if len(given) > 2 + len(settings) or len(asked) > 1 or hertz <= 0:
        raise UsageError("a frequency above 0, and no more arguments than that")
    if asked and flags == "-1 -2":
        if asked == ["-1"]:
            return _filter(function, hertz, lambda rate: _one_pole(function, hertz, rate))
    elif asked:
        settings[{"bandpass": "skirt", "band": "noise"}[function]] = True
    return _filter(
        function, hertz, lambda rate: _coefficients(function, hertz, rate, width(hertz, rate, 0.0), **settings)
    )


def tone(function: str, default_hertz: str, arguments: Sequence[str]) -> Apply:
    """`bass` and `treble`: a gain, a frequency and a width."""
    gain_db = number(arguments[0])
    hertz = number(arguments[1] if len(arguments) > 1 else default_hertz)
    width = _width(arguments[2] if len(arguments) > 2 else "0.5s", "s")
    if len(arguments) > 3 or hertz <= 0:
        raise UsageError("a frequency above 0, and no more arguments than that")
    return _filter(
        function, hertz, lambda rate: _coefficients(function, hertz, rate, width(hertz, rate, gain_db), gain_db)
    )


def _filter(function: str, hertz: float, coefficients: Callable[[int], Coefficients]) -> Apply:
    """In float64: at low frequencies the recursion in float32 is off by 60 dB below the signal."""

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        from scipy.signal import lfilter

        if hertz >= rate / 2:
            limit = f"must be below half the sample rate, {rate / 2:g} Hz"
            raise UsageError(f"effects: {function} at {hertz:g} Hz: {limit}")
        if not wav.shape[-1]:
            return wav, rate
        return lfilter(*coefficients(rate), wav.astype(np.float64)).astype(np.float32), rate

    return apply


def _one_pole(function: str, hertz: float, rate: int) -> Coefficients:
    """`lowpass -1` and `highpass -1`: 6 dB an octave."""
    pole = math.exp(-2.0 * math.pi * hertz / rate)
    high = (1.0 + pole) / 2.0
    b0, b1 = (1.0 - pole, 0.0) if function == "lowpass" else (high, -high)
    return [b0, b1], [1.0, -pole]


def _coefficients(
    function: str, hertz: float, rate: int, q: float, gain_db: float = 0.0, *, skirt: bool = False, noise: bool = False
) -> Coefficients:
    """(b, a) of a biquad: those of R. Bristow-Johnson's "Audio EQ Cookbook", and sox's `band`."""
    angle = 2.0 * math.pi * hertz / rate
    cos, alpha, amplitude = math.cos(angle), math.sin(angle) / (2.0 * q), 10.0 ** (gain_db / 40.0)
    if function == "band":
        return _band(hertz, rate, hertz / q, noise=noise)
    if function in ("bass", "treble"):
        return _shelf(amplitude, -cos if function == "treble" else cos, 2.0 * math.sqrt(amplitude) * alpha, function)
    boost = alpha * amplitude if function == "equalizer" else alpha
    cut = alpha / amplitude if function == "equalizer" else alpha
    through = math.sin(angle) / 2.0 if skirt else alpha
    b = {
        "lowpass": [(1.0 - cos) / 2.0, 1.0 - cos, (1.0 - cos) / 2.0],
        "highpass": [(1.0 + cos) / 2.0, -1.0 - cos, (1.0 + cos) / 2.0],
        "bandpass": [through, 0.0, -through],
        "bandreject": [1.0, -2.0 * cos, 1.0],
        "allpass": [1.0 - alpha, -2.0 * cos, 1.0 + alpha],
        "equalizer": [1.0 + boost, -2.0 * cos, 1.0 - boost],
    }[function]
    return b, [1.0 + cut, -2.0 * cos, 1.0 - cut]


def _shelf(amplitude: float, cos: float, slope: float, function: str) -> Coefficients:
    """Of `bass`; with the sign of the cosine changed it is `treble`, but for the signs of the middle coefficients."""
    more, less = amplitude + 1.0, amplitude - 1.0
    b = [
        amplitude * (more - less * cos + slope),
        2.0 * amplitude * (less - more * cos),
        amplitude * (more - less * cos - slope),
    ]
    a = [more + less * cos + slope, -2.0 * (less + more * cos), more + less * cos - slope]
    if function == "treble":
        b[1], a[1] = -b[1], -a[1]
    return b, a


def _band(hertz: float, rate: int, width_hertz: float, *, noise: bool) -> Coefficients:
    a2 = math.exp(-2.0 * math.pi * width_hertz / rate)
    a1 = -4.0 * a2 / (1.0 + a2) * math.cos(2.0 * math.pi * hertz / rate)
    b0 = math.sqrt(1.0 - a1 * a1 / (4.0 * a2)) * (1.0 - a2)
    if noise:
        b0 = math.sqrt(((1.0 + a2) ** 2 - a1 * a1) * (1.0 - a2) / (1.0 + a2))
    return [b0, 0.0, 0.0], [1.0, a1, a2]


def number(text: str | float) -> float:
    value = float(text[:-1]) * 1000.0 if isinstance(text, str) and text.endswith("k") else float(text)
    if not math.isfinite(value):
        raise UsageError(f"{text!r} is no finite number")
    return value


def _width(text: str, default_unit: str) -> Callable[[float, int, float], float]:
    """The width of a filter in sox's units, as (frequency, sample rate, gain in dB) -> Q."""
    has_unit = text[-1:] in ("h", "k", "q", "o", "s")
    value, unit = (float(text[:-1]), text[-1]) if has_unit else (float(text), default_unit)
    if not value > 0 or (unit == "s" and default_unit != "s"):
        raise UsageError("a width above 0 in h, k, q or o")

    def to_q(hertz: float, rate: int, gain_db: float) -> float:
        if unit == "q":
            return value
        if unit == "o":
            angle = 2.0 * math.pi * hertz / rate
            return 0.5 / math.sinh(math.log(2.0) / 2.0 * value * angle / math.sin(angle))
        if unit == "s":
            amplitude = 10.0 ** (gain_db / 40.0)
            return 1.0 / math.sqrt((amplitude + 1.0 / amplitude) * (1.0 / value - 1.0) + 2.0)
        return hertz / (value * 1000.0 if unit == "k" else value)

    return to_q
