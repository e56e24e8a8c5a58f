"""Pretraining by a recipe: its stream, network and objective, wired to the training loop. No recipe is named here."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from s3prl_stream import __version__
from s3prl_stream.errors import UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.own_encoder import own_encoder
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.recipes.run_folder import alone_in_run, check_run, describe_module, pick_device
from s3prl_stream.recipes.run_settings import RunSettings, ValidSettings
from s3prl_stream.recipes.run_streams import streams_of
from s3prl_stream.sample import Batch
from s3prl_stream.shards.member import SetMember
from s3prl_stream.shards.shardset import ShardSet, as_shard_set, name_and_fingerprint
from s3prl_stream.stores.alone import output_folder
from s3prl_stream.trainer.checkpoint import list_checkpoints, load_weights_into, newest_checkpoint
from s3prl_stream.trainer.damage_log import DamageLog
from s3prl_stream.trainer.loop import Hook, TrainResult, train
from s3prl_stream.trainer.losslog import open_lines
from s3prl_stream.trainer.ranks import Ranks, device_of_rank, joined_ranks
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.trainer.validate import mean_loss

RESUMES = "resumes.jsonl"
MakeHook = Callable[[Recipe, nn.Module], Hook]


def pretrain(
    recipe: str | Recipe,
    shards: Any,
    *,
    steps: int,
    out: str | Path,
    encoder: nn.Module | str | None = None,
    teacher: nn.Module | None = None,
    valid: ValidSettings | Mapping[str, Any] | None = None,
    skip_batches: Sequence[tuple[int, int]] = (),
    exclude: Sequence[str | tuple[str, str]] = (),
    hooks: Sequence[MakeHook] = (),
    quiet: bool = False,
    **settings: Any,
) -> TrainResult:
    """Pretrain an encoder, or continue: the same call after a kill gives the losses of an undisturbed run.

    Started by torchrun, each process trains on its share of every update.

    Args:
        recipe: a name in `s3prl_stream.recipes.RECIPES`, or a `Recipe` of one's own.
        shards: `open_shards(...)`, or what a `ShardStream` accepts.
        steps: updates in all. More than the run was begun with: it goes on, with the rate's decay ending at the new
            number.
        out: folder of the run: settings (`run.json`), `losses.jsonl`, `metrics.jsonl`, `checkpoints/`,
            `resumes.jsonl`, a `Loader.receipt` for each time that it was continued, and `damaged.jsonl`, the rows of
            `Loader.damaged` if there are any (of rank 3 `damaged-3.jsonl`).
        encoder: any module (feat [B, F, D], feat_len [B]) -> list of hidden states [B, F, H], or one of them, with
            `hidden_size`; or "my.module:Net", a class that is made without arguments; None: the recipe's own.
        teacher: (wavs, lengths) -> hidden states, such as `ss.upstream(...)`, for a recipe that distils one.
        valid: what is held out, and how often the loss on it is asked; see `ValidSettings`.
        skip_batches, exclude: global batches (first to last, included) and clips to leave out from where the run
            stands, see `Loader.skip` and `Loader.exclude`; the checkpoints remember them.
        hooks: (recipe, objective) -> what else to ask on the way.
        quiet: no progress on stderr.
        **settings: by name, of the run (`seed`, `device`, `where`, `num_workers` ..., see `RunSettings`), and what
            differs from the published recipe (`Recipe.settings()` has all of it): of the network (`hidden_size`,
            `num_layers` ...), the stream (`max_batch_seconds`, `crop_seconds`, `norm` ...) and of training (`lr`,
            `update_batches` ...). `legacy=True`: as S3PRL does it where that is not what is right.

    Raises:
        UsageError: a wrong argument, or `out` holds something else.
        StateError: `out` holds a run of another recipe, of other data or with other settings; the difference is named.
            Or another process trains there.
    """
    of_run = {one.name for one in dataclasses.fields(RunSettings)}
    own = RunSettings(**{name: value for name, value in settings.items() if name in of_run})
    of_recipe = {name: value for name, value in settings.items() if name not in of_run}
    used = find_recipe(recipe).having(of_recipe, beside=sorted(of_run))
    held_out = valid if isinstance(valid, ValidSettings) else ValidSettings.of(valid or {})
    train_settings = _train_settings(used, own, steps, holds_out=held_out.holds_out)
    sets, run, network = as_shard_set(shards), output_folder(out), own_encoder(encoder, seed=own.seed)
    device, ranks = device_of_rank(pick_device(own.device)), Ranks()
    ranks.share_of(train_settings.update_batches)
    objective = _objective(used, own, run, network, teacher)
    on_device = device.type != "cpu" if own.on_device is None else own.on_device
    trained, validated = streams_of(used, sets, own, held_out, str(device) if on_device else None)
    pinned = device.type == "cuda" and own.num_workers > 0
    loader = Loader(
        trained, num_workers=own.num_workers, pin_memory=pinned, rank=ranks.rank, world_size=ranks.world_size
    )
    damage = DamageLog(run, ranks.rank, quiet=quiet)
    batches = _RunBatches(loader, skip_batches, exclude, run, damage, writes=ranks.is_first, quiet=quiet)
    batches.leave_out()
    written = {
        **_written(used, sets, own, held_out, network, teacher),
        "steps": train_settings.num_steps,
        "device": str(device),
        "on_device": on_device,
        "ranks": ranks.world_size,
    }
    written = json.loads(json.dumps(written))  # as it will be read: no tuples
    check_run(run, written)
    # a mistake in the settings has been told: once, without waiting for other ranks, and it leaves nothing behind
    with joined_ranks(device):
        questions = [make(used, objective) for make in hooks]
        if validated is not None:
            questions.insert(0, Hook(held_out.every, _valid_loss(objective, validated, damage, device, own.precision)))
        with alone_in_run(run, written, ranks), contextlib.closing(damage):
            result = train(
                objective,
                batches,
                train_settings,
                run=run,
                set_names=[member.name for member in sets.members],
                seconds_by_set=lambda batch: batch["seconds_by_set"],
                hooks=questions,
                device=device,
                notes={"settings": written},
                quiet=quiet,
            )
        counts = torch.tensor([batches.num_left_out, damage.num_clips], device=device)
        ranks.sum(counts)
        left_out, damaged = counts.tolist()
    return dataclasses.replace(result, left_out=left_out, damaged=damaged, timing=loader.timing().as_dict())


def _train_settings(recipe: Recipe, own: RunSettings, steps: int, *, holds_out: bool) -> TrainSettings:
    update_settings = {name: one for name, one in recipe.settings()["train"].items() if name != "published_steps"}
    return TrainSettings(
        num_steps=steps,
        max_bad_steps=own.max_bad_steps,
        best_by="valid_loss" if holds_out else None,
        **own.loop(),
        **update_settings,
    )


def _objective(
    recipe: Recipe, own: RunSettings, run: Path, encoder: nn.Module | None, teacher: nn.Module | None
) -> nn.Module:
    """What is trained, with the weights that a run begins with."""
    if recipe.has_teacher and teacher is None:
        raise UsageError(f"recipe {recipe.name} learns from a teacher; give one (teacher=, --teacher UPSTREAM)")
    objective = build_objective(recipe, encoder=encoder, seed=own.seed, teacher=teacher)
    if own.init is not None and not list_checkpoints(run):
        folder = Path(own.init) if (Path(own.init) / "model.pt").is_file() else newest_checkpoint(Path(own.init))
        load_weights_into(objective, folder)
    if own.compile:
        objective.get_submodule("encoder").compile(dynamic=True)
    return objective


def _valid_loss(
    objective: nn.Module, stream: Stage, damage: DamageLog, device: torch.device, precision: str
) -> Callable[[int], dict[str, float]]:
    """What a hook asks of the clips that are held out."""
    judged = Loader(stream)

    def ask(_step: int) -> dict[str, float]:
        loss = mean_loss(objective, judged, device=device, precision=precision)
        damage.take(judged.damaged)
        return {"valid_loss": loss}

    return ask


def _written(
    recipe: Recipe,
    shards: ShardSet,
    own: RunSettings,
    valid: ValidSettings,
    encoder: nn.Module | None,
    teacher: nn.Module | None,
) -> dict[str, Any]:
    """What `run.json` holds, but for the steps and the machine."""
    parts = recipe.settings()
    return {
        "recipe": recipe.name,
        "data": name_and_fingerprint(shards),
        "sets": [_place_of(member) for member in shards.members],
        "weights": None if shards.weights is None else list(shards.weights),
        **parts["stream"],
        **parts["train"],
        "legacy": recipe.legacy,
        "encoder": parts["model"] if encoder is None else describe_module(encoder),
        **({} if encoder is None else {"model": parts["model"]}),  # heads are made by it
        **({} if teacher is None else {"teacher": describe_module(teacher, values=True)}),
        **dataclasses.asdict(own),
        **{f"valid_{name}": value for name, value in dataclasses.asdict(valid).items()},
        "version": __version__,
    }


def _place_of(member: SetMember) -> str | None:
    """Where a set lies, for whoever wants to look at its clips; None: in memory, or its URL may hold a secret."""
    url: str | None = getattr(getattr(member, "store", None), "url", None)
    return None if url is None or "?" in url or "@" in url else url


@dataclasses.dataclass
class _RunBatches:
    """A loader as the loop sees it.

    What is to be left out is told to it once it knows where the run stands; its receipt, and what was damaged, is kept.
    """

    loader: Loader
    skip_batches: Sequence[tuple[int, int]]
    exclude: Sequence[str | tuple[str, str]]
    run: Path
    damage: DamageLog
    _: dataclasses.KW_ONLY
    writes: bool
    quiet: bool
    num_left_out: int = 0

    def state_dict(self) -> dict[str, Any]:
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loader.load_state_dict(state)

    def leave_out(self) -> None:
        """What is to be left out, from where the loader stands; loading a state forgets it."""
        for span in self.skip_batches:
            if not isinstance(span, Sequence) or len(span) != 2:
                raise UsageError(f"skip_batches: {span!r} is no pair of batches (first, last)")
            self.loader.skip(*span)
        self.loader.exclude(self.exclude)

    def __iter__(self) -> Iterator[Batch]:
        self.leave_out()
        told = self.loader.receipt is None or not self.writes
        try:
            for batch in self.loader:
                if not told:
                    self._keep_receipt()
                    told = True
                self.damage.take(self.loader.damaged)
                self.num_left_out += len(self.loader.excluded)
                self.loader.excluded.clear()  # of a run of months there may be many
                yield {**batch, "seconds_by_set": self.loader.seconds_by_set}
        finally:
            self.damage.take(self.loader.damaged)  # where there was too much of it

    def _keep_receipt(self) -> None:
        receipt = self.loader.receipt
        assert receipt is not None
        with open_lines(self.run / RESUMES) as file:
            file.write(json.dumps(receipt.as_dict()) + "\n")
        if not self.quiet:
            tqdm.write(f"{self.run}: {receipt}", file=sys.stderr)
