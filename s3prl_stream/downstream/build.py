"""From a recipe and a set to a task, and from either, with an upstream, to the module that is trained."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from s3prl_stream.downstream.columns import segment_labels, values_of
from s3prl_stream.downstream.model import DownstreamModel
from s3prl_stream.downstream.recipe import TaskRecipe
from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import hash64
from s3prl_stream.heads import build_head
from s3prl_stream.pipes.tokenizers import CharacterTokenizer, Tokenizer
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.tasks import KINDS, CtcText, Task
from s3prl_stream.tasks.multi_label import labels_of
from s3prl_stream.tasks.slot_classification import NOTHING
from s3prl_stream.upstreams import Upstream


def build_task(
    recipe: TaskRecipe, shards: ShardSet, *, where: Any, frame_seconds: float, tokenizer: Tokenizer | None = None
) -> Task:
    """The task of a recipe with the classes, or the vocabulary, of a set.

    Args:
        recipe: with the columns of this set.
        shards: whose index is read.
        where: the rows that may be trained on; what only other rows have is no class.
        frame_seconds: of the upstream.
        tokenizer: of texts; None: made from the texts as the recipe says.

    Raises:
        UsageError: a column is missing or says nothing, or a setting that the task does not have.
    """
    settings = dict(recipe.task_settings)
    labels = recipe.labels if recipe.kind == "slots" else (recipe.labels[0],)
    if len(recipe.labels) != len(labels):
        raise UsageError(f"task {recipe.name}: takes one column, not {', '.join(recipe.labels)}")
    if recipe.kind == "ctc":
        text = labels[0] if labels[0] in shards.columns() or labels[0] != "text" else "transcription"
        vocabulary = settings.pop("vocabulary", "characters")
        settings |= {"text": text, "tokenizer": tokenizer or _tokenizer(vocabulary, shards, text, where)}
    elif recipe.kind == "slots":
        settings["categories"] = {name: _slot_values(shards, name, where) for name in labels}
    elif recipe.kind == "diarize":
        settings["frame_seconds"] = frame_seconds
    elif recipe.kind == "frames":
        settings |= {"categories": segment_labels(shards, where), "frame_seconds": frame_seconds}
    elif recipe.kind == "multilabel":
        separator = settings.get("separator", ",")
        texts = values_of(shards, labels[0], where)
        settings |= {
            "label": labels[0],
            "categories": sorted({one for text in texts for one in labels_of(text, separator)}),
        }
    else:
        settings |= {"label": labels[0], "categories": sorted(set(values_of(shards, labels[0], where)))}
    return make_task(recipe.kind, settings)


def make_task(kind: str, config: dict[str, Any], tokenizer: Tokenizer | None = None) -> Task:
    """A task from its configuration; UsageError for a setting that it does not have."""
    given = config if tokenizer is None else {**config, "tokenizer": tokenizer}
    try:
        return KINDS[kind](**given)
    except TypeError as error:
        raise UsageError(f"task kind {kind}: {str(error).split('__init__() ')[-1]}") from None


def build_model(
    upstream: Upstream,
    task: Task,
    head: str | nn.Module,
    head_settings: dict[str, Any],
    *,
    normalize: bool,
    finetune: bool,
    seed: int,
) -> DownstreamModel:
    """The module that is trained; fresh weights follow from `seed`, and the global generator is left alone.

    Raises:
        UsageError: an unknown head or setting of it.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(hash64("downstream weights", seed)) >> 1)
        if isinstance(head, str):
            head = build_head(
                head,
                level=task.level,
                input_size=upstream.hidden_size,
                output_size=task.output_size,
                **head_settings,
            )
        return DownstreamModel(upstream, head, task, normalize=normalize, finetune=finetune)


def tokenizer_of(task: Task) -> Tokenizer | None:
    """The tokenizer of a task that has one."""
    return task.tokenizer if isinstance(task, CtcText) else None


def _tokenizer(vocabulary: str, shards: ShardSet, text: str, where: Any) -> Tokenizer:
    if vocabulary != "characters":
        raise UsageError(f"vocabulary {vocabulary!r} is made of more than texts; give a tokenizer (--tokenizer FILE)")
    return CharacterTokenizer.from_texts(values_of(shards, text, where))


def _slot_values(shards: ShardSet, name: str, where: Any) -> list[str]:
    """The values of a slot, with "" for those that do not have it."""
    values = set(values_of(shards, name, where))
    return sorted(values | {NOTHING}) if sum(1 for _ in values_of(shards, name)) < len(shards) else sorted(values)
