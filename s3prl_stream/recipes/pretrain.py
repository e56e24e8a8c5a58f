"""Pretraining by a recipe: its stream, network and objective, wired to the training loop. No recipe is named here."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from torch import nn
from tqdm import tqdm

from s3prl_stream import __version__
from s3prl_stream.loader import Loader
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.recipes.run_folder import claim_run, describe_module, pick_device
from s3prl_stream.sample import Batch
from s3prl_stream.shards.shardset import as_shard_set
from s3prl_stream.trainer.loop import TrainResult, TrainSettings, train

RESUMES = "resumes.jsonl"


def pretrain(
    recipe: str | Recipe,
    shards: Any,
    *,
    steps: int,
    out: str | Path,
    encoder: nn.Module | None = None,
    seed: int = 0,
    device: str | None = None,
    where: str | None = None,
    subset: str | None = None,
    num_workers: int = 0,
    skip_batches: Sequence[tuple[int, int]] = (),
    exclude: Sequence[str | tuple[str, str]] = (),
    checkpoint_every: int = 500,
    keep_checkpoints: int = 2,
    quiet: bool = False,
    **settings: Any,
) -> TrainResult:
    """Pretrain an encoder, or continue: the same call after a kill gives the losses of an undisturbed run.

    Args:
        recipe: a name in `s3prl_stream.recipes.RECIPES`, or a `Recipe` of one's own.
        shards: `open_shards(...)`, or what a `ShardStream` accepts.
        steps: updates in all. More than the run was begun with: it goes on, with the rate's decay ending at the new
            number.
        out: folder of the run: settings (`run.json`), `losses.jsonl`, `checkpoints/`, and `resumes.jsonl`, a
            `Loader.receipt` for each time that it was continued.
        encoder: any module (feat [B, F, D], feat_len [B]) -> list of hidden states [B, F, H] with `hidden_size`;
            None: the recipe's own.
        seed: of the plan, the draws, the weights and dropout.
        device: "cpu", "cuda" ...; None: the GPU if there is one.
        where, subset: which part of the set, see `ShardStream`.
        num_workers: processes that load; 0: a thread of this one.
        skip_batches, exclude: global batches (first to last, included) and clips to leave out from where the run
            stands, see `Loader.skip` and `Loader.exclude`; the checkpoints remember them.
        checkpoint_every, keep_checkpoints: steps between checkpoints, and how many stay.
        quiet: no progress on stderr.
        **settings: what else differs from the published recipe, by name (`Recipe.settings()` has all of them): of the
            network (`hidden_size`, `num_layers` ...), the stream (`max_batch_seconds`, `crop_seconds`, `norm` ...) and
            of training (`lr`, `update_batches` ...). `legacy=True`: as S3PRL does it where that is not what is right.

    Raises:
        UsageError: a wrong argument, or `out` holds something else.
        StateError: `out` holds a run of another recipe, of other data or with other settings; the difference is named.
    """
    used = find_recipe(recipe).having(settings)
    run = Path(out)
    shard_set = as_shard_set(shards)
    train_settings = TrainSettings(
        num_steps=steps,
        seed=seed,
        **{name: value for name, value in used.settings()["train"].items() if name != "published_steps"},
        checkpoint_every=checkpoint_every,
        keep_checkpoints=keep_checkpoints,
    )
    objective = build_objective(used, encoder=encoder, seed=seed)
    used_device = pick_device(device)
    parts = used.settings()
    written = {
        "recipe": used.name,
        "data": f"{shard_set.name} {shard_set.fingerprint}",
        "weights": None if shard_set.weights is None else list(shard_set.weights),
        "seed": seed,
        "where": where,
        "subset": subset,
        **parts["stream"],
        **{name: list(value) if isinstance(value, tuple) else value for name, value in parts["train"].items()},
        "legacy": used.legacy,
        "encoder": parts["model"] if encoder is None else describe_module(encoder),
        "steps": steps,
        "num_workers": num_workers,
        "checkpoint_every": checkpoint_every,
        "keep_checkpoints": keep_checkpoints,
        "device": str(used_device),
        "version": __version__,
    }
    # built before the folder is: a mistake in the settings leaves nothing behind
    stream = used.stream(shard_set, seed=seed, where=where, subset=subset)
    loader = Loader(stream, num_workers=num_workers, pin_memory=used_device.type == "cuda" and num_workers > 0)
    batches = _RunBatches(loader, skip_batches, exclude, run, quiet=quiet)
    batches.leave_out()
    claim_run(run, written)
    result = train(
        objective,
        batches,
        train_settings,
        run=run,
        set_names=[member.name for member in shard_set.members],
        seconds_by_set=used.seconds_by_set,
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
