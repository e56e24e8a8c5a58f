"""Query by example: how well a spoken query fits anywhere in a document, by dynamic time warping. Nothing is trained.

As in SUPERB's QbE: Rodriguez-Fuentes et al., "High-performance query-by-example spoken term detection on the SWS 2013
evaluation", ICASSP 2014. Hidden states are to come on one scale (`downstream.search`).

Q frames of a query, D frames of a document, H hidden.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError

FEWEST_FRAMES = 5
"""A shorter query fits everywhere equally well, so it is not searched for: its scores are all 0."""

Floats = npt.NDArray[np.floating]


def subsequence_cost(distance_QD: Floats) -> float:
    """The least mean distance of a query from a stretch of a document, over all stretches and alignments.

    Each frame of the query is aligned to one of the document, which stays or moves on by one or two: the asymmetric
    step pattern, its cost divided by Q.
    """
    cost_D = np.asarray(distance_QD[0], dtype=np.float64)
    for row_D in distance_QD[1:]:
        one = np.concatenate([[np.inf], cost_D[:-1]])
        two = np.concatenate([[np.inf, np.inf], cost_D[:-2]])[: len(cost_D)]
        cost_D = np.minimum(np.minimum(cost_D, one), two) + row_D
    return float(cost_D.min() / len(distance_QD))


def distances(query_QH: Floats, document_DH: Floats) -> Floats:
    """exp(1 - cosine) - 1 of each pair of frames [Q, D], each row then from 0 (its nearest) to 1 (its farthest)."""
    unit_query, unit_document = _of_length_one(query_QH), _of_length_one(document_DH)
    distance_QD = np.expm1(1.0 - unit_query @ unit_document.T)
    nearest, farthest = distance_QD.min(axis=1, keepdims=True), distance_QD.max(axis=1, keepdims=True)
    scaled: Floats = (distance_QD - nearest) / np.maximum(farthest - nearest, 1e-9)
    return scaled


def costs_in(document_DH: Floats, queries: Sequence[Floats]) -> npt.NDArray[np.float64]:
    """`subsequence_cost` of each query [Q, H] in a document, [queries]; 0 of one that is too short."""
    costs = (
        subsequence_cost(distances(query_QH, document_DH)) if len(query_QH) >= FEWEST_FRAMES else 0.0
        for query_QH in queries
    )
    return np.fromiter(costs, np.float64, len(queries))


def scores_of(costs_QD: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Scores [queries, documents] of these costs: minus the cost, of mean 0 and deviation 1 a query.

    Raises:
        UsageError: no queries or no documents.
    """
    num_queries, num_documents = costs_QD.shape
    if not num_queries or not num_documents:
        raise UsageError(f"search: {num_queries} queries in {num_documents} documents; at least one of each is needed")
    return np.stack([(row.mean() - row) / max(float(row.std()), 1e-9) for row in np.ascontiguousarray(costs_QD)])


def _of_length_one(frames_FH: Floats) -> npt.NDArray[np.float64]:
    frames = np.asarray(frames_FH, dtype=np.float64)
    unit: npt.NDArray[np.float64] = frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-12)
    return unit
