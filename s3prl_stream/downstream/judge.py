"""Answers of a model to every clip of a stream."""

from __future__ import annotations

import collections
from collections.abc import Sequence

import torch

from s3prl_stream.downstream.model import DownstreamModel
from s3prl_stream.loader import Loader
from s3prl_stream.sample import Batch
from s3prl_stream.tasks import Answer, Task
from s3prl_stream.trainer.to_device import ToDevice


def answers_to(
    model: DownstreamModel, loader: Loader, device: torch.device, *, with_references: bool = True
) -> list[Answer]:
    """An answer for each clip, by set and key; the model is in evaluation mode meanwhile.

    Args:
        model: on the device.
        loader: of a stream that ends.
        device: where to compute.
        with_references: False: what is true is not looked for.
    """
    was_training = model.training
    model.eval()
    to_device = ToDevice(device)
    answers: list[Answer] = []
    for batch in loader:
        answers.extend(answers_of(model, to_device(batch), with_references=with_references))
    model.train(was_training)
    return sorted(answers, key=lambda one: (one.set, one.key))


@torch.no_grad()
def answers_of(model: DownstreamModel, batch: Batch, *, with_references: bool = True) -> list[Answer]:
    """An answer for each clip of a batch on the device of the model, which is in evaluation mode."""
    if not batch["key"]:
        return []
    given = model.task.answers(*model.outputs(batch))
    references = model.task.references(batch) if with_references else [None] * len(given)
    return [Answer(*row) for row in zip(batch["set"], batch["key"], given, references, strict=True)]


def unknown_classes(task: Task, answers: Sequence[Answer]) -> dict[str, int]:
    """Classes that were not trained on -> how many utterances are of them, which count as missed."""
    return dict(collections.Counter(name for one in answers for name in task.unknown(one.reference)))
