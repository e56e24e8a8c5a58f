"""The folder of a run: its settings, whose folder it is, and the network that was trained there."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from s3prl_stream.errors import StateError, UsageError, told_of
from s3prl_stream.json_files import read_json
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.settings import differences
from s3prl_stream.stores.alone import LOCK, alone_in
from s3prl_stream.stores.store import paths_in
from s3prl_stream.trainer.checkpoint import (
    BEST,
    CHECKPOINTS,
    list_checkpoints,
    load_weights_into,
    newest_checkpoint,
    write_json,
)
from s3prl_stream.trainer.losslog import read_losses
from s3prl_stream.trainer.ranks import Ranks

SETTINGS = "run.json"

MAY_CHANGE = frozenset(
    {"num_workers", "device", "compile", "checkpoint_every", "keep_checkpoints", "max_bad_steps", "tensorboard"}
    | {"steps", "sets", "weights", "ranks", "valid_every", "valid_subset", "version"}
)
"""Settings, of `pretrain` and of `train`, that a run may be continued with other values of."""


def load_objective(
    run: str | Path, *, encoder: nn.Module | None = None, trained: bool = True, seed: int = 0
) -> nn.Module:
    """The network of a run with the weights of its newest checkpoint, on the CPU, in evaluation mode.

    Args:
        run: output folder of `pretrain`, or one checkpoint in it.
        encoder: a fresh instance, if the run was made with an encoder of one's own.
        trained: False: with fresh weights.
        seed: of these.

    Raises:
        UsageError: no run there, or no checkpoint yet, or the encoder is missing.
        StateError: the weights do not fit the encoder.
    """
    settings = read_pretraining(run)
    if encoder is None and isinstance(settings["encoder"], str):
        raise UsageError(f"{run}: was trained with an encoder of your own; pass encoder= ({settings['encoder']})")
    with told_of(str(run_of(run) / SETTINGS)):
        objective = build_objective(recipe_of(settings), encoder=encoder, seed=seed)
    if trained:
        load_weights_into(objective, Path(run) if run_of(run) != Path(run) else newest_checkpoint(Path(run)))
    return objective.eval()


def recipe_of(settings: dict[str, Any]) -> Recipe:
    """The recipe of a run with the run's own settings."""
    recipe = find_recipe(settings["recipe"])
    sizes = settings["encoder"] if isinstance(settings["encoder"], dict) else settings.get("model", {})
    known = {name for part in ("stream", "train") for name in recipe.settings()[part]} | {"legacy"}
    return recipe.having({**sizes, **{name: value for name, value in settings.items() if name in known}})


def run_of(path: str | Path) -> Path:
    """The folder of the run that a checkpoint belongs to; any other path is taken for a run itself.

    Raises:
        UsageError: it is no path.
    """
    paths_in([path])
    folder = Path(path)
    inside = folder.name.startswith("step-") and folder.parent.name in (CHECKPOINTS, BEST)
    return folder.parent.parent if inside else folder


def read_settings(run: str | Path) -> dict[str, Any]:
    """The settings of a run, of `pretrain` or of `train`.

    Raises:
        UsageError: there is no run in that folder.
        StateError: they cannot be read.
    """
    path = Path(run) / SETTINGS
    if not path.is_file():
        raise UsageError(f"{run}: no {SETTINGS}; give the output folder of `s3prl-stream pretrain`")
    return read_json(path, StateError, "Put the file back, or give another folder.")


def read_pretraining(run: str | Path) -> dict[str, Any]:
    """The settings of a run of `pretrain`, or of that to which a checkpoint belongs; errors as of `read_settings`."""
    settings = read_settings(run_of(run))
    if "recipe" not in settings:
        raise UsageError(f"{run}: is a run of `s3prl-stream train`; give one of `s3prl-stream pretrain`")
    for name in ("seed", "encoder"):
        if name not in settings:
            raise StateError(
                f"{run_of(run) / SETTINGS}: says no {name!r}; it is not as a run wrote it. Put the file back."
            )
    return settings


def check_run(run: Path, settings: dict[str, Any]) -> None:
    """See that a folder can become, or is, that of a run with these settings; one that came to no step may be any.

    Raises:
        StateError: it holds another run; the message names what differs.
        UsageError: it holds something else.
    """
    path = run / SETTINGS
    if path.exists():
        before = read_settings(run)
        if ("recipe" in before) != ("recipe" in settings):
            made_by = "pretrain" if "recipe" in before else "train"
            raise StateError(f"{run}: holds a run of `s3prl-stream {made_by}`; give another output folder")
        may_change = set(MAY_CHANGE)
        if before.get("upstream_fingerprint") == settings.get("upstream_fingerprint"):
            may_change.add("upstream")  # it is the same one under another name, such as a moved folder
        other = {name: told for name, told in differences(before, settings) if name not in may_change}
        if other and (list_checkpoints(run) or read_losses(run)):  # else it came to no step, and nothing is lost
            weights = f" (and --init {run}: its weights)" if "data" in other and "recipe" in settings else ""
            raise StateError(
                f"{run}: holds another run: {'; '.join(other.values())}. Give the same settings, or another output "
                f"folder{weights}."
            )
    elif run.exists() and any(
        not entry.name.startswith(".unfinished-") and entry.name != LOCK for entry in run.iterdir()
    ):
        raise UsageError(f"{run}: holds files but no run ({SETTINGS}); give a new or an empty output folder")


@contextlib.contextmanager
def alone_in_run(run: Path, settings: dict[str, Any], ranks: Ranks) -> Iterator[None]:
    """The first rank keeps others out of a run's folder and writes its settings, once all ranks have found it in order.

    Raises:
        StateError: another process trains there, or has trained there since with other settings.
    """
    ranks.wait_for_all()
    with alone_in(run) if ranks.is_first else contextlib.nullcontext():
        if ranks.is_first:
            check_run(run, settings)  # again: while these ranks joined, others may have trained there
            write_json(run / SETTINGS, settings)
        ranks.wait_for_all()
        yield


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


def describe_module(module: nn.Module, *, values: bool = False) -> str:
    """Class and a hash of the parameters' names and shapes: a custom encoder of another shape is another run.

    Args:
        module: an encoder or a teacher.
        values: hash its numbers too, as those of a network that is not trained.
    """
    digest = hashlib.blake2b(digest_size=8)
    state = module.state_dict()
    digest.update("\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in state.items()).encode())
    for tensor in state.values() if values else ():
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return f"{type(module).__module__}.{type(module).__qualname__} {digest.hexdigest()}"
