"""Query by example: how well a spoken query fits anywhere in a document, by dynamic time warping. Nothing is trained.

As in SUPERB's QbE: Rodriguez-Fuentes et al., "High-performance query-by-example spoken term detection on the SWS 2013
evaluation", ICASSP 2014. Q frames of a query, D frames of a document, H hidden.
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


def search(queries: Sequence[Floats], documents: Sequence[Floats]) -> npt.NDArray[np.float64]:
    """Scores of each query in each document, [queries, documents]: minus the cost, of mean 0 and deviation 1 a query.

    Args:
        queries: float [Q, H] each.
        documents: float [D, H] each.

    Raises:
        UsageError: no queries or no documents.
    """
    if not queries or not documents:
        raise UsageError(
            f"search: {len(queries)} queries in {len(documents)} documents; at least one of each is needed"
        )
    scores = np.zeros((len(queries), len(documents)))
    for row, query in enumerate(queries):
        if len(query) >= FEWEST_FRAMES:
            costs = np.array([subsequence_cost(distances(query, document)) for document in documents])
            scores[row] = (costs.mean() - costs) / max(float(costs.std()), 1e-9)
    return scores


def _of_length_one(frames_FH: Floats) -> npt.NDArray[np.float64]:
    frames = np.asarray(frames_FH, dtype=np.float64)
    unit: npt.NDArray[np.float64] = frames / np.maximum(np.linalg.norm(frames, axis=1, keepdims=True), 1e-12)
    return unit
