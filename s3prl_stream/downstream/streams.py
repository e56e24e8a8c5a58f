"""The streams of downstream tasks: clips with their labels to train on, and each clip once to be judged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from s3prl_stream.arguments import number_range
from s3prl_stream.downstream.columns import rows_with
from s3prl_stream.downstream.recipe import TaskRecipe
from s3prl_stream.downstream.texts import TextSource
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.noise_bank import NoiseBank
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Batch
from s3prl_stream.shards.selection import longest_seconds
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.stream import ShardStream
from s3prl_stream.tasks import Task

SAMPLE_RATE = 16_000
USUAL_SNR_DB = (3.0, 20.0)
"""Of noise for which no ratio is given."""


class Noise(NamedTuple):
    """What is added to each clip."""

    kind: Literal["gaussian"] | NoiseBank
    snr_db: tuple[float, float]

    @classmethod
    def of(cls, noise: Any, snr_db: tuple[float, float] | float) -> Noise | None:
        """From "gaussian", a `NoiseBank`, or what one is made of: a packed set or a folder; None: no noise.

        Raises:
            UsageError: no ratio and no range of it, or no noise there; or a ratio, and no noise is given.
        """
        if noise is None:
            if snr_db != USUAL_SNR_DB:
                raise UsageError(f"snr={snr_db!r}: without noise= there is no ratio; say what is added")
            return None
        number_range("noise", "snr", snr_db)  # which refuses what is none
        low, high = snr_db if isinstance(snr_db, Sequence) else (snr_db, snr_db)
        return cls(noise if noise == "gaussian" or isinstance(noise, NoiseBank) else NoiseBank(noise), (low, high))

    def __str__(self) -> str:
        kind = self.kind if isinstance(self.kind, str) else f"bank {self.kind.fingerprint}"
        return f"{kind} at {self.snr_db[0]} to {self.snr_db[1]} dB"


def train_stream(
    recipe: TaskRecipe,
    task: Task,
    shards: ShardSet,
    *,
    seed: int,
    frame_seconds: float,
    where: Any = None,
    subset: str | None = None,
    noise: Noise | None = None,
    texts: TextSource | None = None,
) -> Stage:
    """Endless batches to train on; `frame_seconds` is from one frame of the upstream to the next."""
    chunk_seconds = None
    if recipe.chunk_frames is not None and recipe.crop_seconds is None:
        chunk_seconds = min(recipe.chunk_frames * frame_seconds, recipe.max_batch_seconds)
    stream = ShardStream(
        shards,
        seed=seed,
        max_batch_seconds=recipe.max_batch_seconds,
        max_batch_size=recipe.max_batch_size,
        crop_seconds=recipe.crop_seconds,
        chunk_seconds=chunk_seconds,
        where=rows_with(shards, where, task.columns, min_seconds=recipe.min_seconds),
        subset=subset,
        balance=recipe.labels[0] if recipe.balance else None,
        too_long="skip" if task.of_whole_clips else "crop",
    )
    return _with_audio(stream, noise, texts)


def judged_stream(
    shards: ShardSet,
    *,
    where: Any = None,
    columns: Sequence[str] = (),
    noise: Noise | None = None,
    texts: TextSource | None = None,
) -> Stage:
    """Each clip once, whole, however long it is."""
    stream = ShardStream(
        shards,
        epochs=1,
        max_batch_seconds=max(120.0, longest_seconds(shards) + 0.1),
        max_batch_size=32,
        where=rows_with(shards, where, columns),
        too_long="crop",
    )
    return _with_audio(stream, noise, texts)


def seconds_by_set(batch: Batch) -> dict[str, float]:
    """Set -> seconds of its audio in a batch of waveforms, padding not counted."""
    totals: dict[str, float] = {}
    for name, samples in zip(batch["set"], batch["wav_len"].tolist() if batch["set"] else [], strict=True):
        totals[name] = totals.get(name, 0.0) + samples / SAMPLE_RATE
    return totals


def _with_audio(stream: ShardStream, noise: Noise | None, texts: TextSource | None) -> Stage:
    chain = stream.load_audio(sample_rate=SAMPLE_RATE, dtype="float32")
    if noise is not None:
        chain = chain.add_noise(noise=noise.kind, snr=noise.snr_db)
    return chain if texts is None else texts.stage()(chain)
