"""Accuracy, and what stands for it where an utterance may have several labels."""

from __future__ import annotations

from collections.abc import Hashable, Sequence, Set

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError


def accuracy(answers: Sequence[object], references: Sequence[object]) -> float:
    """Share of answers equal to their reference, 0 to 1; an answer of several slots is right if all of them are.

    Raises:
        UsageError: no answers, or not one for each reference.
    """
    check_pairs("accuracy", answers, references)
    return sum(answer == reference for answer, reference in zip(answers, references, strict=True)) / len(references)


def micro_f1(answers: Sequence[Set[Hashable]], references: Sequence[Set[Hashable]]) -> float:
    """F1 of the labels of all utterances counted together, 0 to 1; 1 where no label is asked for and none given."""
    check_pairs("micro_f1", answers, references)
    pairs = list(zip(answers, references, strict=True))
    right = sum(len(answer & reference) for answer, reference in pairs)
    given_and_asked = sum(len(answer) + len(reference) for answer, reference in pairs)
    return 2 * right / given_and_asked if given_and_asked else 1.0


def mean_average_precision(scores_NC: npt.NDArray[np.floating], targets_NC: npt.NDArray[np.bool_]) -> float:
    """Mean over the classes that occur of the average precision: sum over scores of (step of recall) * precision.

    Equal scores count as one step, so the order of the utterances does not matter.

    Args:
        scores_NC: [N utterances, C classes], higher for more likely.
        targets_NC: [N, C].

    Raises:
        UsageError: no class occurs at all.
    """
    precisions = [
        _average_precision(scores, targets)
        for scores, targets in zip(scores_NC.T, targets_NC.T, strict=True)
        if targets.any()
    ]
    if not precisions:
        raise UsageError("mean_average_precision: none of the classes occurs in the references")
    return float(np.mean(precisions))


def _average_precision(scores_N: npt.NDArray[np.floating], targets_N: npt.NDArray[np.bool_]) -> float:
    order = np.argsort(-scores_N, kind="stable")
    last_of_score = np.append(np.diff(scores_N[order]) != 0, True)
    found = np.cumsum(targets_N[order])[last_of_score]
    precision = found / (np.flatnonzero(last_of_score) + 1)
    return float(np.sum(np.diff(found, prepend=0) * precision) / found[-1])


def check_pairs(name: str, answers: Sequence[object], references: Sequence[object]) -> None:
    """As many answers as references, and at least one; else a UsageError."""
    if len(answers) != len(references) or not references:
        raise UsageError(f"{name}: {len(answers)} answers for {len(references)} references; give one for each of >= 1")
