"""Query by example: the maximum term-weighted value of scored (query, document) pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics.verification import AtThreshold


def max_twv(
    scores_QD: npt.NDArray[np.floating] | Sequence[Sequence[float]],
    is_in_QD: npt.NDArray[np.bool_] | Sequence[Sequence[bool]],
    *,
    p_target: float = 0.0008,
    cost_miss: float = 100.0,
    cost_false_alarm: float = 1.0,
) -> AtThreshold:
    """The largest 1 - mean over queries of (misses + beta * false alarms), for one threshold on all scores; at most 1.

    beta = cost_false_alarm / cost_miss * (1 / p_target - 1), by default that of QUESST 2014 (Anguera et al., "Query by
    Example Search on Speech at Mediaeval 2014"), 12.49. Accepting nothing has the value 0, so the maximum is not less.

    Args:
        scores_QD: of each query in each document, higher for more likely; comparable between queries.
        is_in_QD: whether the query occurs in the document. Queries of none or of all documents are not in the mean.

    Raises:
        UsageError: other shapes, a score that is not finite, no query with both kinds of documents.
    """
    scores, is_in = np.asarray(scores_QD, dtype=np.float64), np.asarray(is_in_QD, dtype=np.bool_)
    if scores.ndim != 2 or scores.shape != is_in.shape or not np.isfinite(scores).all():
        raise UsageError(f"max_twv: scores {scores.shape} must be finite and of the shape of is_in {is_in.shape}")
    hits = is_in.sum(axis=1)
    asked = (hits > 0) & (hits < is_in.shape[1])
    if not asked.any():
        raise UsageError("max_twv: no query occurs in some documents and not in others; there is nothing to detect")
    scores, is_in, hits = scores[asked], is_in[asked], hits[asked, None]
    beta = cost_false_alarm / cost_miss * (1.0 / p_target - 1.0)
    gain = np.where(is_in, 1.0 / hits, -beta / (is_in.shape[1] - hits)) / len(scores)
    order = np.argsort(-scores, axis=None, kind="stable")
    values = np.cumsum(gain.ravel()[order])
    falling = scores.ravel()[order]
    last_of_score = np.append(np.diff(falling) != 0, True)
    values, thresholds = np.append(0.0, values[last_of_score]), np.append(np.inf, falling[last_of_score])
    best = int(np.argmax(values))
    return AtThreshold(float(values[best]), float(thresholds[best]))
