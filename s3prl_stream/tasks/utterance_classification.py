"""One class for an utterance: keywords, speakers, emotions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from s3prl_stream.metrics import accuracy
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.sample import Batch
from s3prl_stream.tasks.task import Answer, Best, Categories, Task, column, known, per_utterance


class UtteranceClassification(Task):
    """Cross-entropy over the classes; accuracy.

    Args:
        label: the column of the class.
        categories: its values, in the order of the outputs.
    """

    level = "utterance"
    best = Best("accuracy", "highest")

    def __init__(self, *, label: str, categories: Sequence[str]) -> None:
        super().__init__()
        self.label = label
        self.categories = Categories(categories, label)
        self.columns = (label,)
        self.output_size = len(self.categories)

    def loss(self, outputs: Tensor, len_B: Tensor, batch: Batch) -> Loss:
        """[B, C] -> mean over the utterances."""
        targets_B = self.categories.numbers(self.references(batch), batch["key"], outputs.device)
        return per_utterance(F.cross_entropy(outputs.float(), targets_B), len_B)

    def answers(self, outputs: Tensor, len_B: Tensor) -> list[Any]:  # noqa: ARG002
        """Names of classes."""
        return [self.categories.names[number] for number in outputs.argmax(dim=1).tolist()]

    def references(self, batch: Batch) -> list[Any]:
        """Names of classes."""
        return column(batch, self.label)

    def unknown(self, reference: Any) -> list[str]:
        return [] if reference in self.categories else [reference]

    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        """`accuracy`, 0 to 1; a reference that is no class counts as missed."""
        return {"accuracy": accuracy(*known(answers))}
