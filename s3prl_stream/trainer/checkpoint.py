"""Checkpoints that a kill at any moment leaves whole.

    RUN/checkpoints/step-00000100/model.pt       weights
                                  training.pt    optimizer
                                  state.json     step, seconds of audio, cursor of the loader, settings of the run
    RUN/best/step-00000060/                      the same without training.pt: the weights with the best figure so far.
                                                 The best before it stays until the next checkpoint: a run that goes
                                                 on from the last one may never come to this.

A checkpoint is written to a folder with another name, synced to disk and renamed: under its own name it is complete.
Everything loads with `weights_only=True`. No generator is kept: each step seeds torch from (seed, step).
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s3prl_stream.errors import StateError, StreamError, UsageError
from s3prl_stream.json_files import read_json
from s3prl_stream.stores.whole_files import replacing, sync

CHECKPOINTS = "checkpoints"
BEST = "best"
_UNFINISHED = ".unfinished-"
_NAME = re.compile(r"step-(\d{8,})")


class Checkpoint(NamedTuple):
    """What a run needs to go on."""

    state: dict[str, Any]
    """JSON values; has "step"."""
    weights: dict[str, Tensor]
    optimizer: dict[str, Any] | None
    """None where nothing is to go on from here."""


def save_checkpoint(run: Path, checkpoint: Checkpoint, *, keep: int | None, folder: str = CHECKPOINTS) -> Path:
    """Write one checkpoint durably, then delete all but the newest `keep` (None: none); returns its folder.

    Raises:
        StreamError, OSError: it cannot be written; what there is of it is deleted.
    """
    parent = run / folder
    parent.mkdir(parents=True, exist_ok=True)
    final = parent / f"step-{checkpoint.state['step']:08d}"
    unfinished = parent / f"{_UNFINISHED}{final.name}"
    remove_unfinished(parent)
    unfinished.mkdir()
    try:
        save_tensors(checkpoint.weights, unfinished / "model.pt")
        if checkpoint.optimizer is not None:
            save_tensors(checkpoint.optimizer, unfinished / "training.pt")
        (unfinished / "state.json").write_text(json.dumps(checkpoint.state, indent=1, allow_nan=False) + "\n", "utf-8")
        for path in [*unfinished.iterdir(), unfinished]:
            sync(path)
        unfinished.rename(final)
    except Exception:
        remove_unfinished(parent)
        raise
    sync(parent)
    if keep is not None:
        keep_newest(run, keep, folder=folder)
    return final


def keep_newest(run: Path, keep: int, *, folder: str) -> None:
    """Delete all checkpoints but the newest `keep`."""
    for old in list_checkpoints(run, folder=folder)[:-keep]:
        _remove(old)


def list_checkpoints(run: Path, *, folder: str = CHECKPOINTS) -> list[Path]:
    """Folders of a run's complete checkpoints, oldest first."""
    folders = [path for path in (run / folder).glob("step-*") if _NAME.fullmatch(path.name)]
    return sorted(folders, key=step_of)


def step_of(folder: Path) -> int:
    """The step that the name of a checkpoint says."""
    return int(folder.name.removeprefix("step-"))


def forget_after(run: Path, step: int, *, folder: str) -> None:
    """Delete the checkpoints of later steps: a run that goes on from `step` will do those anew."""
    for later in list_checkpoints(run, folder=folder):
        if step_of(later) > step:
            _remove(later)


def remove_unfinished(parent: Path) -> None:
    """Delete what a kill left half written or half deleted in a folder of checkpoints."""
    for left in parent.glob(f"{_UNFINISHED}*"):
        shutil.rmtree(left, ignore_errors=True)


def load_checkpoint(folder: Path, *, device: str | torch.device = "cpu") -> Checkpoint:
    """Everything in a checkpoint.

    Raises:
        StateError: a file is missing or cannot be read.
    """
    return Checkpoint(
        load_state(folder), load_weights(folder, device=device), _load(folder / "training.pt", torch.device(device))
    )


def load_weights(folder: Path, *, device: str | torch.device = "cpu") -> dict[str, Tensor]:
    """The weights in a checkpoint; StateError if they cannot be read."""
    weights: dict[str, Tensor] = _load(folder / "model.pt", torch.device(device))
    return weights


def load_weights_into(module: nn.Module, folder: Path) -> None:
    """Give a module the weights in a checkpoint; StateError if they cannot be read, or do not fit."""
    try:
        module.load_state_dict(load_weights(folder))
    except RuntimeError as error:
        raise StateError(
            f"{folder}: the weights do not fit this network ({' '.join(str(error).split())[:300]}). Give the networks "
            "and the sizes of that run; run.json there has them."
        ) from error


def load_state(folder: Path) -> dict[str, Any]:
    """The JSON state of a checkpoint; StateError if it cannot be read."""
    return read_json(folder / "state.json", StateError, "Delete this checkpoint to use an older one.")


def newest_checkpoint(run: Path) -> Path:
    """Folder of the newest checkpoint.

    Raises:
        UsageError: the run has none.
    """
    folders = list_checkpoints(run)
    if not folders:
        raise UsageError(
            f"{run}: no checkpoint under {CHECKPOINTS}/; is this the output folder of a run that came as far as one?"
        )
    return folders[-1]


def write_json(path: Path, value: Any) -> None:
    """A JSON file by `write_whole`."""
    write_whole(path, (json.dumps(value, indent=1, sort_keys=True) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Write a file `at_once`."""
    with at_once(path) as unfinished:
        unfinished.write_bytes(content)


def save_tensors(value: Any, path: Path) -> None:
    """`torch.save`; StreamError if the file cannot be written."""
    try:
        torch.save(value, path)
    except RuntimeError as error:  # what torch makes of a write that fails
        reason = str(error).splitlines()[0]
        raise StreamError(f"{path}: cannot be written ({reason}). Is the disk full?") from error


@contextlib.contextmanager
def at_once(path: Path) -> Iterator[Path]:
    """Where to write a file, which then stands there for good; see `replacing`."""
    unfinished = path.with_name(f"{_UNFINISHED}{path.name}")
    with replacing(path, unfinished):
        yield unfinished
    sync(path.parent)


def _remove(folder: Path) -> None:
    """Delete a checkpoint; a kill in the middle must not leave half of one under its name."""
    doomed = folder.with_name(f"{_UNFINISHED}{folder.name}")
    shutil.rmtree(doomed, ignore_errors=True)
    folder.rename(doomed)
    shutil.rmtree(doomed)


def _load(path: Path, device: torch.device) -> Any:
    try:
        return torch.load(path, map_location=device, weights_only=True)
    except Exception as error:
        raise StateError(f"{path}: cannot be loaded ({error}). Delete this checkpoint to use an older one.") from error
