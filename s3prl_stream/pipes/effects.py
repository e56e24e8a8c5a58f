"""Effects in sox's spelling, such as [["gain", "-3.0"], ["pitch", "200"]], without sox.

Filters are biquads (`filters.py`), tempo and pitch are WSOLA (`tempo.py`), speed and rate are soxr. They are
meant to be sox's own effects: what was compared with the program is in tests/pipes/test_effects.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from fractions import Fraction
from functools import partial
from typing import Any, TypeAlias

import numpy as np

from s3prl_stream.audio.bounds import check_resampling
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes import tempo
from s3prl_stream.pipes.filters import F32, Apply, Sound, biquad, number, tone

Effect: TypeAlias = Sequence[str | float]
Effects: TypeAlias = Sequence[Effect]


def apply_effects(wav: F32, sample_rate: int, effects: Effects, rng: np.random.Generator | None = None) -> Sound:
    """Apply effects in turn.

    As in sox, samples beyond full scale are clipped after each effect. Unlike in sox, `speed` keeps the sample rate
    (sox changes it and resamples at the end, which sounds the same).

    Args:
        wav: float32 [T] or [C, T], full scale at 1.0; not altered.
        sample_rate: Hz.
        effects: lists of a name and its arguments, as strings or numbers. See `KNOWN`.
        rng: where `dither` draws from.

    Returns:
        (float32 [T'] or [C', T'], sample rate in Hz).

    Raises:
        UsageError: an unknown effect or argument, a frequency above half the sample rate, or dither without `rng`.
    """
    for apply in [_parse(effect) for effect in effects]:
        wav, sample_rate = apply(wav, sample_rate, rng)
        wav = np.clip(wav, -1.0, 1.0).astype(np.float32, copy=False)
    return wav, sample_rate


def check_effects(effects: Effects) -> None:
    """Raise the UsageError of `apply_effects` that can be known without a waveform."""
    if not isinstance(effects, list | tuple):
        raise UsageError(f'effects: {effects!r} is no list of lists, as in [["gain", "-3.0"]].')
    for effect in effects:
        _parse(effect)


def stretch_of(effects: Effects) -> float:
    """How many times as long a waveform gets by these effects (`speed` and `tempo`; below 1: shorter)."""
    factor = 1.0
    for effect in effects:
        if effect[0] == "speed":
            factor *= _speed_factor(effect[1])
        elif effect[0] == "tempo":
            factor *= _tempo_arguments(effect)[0]
    return 1.0 / factor


def keeps_length(effects: Effects) -> bool:
    """Whether as many samples come out as went in."""
    return not any(effect[0] in ("rate", "silence", "speed", "tempo", "trim") for effect in effects)


def needs_rng(effects: Effects) -> bool:
    """Whether any of these effects is random."""
    return any(effect[0] == "dither" for effect in effects)


def _parse(effect: Effect) -> Apply:
    if not isinstance(effect, list | tuple) or not effect or not isinstance(effect[0], str):
        raise UsageError(f'effects: {effect!r} is not a list of a name and its arguments, as in ["gain", "-3.0"].')
    name, *arguments = effect
    if name not in _EFFECTS:
        hint = " Reverberation is a stage of its own, .reverberate()." if name == "reverb" else ""
        raise UsageError(f"effects: {name!r} is not known; there are {', '.join(KNOWN)}.{hint}")
    usage, parse = _EFFECTS[name]
    try:
        return parse(*(str(argument) for argument in arguments))
    except (TypeError, ValueError, IndexError) as error:
        reason = f": {error}" if isinstance(error, UsageError) else ""
        raise UsageError(f"effects: {list(effect)!r}: expected {usage}{reason}") from None


# ---- level ------------------------------------------------------------------------------------------


def _gain(*arguments: str) -> Apply:
    normalise = arguments[:1] == ("-n",)
    (gain_db,) = map(number, arguments[normalise:] or ("0",))

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        peak = float(np.abs(wav).max(initial=0.0)) if normalise else 1.0
        return wav * np.float32(10.0 ** (gain_db / 20.0) / (peak or 1.0)), rate

    return apply


def _dither() -> Apply:
    def apply(wav: F32, rate: int, rng: np.random.Generator | None) -> Sound:
        if rng is None:
            raise UsageError("effects: dither is random: apply_effects() needs an rng")
        noise = rng.random(wav.shape, dtype=np.float32) - rng.random(wav.shape, dtype=np.float32)
        return np.rint(wav * np.float32(32768) + noise) / np.float32(32768), rate

    return apply


def _channels(count: str) -> Apply:
    if int(count) != 1:
        raise UsageError("only 1 channel can be asked for")
    return lambda wav, rate, _: (wav if wav.ndim == 1 else wav.mean(axis=0, keepdims=True, dtype=np.float32), rate)


# ---- time -------------------------------------------------------------------------------------------


def _speed(factor: str) -> Apply:
    by = _speed_factor(factor)
    return lambda wav, rate, _: (change_speed(wav, by), rate)


def _tempo(*arguments: str) -> Apply:
    factor, lengths = _tempo_arguments(("tempo", *arguments))
    return lambda wav, rate, _: (tempo.stretch(wav, rate, factor, **lengths), rate)


def _pitch(cents: str, *arguments: str) -> Apply:
    if cents == "-q":
        cents, *rest = arguments
        arguments = tuple(rest)
    ratio = 2.0 ** (number(cents) / 1200.0)
    _, lengths = _tempo_arguments(("pitch", "1", *arguments))

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        slower = tempo.stretch(wav, rate, 1.0 / ratio, **lengths)
        return change_speed(slower, ratio, num_out=wav.shape[-1]), rate

    return apply


def _rate(*arguments: str) -> Apply:
    wanted = int(number(arguments[-1]))
    if wanted <= 0 or any(option not in ("-q", "-l", "-m", "-h", "-v") for option in arguments[:-1]):
        raise UsageError("a rate above 0, and no options but those of quality")

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        check_resampling(wav.shape[-1], rate, wanted)
        return (wav, rate) if rate == wanted else (change_speed(wav, rate / wanted), wanted)

    return apply


def change_speed(wav: F32, factor: float, *, num_out: int | None = None) -> F32:
    """wav float32 [T] or [C, T] played `factor` times as fast, tempo and pitch alike -> [..., round(T / factor)].

    Resampled by soxr (HQ). `num_out` asks for another length: cut, or filled with zeros.
    """
    import soxr

    num_out = round(wav.shape[-1] / factor) if num_out is None else num_out
    ratio = Fraction(factor).limit_denominator(1000)  # soxr is faster where it knows one
    rates = (ratio.numerator, ratio.denominator) if abs(float(ratio) - factor) < 1e-12 else (factor, 1.0)
    # a copy: of one sample, older numpy keeps strides that soxr takes for gaps
    faster: F32 = soxr.resample(wav.T.copy(), *rates, quality="HQ").T if wav.shape[-1] else wav
    missing = num_out - faster.shape[-1]
    return faster[..., :num_out] if missing <= 0 else np.pad(faster, [(0, 0)] * (wav.ndim - 1) + [(0, missing)])


def _trim(start: str, length: str | None = None) -> Apply:
    first, count = number(start), None if length is None else number(length)
    if first < 0 or (count is not None and count < 0):
        raise UsageError("a place before the beginning")

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        begin = round(first * rate)
        return wav[..., begin : None if count is None else begin + round(count * rate)], rate

    return apply


def _reverse() -> Apply:
    return lambda wav, rate, _: (np.ascontiguousarray(wav[..., ::-1]), rate)


def _silence(periods: str, duration: str, threshold: str) -> Apply:
    if int(periods) != 1:
        raise UsageError("only above_periods 1 is known")
    seconds = number(duration)
    if not threshold.endswith(("%", "d")):
        raise UsageError("the threshold ends in % or d")
    value = number(threshold[:-1])
    level = value / 100.0 if threshold.endswith("%") else 10.0 ** (value / 20.0)

    def apply(wav: F32, rate: int, _: Any) -> Sound:
        return wav[..., _first_loud(wav, rate, level, max(round(seconds * rate), 1)) :], rate

    return apply


def _first_loud(wav: F32, rate: int, level: float, least: int) -> int:
    """Where a stretch of `least` samples begins whose RMS over the 20 ms before each is above `level`; T: nowhere."""
    power_T = np.square(np.atleast_2d(wav), dtype=np.float64).mean(axis=0)
    window = max(rate // 50, 1)
    summed = np.cumsum(np.pad(power_T, (window, 0)))
    loud_T = np.sqrt(np.maximum(summed[window:] - summed[:-window], 0.0) / window) > level
    quiet = np.flatnonzero(~loud_T)
    begins = np.concatenate([[0], quiet + 1])
    lengths = np.diff(np.concatenate([begins, [len(loud_T) + 1]])) - 1
    long_enough = np.flatnonzero(lengths >= least)
    return int(begins[long_enough[0]]) if len(long_enough) else len(loud_T)


# ---- arguments --------------------------------------------------------------------------------------


def _speed_factor(text: str | float) -> float:
    cents = isinstance(text, str) and text.endswith("c")
    factor = 2.0 ** (number(str(text)[:-1]) / 1200.0) if cents else number(text)
    if not 0.1 <= factor <= 10.0:
        raise UsageError("a factor of 0.1 to 10")
    return factor


def _tempo_arguments(effect: Effect) -> tuple[float, dict[str, float]]:
    given = [argument for argument in effect[1:] if argument != "-q"]
    factor, *lengths = map(number, given)
    if not 0.1 <= factor <= 10.0 or len(lengths) > 3 or any(length <= 0 for length in lengths):
        raise UsageError("a factor of 0.1 to 10, and lengths above 0")
    return factor, dict(zip(("segment_ms", "search_ms", "overlap_ms"), lengths, strict=False))


_EFFECTS: dict[str, tuple[str, Callable[..., Apply]]] = {
    "allpass": ("frequency width[h|k|q|o]", lambda *a: biquad("allpass", "h", a, default="missing")),
    "band": ("[-n] frequency [width[h|k|q|o]]", lambda *a: biquad("band", "h", a, flags="-n")),
    "bandpass": ("[-c] frequency width[h|k|q|o]", lambda *a: biquad("bandpass", "h", a, flags="-c", default="missing")),
    "bandreject": ("frequency width[h|k|q|o]", lambda *a: biquad("bandreject", "h", a, default="missing")),
    "bass": ("gain-dB [frequency [width[s|h|k|q|o]]]", lambda *a: tone("bass", "100", a)),
    "channels": ("1", _channels),
    "dither": ("no arguments", _dither),
    "equalizer": ("frequency width[q|o|h|k] gain-dB", lambda *a: biquad("equalizer", "q", a)),
    "gain": ("[-n] gain-dB", _gain),
    "highpass": (
        "[-1|-2] frequency [width[q|o|h|k]]",
        lambda *a: biquad("highpass", "q", a, flags="-1 -2", default=str(math.sqrt(0.5))),
    ),
    "lowpass": (
        "[-1|-2] frequency [width[q|o|h|k]]",
        lambda *a: biquad("lowpass", "q", a, flags="-1 -2", default=str(math.sqrt(0.5))),
    ),
    "norm": ("[level-dB]", partial(_gain, "-n")),
    "pitch": ("[-q] cents [segment-ms [search-ms [overlap-ms]]]", _pitch),
    "rate": ("[-q|-l|-m|-h|-v] hertz", _rate),
    "reverse": ("no arguments", _reverse),
    "silence": ("1 seconds threshold[d|%]", _silence),
    "speed": ("factor[c]", _speed),
    "tempo": ("[-q] factor [segment-ms [search-ms [overlap-ms]]]", _tempo),
    "treble": ("gain-dB [frequency [width[s|h|k|q|o]]]", lambda *a: tone("treble", "3000", a)),
    "trim": ("start-seconds [length-seconds]", _trim),
}
"""Effect -> its arguments, for messages, and what makes it of them."""

KNOWN = tuple(_EFFECTS)
"""The effects there are."""
