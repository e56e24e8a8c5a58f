"""Checks of arguments that many stages share; each raises a UsageError that names the stage."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from numbers import Real
from typing import Any

from s3prl_stream.errors import UsageError


def probability(stage: str, value: float, name: str = "prob") -> float:
    """A share, 0 to 1."""
    if not isinstance(value, Real) or not 0.0 <= value <= 1.0:
        raise UsageError(f"{stage}: {name}={value!r} is not between 0 and 1.")
    return float(value)


def one_number(stage: str, name: str, value: float, *, least: float, most: float = math.inf) -> float:
    """A number from `least` to `most`; no range of them."""
    if not isinstance(value, Real) or not math.isfinite(value) or not least <= value <= most:
        limits = f"from {least:g} on" if most == math.inf else f"from {least:g} to {most:g}"
        raise UsageError(f"{stage}: {name}={value!r} is no number {limits}.")
    return float(value)


def number_range(
    stage: str, name: str, value: Sequence[float] | float, *, least: float = -math.inf, most: float = math.inf
) -> tuple[float, float]:
    """One number, or (lowest, highest), each from `least` to `most`, as a pair."""
    # those of numpy are numbers too
    bounds: tuple[Any, ...] = (
        (value, value) if isinstance(value, Real) else tuple(value) if isinstance(value, Iterable) else ()
    )
    numbers = len(bounds) == 2 and all(isinstance(bound, Real) and math.isfinite(bound) for bound in bounds)
    if not numbers or not least <= bounds[0] <= bounds[1] <= most:
        limits = "" if (least, most) == (-math.inf, math.inf) else f" from {least:g} to {most:g}"
        raise UsageError(f"{stage}: {name}={value!r} is neither a number{limits} nor (lowest, highest) of such.")
    return float(bounds[0]), float(bounds[1])
