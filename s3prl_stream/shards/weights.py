"""Weights of the sets of a mix: their shares of the audio that is delivered."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from numbers import Real
from typing import Any, TypeAlias

from s3prl_stream.errors import UsageError

_MOST = 1e300
"""Whose sum is finite."""

Weights: TypeAlias = tuple[float, ...]
"""One a set, in the order of the sets; they sum to 1."""


def normalised(weights: Mapping[str, Any]) -> Weights:
    """Weights of any sum -> shares.

    Raises:
        UsageError: one is no number from 0 on, or all are 0.
    """
    for name, weight in weights.items():
        number = isinstance(weight, Real) and not isinstance(weight, bool)
        try:
            amount = float(weight) if number else math.nan
        except OverflowError:
            amount = math.inf
        if not 0 <= amount < _MOST:
            raise UsageError(f"set {name}: weight {weight!r} must be a number from 0 on, below 1e300")
    amounts = [float(weight) for weight in weights.values()]
    total = math.fsum(amounts)
    if not total:
        raise UsageError("all weights are 0; give at least one set a share" if amounts else "no shard sets given")
    return tuple(amount / total for amount in amounts)


def by_temperature(hours: Sequence[float], temperature: float) -> Weights:
    """Shares in proportion to hours ** (1 / temperature).

    1 is in proportion to the sets' hours, more favours small sets, infinity is uniform (Arivazhagan et al., "Massively
    Multilingual Neural Machine Translation in the Wild", 2019, section 4.2).

    Raises:
        UsageError: the temperature is not greater than 0, or no set has any audio.
    """
    if isinstance(temperature, bool) or not isinstance(temperature, Real) or not temperature > 0:
        raise UsageError(f"temperature: {temperature!r} must be a number greater than 0")
    largest = max(hours)
    if not largest:
        raise UsageError("temperature: none of the sets has any audio")
    powers = [(amount / largest) ** (1 / temperature) for amount in hours]
    return tuple(power / math.fsum(powers) for power in powers)
