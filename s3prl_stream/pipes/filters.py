"""The filters of sox by torchaudio's functions: their arguments in sox's units, made into what those take."""

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
Apply: TypeAlias = Callable[[F32, int, np.random.Generator | None], Sound]


def biquad(function: str, default_unit: str, arguments: Sequence[str], flags: str = "", default: str = "") -> Apply:
    """Of torchaudio's biquads those which take a frequency, a width and, the equaliser, a gain.

    Only `band` may go without a width and has no default: half its frequency.
    """
    given = [argument for argument in arguments if argument not in flags.split()]
    asked = [argument for argument in arguments if argument in flags.split()]
    hertz = number(given[0])
    width = _width(given[1] if len(given) > 1 else default or f"{hertz / 2}h", default_unit)
    settings: dict[str, Any] = {"gain": number(given[2])} if function == "equalizer" else {}
    if len(given) > 2 + len(settings) or len(asked) > 1 or hertz <= 0:
        raise UsageError("a frequency above 0, and no more arguments than that")
    if asked and flags == "-1 -2":
        if asked == ["-1"]:
            return _one_pole(function, hertz)
    elif asked:
        settings[{"bandpass": "const_skirt_gain", "band": "noise"}[function]] = True

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        _check_frequency(function, hertz, rate)
        return _with_torchaudio(f"{function}_biquad", wav, rate, hertz, Q=width(hertz, rate, 0.0), **settings), rate

    return apply


def tone(function: str, default_hertz: str, arguments: Sequence[str]) -> Apply:
    """`bass` and `treble`: a gain, a frequency and a width."""
    gain_db = number(arguments[0])
    hertz = number(arguments[1] if len(arguments) > 1 else default_hertz)
    width = _width(arguments[2] if len(arguments) > 2 else "0.5s", "s")
    if len(arguments) > 3 or hertz <= 0:
        raise UsageError("a frequency above 0, and no more arguments than that")

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        _check_frequency(function, hertz, rate)
        return _with_torchaudio(f"{function}_biquad", wav, rate, gain_db, hertz, Q=width(hertz, rate, gain_db)), rate

    return apply


def _one_pole(function: str, hertz: float) -> Apply:
    """`lowpass -1` and `highpass -1`: 6 dB an octave."""

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        _check_frequency(function, hertz, rate)
        pole = math.exp(-2.0 * math.pi * hertz / rate)
        high = (1.0 + pole) / 2.0
        b0, b1 = (1.0 - pole, 0.0) if function == "lowpass" else (high, -high)
        return _with_torchaudio("biquad", wav, b0, b1, 0.0, 1.0, -pole, 0.0), rate

    return apply


def _with_torchaudio(function: str, wav: F32, *arguments: float, **settings: Any) -> F32:
    """In float64: at low frequencies the recursion in float32 is off by 60 dB below the signal."""
    try:
        import torch
        from torchaudio import functional
    except (ImportError, OSError, RuntimeError) as error:
        raise UsageError(
            f"the filters among the effects need torchaudio, which cannot be imported here ({error}). torch 2.11.0 "
            "with torchaudio 2.11.0 work together; gain, speed, tempo and pitch do without."
        ) from error
    if not wav.shape[-1]:
        return wav
    filtered = getattr(functional, function)(torch.from_numpy(wav).double(), *arguments, **settings)
    result: F32 = filtered.numpy().astype(np.float32)
    return result


def _check_frequency(function: str, hertz: float, rate: int) -> None:
    if hertz >= rate / 2:
        raise UsageError(f"effects: {function} at {hertz:g} Hz: must be below half the sample rate, {rate / 2:g} Hz")


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
