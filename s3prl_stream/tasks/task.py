"""What a task is: a loss on the outputs of a head, answers made of them, and a score of the answers. Nothing else.

A task knows columns of an index by the names it is given; no corpus, no upstream, no head. B batch, F frames,
C outputs.
"""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.sample import Batch


class Answer(NamedTuple):
    """What was said of one utterance, and what is true; None where that is not known."""

    set: str
    key: str
    answer: Any
    reference: Any


class Best(NamedTuple):
    """The figure by which a model is chosen."""

    name: str
    kind: Literal["lowest", "highest"]


class Task(nn.Module):
    """A task. Its constructor takes keywords and keeps each under its name, where `config` finds it.

    Attributes:
        level: of the head that it needs: "frame", "utterance" or "embedding" (see `build_head`).
        of_whole_clips: what is true of a clip is not of a part of it, so that one that is too long is left out.
        output_size: C of that head.
        columns: of the index, without which an utterance cannot be trained on.
        optional_columns: of the index, which an utterance may lack.
    """

    level: ClassVar[str]
    of_whole_clips: ClassVar[bool] = False
    output_size: int
    columns: tuple[str, ...]
    optional_columns: tuple[str, ...] = ()

    @property
    @abstractmethod
    def best(self) -> Best:
        """The figure of `score` by which a model is chosen."""

    @abstractmethod
    def loss(self, outputs: Tensor, len_B: Tensor, batch: Batch) -> Loss:
        """Of a batch with at least one utterance.

        Args:
            outputs: [B, F, C] of a head for frames, else [B, C].
            len_B: valid frames of the outputs.
            batch: with the columns of the task.
        """

    @abstractmethod
    def answers(self, outputs: Tensor, len_B: Tensor) -> list[Any]:
        """One for each utterance."""

    @abstractmethod
    def references(self, batch: Batch) -> list[Any]:
        """One for each utterance, of the kind of `answers`; None where the column says nothing."""

    @abstractmethod
    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        """Figures by name over utterances whose references are known."""

    def config(self) -> dict[str, Any]:
        """The arguments of the constructor, as JSON values (a tokenizer is left out: it has a file of its own)."""
        names = [name for name in inspect.signature(type(self)).parameters if name != "tokenizer"]
        return {name: _as_json(getattr(self, name)) for name in names}

    def unknown(self, reference: Any) -> list[str]:  # noqa: ARG002
        """What is true of an utterance, and is no class, so that no answer says it."""
        return []

    def show(self, answer: Any, key: str) -> str:
        """An answer to the utterance `key`, for people and for other programs to read."""
        return f"{key}\t{answer}"


def column(batch: Batch, name: str) -> list[str | None]:
    """The values of a metadata column as text, None where there is none.

    Raises:
        UsageError: the batch has no such column.
    """
    if name not in batch:
        raise UsageError(f"the set has no column {name!r}; pack it with one, or name another. It has: {_shown(batch)}")
    values = batch[name].tolist() if isinstance(batch[name], Tensor) else batch[name]
    return [None if value is None or value != value else text_of(value) for value in values]


def text_of(value: Any) -> str:
    """A value of metadata as text: a number the same whether it comes as float64 from an index or as float32."""
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else str(np.float32(value))
    return str(value)


class Categories:
    """Names of classes, numbered in their order.

    Args:
        names: each once.
        where: for errors: what is classified.
    """

    def __init__(self, names: Sequence[str], where: str) -> None:
        self.names = list(names)
        self.where = where
        if len(set(self.names)) < max(len(self.names), 1):
            raise UsageError(f"{where}: {len(self.names)} classes are too few or not each once: {self.names[:10]}")
        self._numbers = {name: number for number, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def __contains__(self, name: object) -> bool:
        return name in self._numbers

    def numbers(self, values: Sequence[str | None], keys: Sequence[str], device: torch.device) -> Tensor:
        """int64 [B] of the values of utterances with these keys.

        Raises:
            UsageError: a value that is no class, with the utterance that has it.
        """
        for key, value in zip(keys, values, strict=True):
            if value not in self._numbers:
                some = ", ".join(map(repr, self.names[:10]))
                raise UsageError(f"{key}: {self.where} is {value!r}, none of the {len(self)} classes ({some} ...)")
        return torch.tensor([self._numbers[str(value)] for value in values], dtype=torch.int64, device=device)


def per_utterance(mean: Tensor, len_B: Tensor) -> Loss:
    """A mean over the utterances of a batch."""
    return Loss(mean, torch.tensor(len(len_B), device=mean.device))


def known(answers: Sequence[Answer]) -> tuple[list[Any], list[Any]]:
    """Answers and references; UsageError if there are none, or one of the references is not known."""
    if not answers:
        raise UsageError("score: nothing was answered: none of the utterances that are selected could be read")
    unknown = [one for one in answers if one.reference is None]
    if unknown:
        raise UsageError(
            f"score: {unknown[0].key} and {len(unknown) - 1} others have no reference to compare with; leave them out "
            "with --where"
        )
    return [one.answer for one in answers], [one.reference for one in answers]


def _as_json(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _as_json(one) for name, one in value.items()}
    return value.names if isinstance(value, Categories) else list(value) if isinstance(value, tuple) else value


def _shown(batch: Batch) -> str:
    return ", ".join(sorted(name for name, value in batch.items() if isinstance(value, list)))
