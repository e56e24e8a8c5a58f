"""Checks of arguments that many stages share; each raises a UsageError that names the stage and the argument.

Numbers of numpy are numbers too, and become Python's own. True and False are none, nor is a text.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from numbers import Real
from typing import Any

from s3prl_stream.errors import UsageError


def one_number(
    stage: str, name: str, value: Any, *, least: float = -math.inf, above: float = -math.inf, most: float = math.inf
) -> float:
    """A finite number from `least` to `most`, both included, and greater than `above`; no range of them."""
    if not (_is_number(value) and least <= value <= most and value > above):
        raise UsageError(f"{stage}: {name}={value!r} is no number{_limits(least, above, most)}.")
    return float(value)


def whole_number(stage: str, name: str, value: Any, *, least: float, most: float = math.inf) -> int:
    """A whole number from `least` to `most`, both included."""
    if not (_is_number(value) and least <= value <= most and value == int(value)):
        raise UsageError(f"{stage}: {name}={value!r} is no whole number{_limits(least, -math.inf, most)}.")
    return int(value)


def one_of(stage: str, name: str, value: Any, known: Collection[str]) -> str:
    """One of the names that are known."""
    if not isinstance(value, str) or value not in known:
        raise UsageError(f"{stage}: {name}={value!r} does not exist; there are {', '.join(known)}.")
    return value


def rate_or_none(stage: str, value: Any) -> int | None:
    """A sample rate (Hz), or None."""
    return None if value is None else whole_number(stage, "sample_rate", value, least=1)


def check_rate(stage: str, key: object, rate: int, wanted: int | None) -> None:
    """Sample `key` is at `rate` Hz, as is wanted; None: any rate is."""
    if wanted not in (None, rate):
        found = f"{stage}: sample {key!r} is at {rate} Hz, expected {wanted} Hz"
        raise UsageError(f"{found}; load it with load_audio(sample_rate={wanted})")


def probability(stage: str, value: Any, name: str = "prob") -> float:
    """A share, 0 to 1."""
    return one_number(stage, name, value, least=0, most=1)


def number_range(
    stage: str, name: str, value: Sequence[float] | float, *, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """One number, or (lowest, highest), each from `least` to `most`, as a pair."""
    bounds: tuple[Any, ...] = tuple(value) if isinstance(value, Iterable) else (value, value)
    if len(bounds) != 2 or not all(map(_is_number, bounds)) or not least <= bounds[0] <= bounds[1] <= most:
        limits = _limits(least, -math.inf, most)
        raise UsageError(f"{stage}: {name}={value!r} is neither a number{limits} nor (lowest, highest) of such.")
    return float(bounds[0]), float(bounds[1])


def _is_number(value: Any) -> bool:
    """Whether it is a finite one."""
    return isinstance(value, Real) and not isinstance(value, bool) and -math.inf < float(value) < math.inf


def _limits(least: float, above: float, most: float) -> str:
    begin = f" from {least:g}" if math.isfinite(least) else f" above {above:g}" if math.isfinite(above) else ""
    end = f" to {most:g}" if math.isfinite(most) else " on" if math.isfinite(least) else ""
    return begin + end
