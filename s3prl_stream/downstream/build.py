"""From a recipe and a set to a task, and from either, with an upstream, to the module that is trained."""

from __future__ import annotations

import inspect
from typing import Any

from torch import nn

from s3prl_stream.downstream.columns import SEGMENTS, need_segments, segment_labels, values_of
from s3prl_stream.downstream.model import DownstreamModel
from s3prl_stream.downstream.recipe import TaskRecipe
from s3prl_stream.downstream.texts import TAGS, TextSource, find_texts
from s3prl_stream.errors import UsageError
from s3prl_stream.heads import build_head
from s3prl_stream.models.draws import drawn_by
from s3prl_stream.settings import fit_keywords
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.tasks import KINDS, Task
from s3prl_stream.tasks.multi_label import labels_of
from s3prl_stream.tasks.slot_classification import NOTHING
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.tokenizer import Tokenizer
from s3prl_stream.upstreams import Upstream


def build_task(
    recipe: TaskRecipe,
    shards: ShardSet,
    *,
    where: Any,
    frame_seconds: float,
    texts: TextSource | None = None,
    seed: int = 0,
) -> Task:
    """The task of a recipe with the classes, or the vocabulary, of a set.

    Args:
        recipe: with the columns of this set.
        shards: whose index is read.
        where: the rows that may be trained on; what only other rows have is no class.
        frame_seconds: of the upstream.
        texts: of the set, for a task that writes text (`texts_of`).
        seed: of its weights, if it has any; the global generator is left alone.

    Raises:
        UsageError: a column is missing or says nothing, or a setting that the task does not have.
    """
    settings = {name: value for name, value in recipe.task_settings.items() if name != "vocabulary"}
    settings = fit_keywords(f"task {recipe.name}", KINDS[recipe.kind], settings)
    labels = recipe.labels
    if len(labels) > 1 and recipe.kind not in ("slots", "ctc"):
        raise UsageError(f"task {recipe.name}: takes one column, not {', '.join(labels)}")
    if recipe.kind in ("diarize", "frames") and labels != (SEGMENTS,):
        raise UsageError(
            f"task {recipe.name}: learns from {SEGMENTS}, not from {labels[0]!r}; leave out label= (--label)"
        )
    if texts is not None:
        # slots may be missing, so none of their columns has to say something
        columns = () if texts.vocabulary == "slots" and texts.columns[-1] != TAGS else texts.columns
        settings |= {"text": texts.reference, "columns": columns, "tokenizer": texts.tokenizer}
    elif recipe.kind == "slots":
        settings["categories"] = {name: _slot_values(shards, name, where) for name in labels}
    elif recipe.kind == "diarize":
        need_segments(shards, where, f"task {recipe.name}")
        settings["frame_seconds"] = frame_seconds
    elif recipe.kind == "frames":
        categories = _enough(segment_labels(shards, where), recipe, shards)
        settings |= {"categories": categories, "frame_seconds": frame_seconds}
    elif recipe.kind == "multilabel":
        separator = settings.get("separator", ",")
        given = values_of(shards, labels[0], where)
        settings |= {
            "label": labels[0],
            "categories": _enough(
                sorted({one for text in given for one in labels_of(text, separator)}), recipe, shards
            ),
        }
    else:
        categories = _enough(sorted(set(values_of(shards, labels[0], where))), recipe, shards, at_least=2)
        settings |= {"label": labels[0], "categories": categories}
    with drawn_by("task weights", seed):
        return make_task(recipe.kind, settings)


def texts_of(
    recipe: TaskRecipe, shards: ShardSet, *, where: Any, tokenizer: Tokenizer | None, lexicon: Lexicon | None
) -> TextSource | None:
    """The texts that a recipe learns to write; None: it is another kind of task.

    Raises:
        UsageError: a column is missing, or a tokenizer or lexicon is given to a task that has no use for it.
    """
    if recipe.kind != "ctc":
        if tokenizer is not None or lexicon is not None:
            raise UsageError(f"task {recipe.name}: writes no text, so it has no use for a tokenizer or a lexicon")
        return None
    for name, given, wanted in (("tokenizer", tokenizer, Tokenizer), ("lexicon", lexicon, Lexicon)):
        if not isinstance(given, wanted | None):
            raise UsageError(f"{name}: {given!r:.200} is no {wanted.__name__} of s3prl_stream.pipes")
    vocabulary = recipe.task_settings.get("vocabulary", "characters")
    return find_texts(vocabulary, recipe.labels, shards, where=where, tokenizer=tokenizer, lexicon=lexicon)


def make_task(kind: str, config: dict[str, Any], tokenizer: Tokenizer | None = None) -> Task:
    """A task from its configuration; UsageError for a setting that it does not have."""
    given = config if tokenizer is None else {**config, "tokenizer": tokenizer}
    try:
        return KINDS[kind](**fit_keywords(f"task kind {kind}", KINDS[kind], given))
    except TypeError as error:
        known = ", ".join(inspect.signature(KINDS[kind]).parameters)
        raise UsageError(f"task kind {kind}: {str(error).split('__init__() ')[-1]}; it takes {known}") from None


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
    with drawn_by("downstream weights", seed):
        if isinstance(head, str):
            head = build_head(
                head,
                level=task.level,
                input_size=upstream.hidden_size,
                output_size=task.output_size,
                **head_settings,
            )
        return DownstreamModel(upstream, head, task, normalize=normalize, finetune=finetune)


def _enough(categories: list[str], recipe: TaskRecipe, shards: ShardSet, *, at_least: int = 1) -> list[str]:
    """The classes; a UsageError if there are too few to learn anything."""
    if len(categories) < at_least:
        label, clips = recipe.labels[0], f"clips of {shards.name} that may be trained on"
        found = f"all {clips} have one {label}, {categories[0]!r}" if categories else f"none of the {clips} has {label}"
        another = "" if label == SEGMENTS else ", or name another column by label= (--label)"
        raise UsageError(
            f"task {recipe.name}: {found}; look at where= (--where) and valid_where= (--valid-where){another}"
        )
    return categories


def _slot_values(shards: ShardSet, name: str, where: Any) -> list[str]:
    """The values of a slot, with "" for those that do not have it."""
    values = set(values_of(shards, name, where))
    return sorted(values | {NOTHING}) if sum(1 for _ in values_of(shards, name)) < len(shards) else sorted(values)
