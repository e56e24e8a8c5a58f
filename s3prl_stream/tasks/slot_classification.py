"""Several classes for an utterance, one a slot, of which all have to be right: intents."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s3prl_stream.metrics import accuracy
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.sample import Batch
from s3prl_stream.tasks.task import Answer, Best, Categories, Task, column, known, per_utterance

NOTHING = ""
"""The class of a slot that an utterance does not have."""


class SlotClassification(Task):
    """The sum of a cross-entropy for each slot; accuracy of all slots together, and of each.

    Args:
        categories: column of each slot -> its values; a missing value is the class "", if there is such a class.
    """

    level = "utterance"
    best = Best("accuracy", "highest")

    def __init__(self, *, categories: Mapping[str, Sequence[str]]) -> None:
        super().__init__()
        self.categories = {name: Categories(values, name) for name, values in categories.items()}
        self.columns = ()
        self.optional_columns = tuple(self.categories)  # a slot may be empty
        self.output_size = sum(map(len, self.categories.values()))

    def loss(self, outputs: Tensor, len_B: Tensor, batch: Batch) -> Loss:
        """[B, C] -> mean over the utterances of the sum over the slots."""
        losses = []
        for logits, (name, values) in zip(self._split(outputs), self.categories.items(), strict=True):
            targets_B = values.numbers(_values(batch, name), batch["key"], outputs.device)
            losses.append(F.cross_entropy(logits.float(), targets_B))
        return per_utterance(torch.stack(losses).sum(), len_B)

    def answers(self, outputs: Tensor, len_B: Tensor) -> list[Any]:  # noqa: ARG002
        """A tuple with a value for each slot."""
        chosen = [logits.argmax(dim=1).tolist() for logits in self._split(outputs)]
        values = list(self.categories.values())
        return [tuple(one.names[n] for one, n in zip(values, row, strict=True)) for row in zip(*chosen, strict=True)]

    def references(self, batch: Batch) -> list[Any]:
        """A tuple with a value for each slot."""
        return list(zip(*(_values(batch, name) for name in self.categories), strict=True))

    def unknown(self, reference: Any) -> list[str]:
        """As "slot=value"."""
        slots = zip(self.categories.items(), reference, strict=True)
        return [f"{name}={value}" for (name, values), value in slots if value not in values]

    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        """`accuracy` of all slots together, and `accuracy_SLOT` of each."""
        given, right = known(answers)
        figures = {"accuracy": accuracy(given, right)}
        for place, name in enumerate(self.categories):
            figures[f"accuracy_{name}"] = accuracy([one[place] for one in given], [one[place] for one in right])
        return figures

    def show(self, answer: Any, key: str) -> str:
        """The key and "slot=value" of the slots that have one."""
        pairs = zip(self.categories, answer, strict=True)
        return f"{key}\t" + " ".join(f"{name}={value}" for name, value in pairs if value != NOTHING)

    def _split(self, outputs: Tensor) -> list[Tensor]:
        return list(torch.split(outputs, [len(values) for values in self.categories.values()], dim=1))


def _values(batch: Batch, name: str) -> list[str]:
    if name not in batch:  # none of these utterances has it
        return [NOTHING] * len(batch["key"])
    return [NOTHING if value is None else value for value in column(batch, name)]
