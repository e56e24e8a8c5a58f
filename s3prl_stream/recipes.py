"""Pretraining recipes: which stream, which network, which objective, which settings, wired in one place.

TERA (Liu et al., "TERA: Self-Supervised Learning of Transformer Encoder Representation for Speech", TASLP 2021) with
the settings of S3PRL's runner: log-mel of the waveform at -25 dB, normalised per utterance; spans of 7 frames and a
band of bins masked; mean absolute error on the masked part; AdamW, 7 % warm-up, then linear decay.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from s3prl_stream import __version__
from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.hashing import hash64
from s3prl_stream.loader import Loader
from s3prl_stream.models.transformer import ReconstructionHead, build_encoder
from s3prl_stream.objectives.masked_reconstruction import MaskedReconstructionObjective
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Batch
from s3prl_stream.shards.shardset import as_shard_set
from s3prl_stream.stream import ShardStream
from s3prl_stream.trainer.checkpoint import load_weights, newest_checkpoint, write_json
from s3prl_stream.trainer.loop import TrainResult, TrainSettings, train

SETTINGS = "run.json"
RESUMES = "resumes.jsonl"
RECIPES = ("tera",)
TARGET_DB = -25.0
FEAT_DIM = 80
FRAMES_PER_SECOND = 100

MAY_CHANGE = frozenset({"steps", "weights", "num_workers", "checkpoint_every", "keep_checkpoints", "device", "version"})
"""Settings that a run may be continued with other values of."""


def pretrain(
    recipe: str,
    shards: Any,
    *,
    steps: int,
    out: str | Path,
    encoder: nn.Module | None = None,
    seed: int = 0,
    device: str | None = None,
    max_batch_seconds: float = 240.0,
    max_batch_size: int | None = None,
    crop_seconds: float = 15.0,
    norm: str = "utterance",
    where: str | None = None,
    subset: str | None = None,
    lr: float = 2e-4,
    update_batches: int = 1,
    hidden_size: int = 768,
    num_layers: int = 3,
    num_heads: int = 12,
    ffn_size: int = 3072,
    dropout: float = 0.1,
    attention_dropout: float = 0.1,
    num_workers: int = 0,
    skip_batches: Sequence[tuple[int, int]] = (),
    exclude: Sequence[str | tuple[str, str]] = (),
    checkpoint_every: int = 500,
    keep_checkpoints: int = 2,
    quiet: bool = False,
) -> TrainResult:
    """Pretrain an encoder, or continue: the same call after a kill gives the losses of an undisturbed run.

    Args:
        recipe: "tera".
        shards: `open_shards(...)`, or what a `ShardStream` accepts.
        steps: updates in all. More than the run was begun with: it goes on, with the rate's decay ending at the new
            number.
        out: folder of the run: settings (`run.json`), `losses.jsonl`, `checkpoints/`, and `resumes.jsonl`, a
            `Loader.receipt` for each time that it was continued.
        encoder: any module (feat [B, F, 80], feat_len [B]) -> list of hidden states [B, F, H] with `hidden_size`;
            None: the recipe's own with the sizes below.
        seed: of the plan, the draws, the weights and dropout.
        device: "cpu", "cuda" ...; None: the GPU if there is one.
        max_batch_seconds, max_batch_size: budget of a batch (padded seconds, clips).
        crop_seconds: longer clips are cut to a random stretch of this length.
        norm: of the features, see `ExtractFeat`: "utterance" as published, or "fixed" where clips are short.
        where, subset: which part of the set, see `ShardStream`.
        lr: peak of the learning rate.
        update_batches: batches in one update.
        hidden_size, num_layers, num_heads, ffn_size, dropout, attention_dropout: of the encoder. On a CPU
            `attention_dropout=0` makes training on long crops about three times as fast.
        num_workers: processes that load; 0: a thread of this one.
        skip_batches, exclude: global batches (first to last, included) and clips to leave out from where the run
            stands, see `Loader.skip` and `Loader.exclude`; the checkpoints remember them.
        checkpoint_every, keep_checkpoints: steps between checkpoints, and how many stay.
        quiet: no progress on stderr.

    Raises:
        UsageError: a wrong argument, or `out` holds something else.
        StateError: `out` holds a run of another recipe, of other data or with other settings; the difference is named.
    """
    if recipe not in RECIPES:
        raise UsageError(f"pretrain: recipe {recipe!r} is unknown; there is {', '.join(RECIPES)}")
    run = Path(out)
    shard_set = as_shard_set(shards)
    stream_settings: dict[str, Any] = {
        "seed": seed,
        "max_batch_seconds": float(max_batch_seconds),
        "max_batch_size": max_batch_size,
        "crop_seconds": float(crop_seconds),
        "norm": norm,
        "where": where,
        "subset": subset,
    }
    train_settings = TrainSettings(
        num_steps=steps,
        lr=lr,
        update_batches=update_batches,
        seed=seed,
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
    )
    sizes = {
        "hidden_size": hidden_size,
        "num_layers": num_layers,
        "num_heads": num_heads,
        "ffn_size": ffn_size,
        "dropout": dropout,
        "attention_dropout": attention_dropout,
    }
    objective = build_objective(recipe, sizes, encoder=encoder, seed=seed)
    used_device = pick_device(device)
    settings = {
        "recipe": recipe,
        "data": f"{shard_set.name} {shard_set.fingerprint}",
        "weights": None if shard_set.weights is None else list(shard_set.weights),
        **stream_settings,
        "lr": lr,
        "update_batches": update_batches,
        "encoder": sizes if encoder is None else _describe_module(encoder),
        "steps": steps,
        "num_workers": num_workers,
        "checkpoint_every": checkpoint_every,
        "keep_checkpoints": keep_checkpoints,
        "device": str(used_device),
        "version": __version__,
    }
    # built before the folder is: a mistake in the settings leaves nothing behind
    stream = tera_stream(shard_set, **stream_settings)
    loader = Loader(stream, num_workers=num_workers, pin_memory=used_device.type == "cuda" and num_workers > 0)
    batches = _RunBatches(loader, skip_batches, exclude, run, quiet=quiet)
    batches.leave_out()
    claim_run(run, settings)
    result = train(
        objective,
        batches,
        train_settings,
        run=run,
        seconds_by_set=seconds_by_set,
        device=used_device,
        quiet=quiet,
    )
    return dataclasses.replace(result, left_out=len(loader.excluded), timing=loader.timing().as_dict())


class _RunBatches:
    """A loader as the loop sees it.

    What is to be left out is told to it once it knows where the run stands, and its receipt is kept.
    """

    def __init__(
        self,
        loader: Loader,
        skip_batches: Sequence[tuple[int, int]],
        exclude: Sequence[str | tuple[str, str]],
        run: Path,
        *,
        quiet: bool,
    ) -> None:
        self.run = run
        self.quiet = quiet
        self.loader = loader
        self.skip_batches = skip_batches
        self.exclude = exclude
        self.state_dict = loader.state_dict
        self.load_state_dict = loader.load_state_dict

    def leave_out(self) -> None:
        """What is to be left out, from where the loader stands; loading a state forgets it."""
        for first, last in self.skip_batches:
            self.loader.skip(first, last)
        self.loader.exclude(self.exclude)

    def __iter__(self) -> Iterator[Batch]:
        self.leave_out()
        told = self.loader.receipt is None
        for batch in self.loader:
            if not told:
                self._keep_receipt()
                told = True
            yield batch

    def _keep_receipt(self) -> None:
        receipt = self.loader.receipt
        assert receipt is not None
        with (self.run / RESUMES).open("a", encoding="utf-8") as file:
            file.write(json.dumps(receipt.as_dict()) + "\n")
        if not self.quiet:
            tqdm.write(f"{self.run}: {receipt}", file=sys.stderr)


def tera_stream(shards: Any, *, crop_seconds: float = 15.0, norm: str = "utterance", **stream: Any) -> Stage:
    """The stream of TERA: crops of clips -> `feat`, `masked_feat`, `loss_mask`; settings as of `ShardStream`."""
    return (
        ShardStream(shards, crop_seconds=crop_seconds, **stream)
        .load_audio(sample_rate=16_000, dtype="float32")
        .norm_wav(target_db=TARGET_DB)
        .features("logmel80", norm=norm)
        .mask("tera")
    )


def build_objective(
    recipe: str, sizes: dict[str, Any], *, encoder: nn.Module | None = None, seed: int = 0
) -> MaskedReconstructionObjective:
    """The network of a recipe with its objective; the weights follow from `seed`, the global generator is untouched.

    Raises:
        UsageError: an encoder without `hidden_size`, or sizes that do not fit.
    """
    if encoder is not None and not isinstance(getattr(encoder, "hidden_size", None), int):
        raise UsageError(
            f"encoder {type(encoder).__name__} needs an integer attribute `hidden_size`: the head is built on it"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(hash64("weights", seed)) >> 1)
        network = build_encoder(recipe, **sizes) if encoder is None else encoder
        head = ReconstructionHead(int(network.hidden_size), FEAT_DIM)  # type: ignore[arg-type]
    return MaskedReconstructionObjective(network, head)


def load_objective(run: str | Path, *, encoder: nn.Module | None = None) -> MaskedReconstructionObjective:
    """The network of a run with the weights of its newest checkpoint, on the CPU, in evaluation mode.

    Args:
        run: output folder of `pretrain`.
        encoder: a fresh instance, if the run was made with an encoder of one's own.

    Raises:
        UsageError: no run there, or no checkpoint yet, or the encoder is missing.
        StateError: the weights do not fit the encoder.
    """
    settings = read_settings(run)
    if encoder is None and isinstance(settings["encoder"], str):
        raise UsageError(f"{run}: was trained with an encoder of your own; pass encoder= ({settings['encoder']})")
    sizes = settings["encoder"] if encoder is None else {}
    objective = build_objective(settings["recipe"], sizes, encoder=encoder, seed=settings["seed"])
    folder = newest_checkpoint(Path(run))
    try:
        objective.load_state_dict(load_weights(folder))
    except RuntimeError as error:
        raise StateError(f"{folder}: the weights do not fit this encoder: {error}") from error
    return objective.eval()


def read_settings(run: str | Path) -> dict[str, Any]:
    """The settings of a run; UsageError if there is no run in that folder."""
    path = Path(run) / SETTINGS
    if not path.is_file():
        raise UsageError(f"{run}: no {SETTINGS}; give the output folder of `s3prl-stream pretrain`")
    settings: dict[str, Any] = json.loads(path.read_text())
    return settings


def claim_run(run: Path, settings: dict[str, Any]) -> None:
    """Make the folder of a run and write its settings, or check that it holds this very run.

    Raises:
        StateError: it holds another run; the message names what differs.
        UsageError: it holds something else, or is a file.
    """
    if run.exists() and not run.is_dir():
        raise UsageError(f"{run}: is a file; the output of a run is a folder")
    path = run / SETTINGS
    if path.exists():
        before = read_settings(run)
        differences = [
            f"{name} was {before.get(name)!r}, is {settings.get(name)!r}"
            for name in sorted(before.keys() | settings.keys())
            if name not in MAY_CHANGE and before.get(name) != settings.get(name)
        ]
        if differences:
            raise StateError(
                f"{run}: holds another run: {'; '.join(differences)}. Give the same settings, or another output folder."
            )
    elif run.exists() and any(not entry.name.startswith(".unfinished-") for entry in run.iterdir()):
        raise UsageError(f"{run}: holds files but no run ({SETTINGS}); give a new or an empty output folder")
    run.mkdir(parents=True, exist_ok=True)
    write_json(path, settings)


def pick_device(device: str | None) -> torch.device:
    """The device by name; None: the GPU if there is one, else the CPU.

    Raises:
        UsageError: no such device here.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise UsageError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from error
    return chosen


def seconds_by_set(batch: Batch) -> dict[str, float]:
    """Set -> seconds of its audio in a batch of features, padding not counted."""
    totals: dict[str, float] = {}
    for name, frames in zip(batch["set"], batch["feat_len"].tolist() if batch["set"] else [], strict=True):
        totals[name] = totals.get(name, 0.0) + frames / FRAMES_PER_SECOND
    return totals


def _describe_module(module: nn.Module) -> str:
    """Class and a hash of the parameters' names and shapes: a custom encoder of another shape is another run."""
    shapes = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in module.state_dict().items())
    digest = hashlib.blake2b(shapes.encode(), digest_size=8).hexdigest()
    return f"{type(module).__module__}.{type(module).__qualname__} {digest}"
