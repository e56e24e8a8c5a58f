"""Any number of labels for an utterance: sound events, tags."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics import mean_average_precision, micro_f1
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.sample import Batch
from s3prl_stream.tasks.task import Answer, Best, Categories, Task, column, known, per_utterance


class MultiLabel(Task):
    """Binary cross-entropy, the mean over the labels; mean average precision, and F1 at a threshold.

    Args:
        label: the column of the labels: text with a separator, or a list.
        categories: all labels, in the order of the outputs.
        separator: between labels in the column.
        threshold: probability from which on a label counts as given.
    """

    level = "utterance"
    best = Best("mean_average_precision", "highest")

    def __init__(self, *, label: str, categories: Sequence[str], separator: str = ",", threshold: float = 0.5) -> None:
        super().__init__()
        self.label = label
        self.categories = Categories(categories, label)
        self.separator = separator
        self.threshold = threshold
        self.columns = (label,)
        self.output_size = len(self.categories)

    def loss(self, outputs: Tensor, len_B: Tensor, batch: Batch) -> Loss:
        """[B, C] -> mean over utterances and labels."""
        targets_BC = torch.zeros(outputs.shape)
        for row, labels in enumerate(self.references(batch)):
            given = sorted(labels or ())
            targets_BC[row, self.categories.numbers(given, [batch["key"][row]] * len(given), targets_BC.device)] = 1.0
        return per_utterance(F.binary_cross_entropy_with_logits(outputs.float(), targets_BC.to(outputs.device)), len_B)

    def answers(self, outputs: Tensor, len_B: Tensor) -> list[Any]:  # noqa: ARG002
        """The probability of each label, in the order of the categories."""
        probabilities: list[Any] = torch.sigmoid(outputs.float()).tolist()
        return probabilities

    def references(self, batch: Batch) -> list[Any]:
        """A set of labels."""
        values = batch.get(self.label)
        if isinstance(values, list) and any(isinstance(value, list | tuple) for value in values):
            return [None if value is None else set(map(str, value)) for value in values]
        return [None if text is None else labels_of(text, self.separator) for text in column(batch, self.label)]

    def unknown(self, reference: Any) -> list[str]:
        return sorted(reference - set(self.categories.names))

    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        """`mean_average_precision` over the labels that occur, and `f1` of all answers together."""
        given, right = known(answers)
        targets = np.array([[name in labels for name in self.categories.names] for labels in right])
        return {
            "mean_average_precision": mean_average_precision(np.array(given), targets),
            "f1": micro_f1([self._chosen(one) for one in given], right),
        }

    def show(self, answer: Any, key: str) -> str:
        """The key and the labels at or above the threshold."""
        return f"{key}\t{self.separator.join(sorted(self._chosen(answer)))}"

    def _chosen(self, probabilities: Sequence[float]) -> set[str]:
        pairs = zip(self.categories.names, probabilities, strict=True)
        return {name for name, probability in pairs if probability >= self.threshold}


def labels_of(text: str, separator: str) -> set[str]:
    """The labels in a text such as "dog, rain"; UsageError for a separator of no characters."""
    if not separator:
        raise UsageError("the separator of labels is empty; give what stands between them, such as a comma")
    return {label.strip() for label in text.split(separator) if label.strip()}
