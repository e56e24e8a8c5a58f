"""Speaker verification: equal error rate and minimum detection cost of scored trials."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError


class AtThreshold(NamedTuple):
    """A value with the score at which it is reached: trials that score at least `threshold` are accepted."""

    value: float
    threshold: float


def equal_error_rate(is_target: Sequence[bool | int], scores: Sequence[float]) -> AtThreshold:
    """Where misses and false alarms are equally frequent, 0 to 1, linear between neighbouring thresholds.

    Args:
        is_target: 1 for a trial of one speaker, 0 for one of two.
        scores: higher for more alike.

    Raises:
        UsageError: not one score for each trial, only one kind of trial, or a score that is not finite.
    """
    miss, false_alarm, thresholds = _error_rates(is_target, scores)
    after = int(np.argmax(miss <= false_alarm))  # thresholds fall, so misses fall and false alarms rise
    before = after - 1
    gap_before = miss[before] - false_alarm[before]
    gap_after = miss[after] - false_alarm[after]
    share = gap_before / (gap_before - gap_after)
    value = false_alarm[before] + share * (false_alarm[after] - false_alarm[before])
    if not np.isfinite(thresholds[before]):
        return AtThreshold(float(value), float(thresholds[after]))
    return AtThreshold(float(value), float(thresholds[before] + share * (thresholds[after] - thresholds[before])))


def min_dcf(
    is_target: Sequence[bool | int],
    scores: Sequence[float],
    *,
    p_target: float = 0.01,
    cost_miss: float = 1.0,
    cost_false_alarm: float = 1.0,
) -> AtThreshold:
    """Least detection cost over all thresholds, over the cost of always giving the better constant answer.

    NIST 2016 Speaker Recognition Evaluation Plan, section 3; arguments and errors as of `equal_error_rate`.
    """
    miss, false_alarm, thresholds = _error_rates(is_target, scores)
    costs = cost_miss * p_target * miss + cost_false_alarm * (1 - p_target) * false_alarm
    best = int(np.argmin(costs))
    constant = min(cost_miss * p_target, cost_false_alarm * (1 - p_target))
    return AtThreshold(float(costs[best] / constant), float(thresholds[best]))


def _error_rates(
    is_target: Sequence[bool | int], scores: Sequence[float]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """(misses, false alarms, threshold) [K + 1] at each distinct score from the highest, after infinity."""
    targets, values = np.asarray(is_target, dtype=np.bool_), np.asarray(scores, dtype=np.float64)
    if targets.shape != values.shape or targets.ndim != 1:
        raise UsageError(f"trials: {targets.size} answers for {values.size} scores; give one for each")
    if not np.isfinite(values).all():
        raise UsageError(f"trials: {int((~np.isfinite(values)).sum())} of {values.size} scores are not finite")
    num_targets = int(targets.sum())
    if not 0 < num_targets < len(targets):
        raise UsageError(f"trials: {num_targets} of {len(targets)} are of one speaker; both kinds are needed")
    order = np.argsort(-values, kind="stable")
    last_of_score = np.append(np.diff(values[order]) != 0, True)
    accepted_targets = np.append(0, np.cumsum(targets[order])[last_of_score])
    accepted = np.append(0, np.flatnonzero(last_of_score) + 1)
    miss = 1.0 - accepted_targets / num_targets
    false_alarm = (accepted - accepted_targets) / (len(targets) - num_targets)
    return miss, false_alarm, np.append(np.inf, values[order][last_of_score])
