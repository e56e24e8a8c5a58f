"""What a downstream run is made of, before anything trains it: a model, a stream, and how to train."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from s3prl_stream.downstream.build import build_model, build_task, texts_of
from s3prl_stream.downstream.columns import (
    SEGMENTS,
    contents_of,
    counts_without,
    need_classes,
    need_columns,
    need_segments,
    shared_hours,
)
from s3prl_stream.downstream.feature_cache import FeatureCache
from s3prl_stream.downstream.model import DownstreamModel
from s3prl_stream.downstream.recipe import TaskRecipe, find_task
from s3prl_stream.downstream.settings import RunSettings
from s3prl_stream.downstream.streams import SAMPLE_RATE, Noise, judged_stream, train_stream
from s3prl_stream.downstream.texts import TextSource
from s3prl_stream.errors import UsageError, told_of
from s3prl_stream.pipes.stage import Stage, root_of
from s3prl_stream.recipes.run_folder import pick_device
from s3prl_stream.shards.shardset import ShardSet, as_shard_set
from s3prl_stream.shards.where import without
from s3prl_stream.tasks import SpeakerVerification, Task
from s3prl_stream.tasks.verification import need_few_pairs
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.tokenizer import Tokenizer
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.upstreams import Upstream
from s3prl_stream.upstreams import upstream as find_upstream
from s3prl_stream.upstreams.upstream import fingerprint_of


@dataclass(frozen=True)
class TrainingParts:
    """A run that nothing trains yet."""

    model: DownstreamModel
    """Batch -> `Loss`: upstream, weighted sum, head and task."""
    stream: Stage
    """Endless batches; `Loader(parts.stream)` deals them."""
    settings: TrainSettings
    """Updates, rate, clipping, seed ..."""
    recipe: TaskRecipe
    own: RunSettings
    shards: ShardSet
    """What is trained on, before `own` selects of it."""
    valid: ShardSet | None
    """A set to look at on the way; None: it is a part of `shards`, or there is none."""
    judged: Stage | None = None
    """Each clip of the validation part once; None: there is none."""
    texts: TextSource | None = None
    """How references are made, of a task that writes text."""
    noise: Noise | None = None
    """What is added to the clips of `stream`."""
    not_used: Mapping[str, int] = field(default_factory=dict)
    """Why clips that may be trained on are not in `stream` -> how many: no label, too short."""
    cache: FeatureCache | None = None
    """Of hidden states; to be closed in the end."""


def training_parts(
    task: str | TaskRecipe,
    shards: Any,
    *,
    upstream: str | Path | Upstream,
    head: str | nn.Module | None = None,
    label: str | Sequence[str] | None = None,
    steps: int | None = None,
    valid: Any = None,
    tokenizer: Tokenizer | None = None,
    lexicon: Lexicon | None = None,
    **settings: Any,
) -> TrainingParts:
    """What `train` would train with the same arguments: for a loop of your own, or one of `s3prl_stream.adapters`.

    What belongs to our loop alone (`checkpoint_every`, `tensorboard` ...) is not used.

    Raises:
        UsageError: a wrong argument, or a column that is missing.
    """
    recipe, own = settled(task, head=head, label=label, steps=steps, **settings)
    train_set, valid_set = as_shard_set(shards), None if valid is None else as_shard_set(valid)
    up = (upstream if isinstance(upstream, Upstream) else find_upstream(upstream)).to(pick_device(own.device)).eval()
    frame_seconds = up.stride / SAMPLE_RATE
    where = _rows_to_train_on(own, train_set, valid_set)
    texts = texts_of(recipe, train_set, where=where, tokenizer=tokenizer, lexicon=lexicon)
    made = build_task(recipe, train_set, where=where, frame_seconds=frame_seconds, texts=texts, seed=own.seed)
    model = build_model(
        up,
        made,
        head if isinstance(head, nn.Module) else recipe.head,
        dict(recipe.head_settings),
        normalize=own.normalize,
        finetune=own.finetune,
        seed=own.seed,
    )
    noise = Noise.of(own.noise, own.snr)
    selection = {"seed": own.seed, "where": where, "subset": own.subset}
    stream = train_stream(recipe, made, train_set, **selection, frame_seconds=frame_seconds, noise=noise, texts=texts)
    judged = _judged(own, made, train_set, valid_set, texts)
    return TrainingParts(
        model=model,
        stream=stream,
        settings=_train_settings(recipe, own, made, is_judged=judged is not None),
        recipe=recipe,
        own=own,
        shards=train_set,
        valid=valid_set,
        judged=judged,
        texts=texts,
        noise=noise,
        not_used=counts_without(train_set, where, made.columns, min_seconds=recipe.min_seconds),
        cache=_cache(model, recipe, own, [train_set] if valid_set is None else [train_set, valid_set]),
    )


def settled(
    task: str | TaskRecipe,
    *,
    head: Any = None,
    label: str | Sequence[str] | None = None,
    steps: int | None = None,
    **settings: Any,
) -> tuple[TaskRecipe, RunSettings]:
    """The recipe and the run that arguments of `train` make; UsageError for a setting that neither has."""
    of_run = {one.name for one in dataclasses.fields(RunSettings)}
    own = RunSettings(**{name: value for name, value in settings.items() if name in of_run})
    named: dict[str, Any] = {name: value for name, value in settings.items() if name not in of_run}
    named |= {} if steps is None else {"steps": steps}
    named |= {} if label is None else {"labels": (label,) if isinstance(label, str) else label}
    if not isinstance(head, str | nn.Module | None):
        raise UsageError(f"head: {head!r:.200} is neither a name nor a module: ([B, F, H], [B]) -> (outputs, lengths)")
    named |= {"head": head} if isinstance(head, str) else {}
    return find_task(task).having(named), own


def _rows_to_train_on(own: RunSettings, shards: ShardSet, valid: ShardSet | None) -> Any:
    """`where` without the clips that are looked at on the way."""
    where = without(own.where, own.valid_where if valid is None else None, shards.columns())
    if valid is not None and shared_hours(shards, where, valid, own.valid_where):
        raise UsageError(
            "valid: clips of it are trained on too, so it would tell nothing. Give another set, clips that where= "
            "(--where) leaves out, or valid_where= (--valid-where) alone"
        )
    return where


def _judged(
    own: RunSettings, task: Task, train_set: ShardSet, valid: ShardSet | None, texts: TextSource | None
) -> Stage | None:
    """Each clip of the validation part once; UsageError if it says nothing that the task can be judged by."""
    if valid is None and own.valid_where is None:
        return None
    shards, where = train_set if valid is None else valid, own.valid_where
    need_columns(shards, (*task.columns, *task.optional_columns), "valid")
    need_classes(shards, where, task, "valid")
    if SEGMENTS in task.columns:
        need_segments(shards, where, "valid")
    with told_of("valid"):
        judged = judged_stream(shards, where=where, columns=task.columns, texts=texts)
    if isinstance(task, SpeakerVerification):
        num_judged = len(root_of(judged).selection)
        need_few_pairs(num_judged, "valid", "Take fewer by valid_where= (--valid-where), such as some of the speakers")
    return judged


def _cache(
    model: DownstreamModel, recipe: TaskRecipe, own: RunSettings, sets: Sequence[ShardSet]
) -> FeatureCache | None:
    """Where the model keeps hidden states of clips of these sets, if the run has a cache; close it in the end.

    Raises:
        UsageError: two different sets of one name, whose clips a batch does not tell apart.
    """
    if own.cache is None:
        return None
    contents: dict[str, str] = {}
    for member in (member for one in sets for member in one.members):
        if contents.setdefault(member.name, contents_of(member)) != contents_of(member):
            raise UsageError(f"cache: two different sets are called {member.name!r}; pack or open one with name=")
    kept = FeatureCache(own.cache, fingerprint_of(model.upstream), max_gigabytes=own.cache_gigabytes)
    random_seconds = recipe.crop_seconds
    if random_seconds is None and not model.task.of_whole_clips:
        random_seconds = recipe.max_batch_seconds
    random_samples = None if random_seconds is None else round(random_seconds * SAMPLE_RATE)
    model.use_cache(kept, contents, random_samples=random_samples)
    return kept


def _train_settings(recipe: TaskRecipe, own: RunSettings, task: Task, *, is_judged: bool) -> TrainSettings:
    return TrainSettings(
        num_steps=recipe.steps,
        lr=recipe.lr,
        schedule="constant",
        warmup_share=0.0,
        optimizer=recipe.optimizer,
        clip_norm=recipe.clip_norm,
        update_batches=recipe.update_batches,
        best_by=f"valid_{task.best.name}" if is_judged else None,
        best_is=task.best.kind,
        **own.loop(),
    )
