"""The streams of downstream tasks: clips with their labels to train on, and each clip once to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from s3prl_stream.downstream.columns import longest_seconds, rows_with
from s3prl_stream.downstream.recipe import TaskRecipe
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Batch
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.stream import ShardStream
from s3prl_stream.tasks import CtcText, Task

SAMPLE_RATE = 16_000
CLIPPED_KINDS = ("classify", "verify", "multilabel", "slots")
"""Kinds whose label holds for a part of a clip too; of the others a clip that is too long is left out and listed."""


class Noise(NamedTuple):
    """What is added to each clip."""

    kind: Any
    """As `add_noise(noise=)` takes it."""
    snr_db: tuple[float, float]


def train_stream(
    recipe: TaskRecipe,
    task: Task,
    shards: ShardSet,
    *,
    seed: int,
    where: Any = None,
    subset: str | None = None,
    noise: Noise | None = None,
) -> Stage:
    """Endless batches to train on."""
    stream = ShardStream(
        shards,
        seed=seed,
        max_batch_seconds=recipe.max_batch_seconds,
        max_batch_size=recipe.max_batch_size,
        crop_seconds=recipe.crop_seconds,
        where=rows_with(shards, where, task.columns, min_seconds=recipe.min_seconds),
        subset=subset,
        balance=recipe.labels[0] if recipe.balance else None,
        too_long="crop" if recipe.kind in CLIPPED_KINDS else "skip",
    )
    chain = _with_audio(stream, noise)
    return chain.tokenize(task.tokenizer, text=task.text) if isinstance(task, CtcText) else chain


def judged_stream(
    shards: ShardSet,
    *,
    where: Any = None,
    columns: Sequence[str] = (),
    noise: Noise | None = None,
    seed: int = 0,
    max_batch_seconds: float = 120.0,
    max_batch_size: int | None = 32,
) -> Stage:
    """Each clip once, whole, however long it is."""
    stream = ShardStream(
        shards,
        seed=seed,
        epochs=1,
        max_batch_seconds=max(max_batch_seconds, longest_seconds(shards) + 0.1),
        max_batch_size=max_batch_size,
        where=rows_with(shards, where, columns),
        too_long="crop",
    )
    return _with_audio(stream, noise)


def seconds_by_set(batch: Batch) -> dict[str, float]:
    """Set -> seconds of its audio in a batch of waveforms, padding not counted."""
    totals: dict[str, float] = {}
    for name, samples in zip(batch["set"], batch["wav_len"].tolist() if batch["set"] else [], strict=True):
        totals[name] = totals.get(name, 0.0) + samples / SAMPLE_RATE
    return totals


def _with_audio(stream: ShardStream, noise: Noise | None) -> Stage:
    chain = stream.load_audio(sample_rate=SAMPLE_RATE, dtype="float32")
    return chain if noise is None else chain.add_noise(noise=noise.kind, snr=noise.snr_db)
