"""The training loop, to be read from top to bottom.

A step is a pure function of (weights, optimizer, batches, seed, step): torch is seeded for each batch from (seed, step,
place in the update), the rate follows from the step, the batches from the loader's cursor. So a run that is killed and
continued computes what an undisturbed one does, bit for bit on a CPU with the same number of threads; and any number of
ranks that divides `update_batches` computes the same, but for the order of the sums.

Nothing in a step waits for the device: what it finds is read one step later.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Batch
from s3prl_stream.trainer.checkpoint import (
    BEST,
    CHECKPOINTS,
    Checkpoint,
    forget_after,
    keep_newest,
    list_checkpoints,
    load_checkpoint,
    remove_unfinished,
    save_checkpoint,
    step_of,
)
from s3prl_stream.trainer.figures import LateFigures
from s3prl_stream.trainer.optimizer import learning_rate
from s3prl_stream.trainer.ranks import Ranks
from s3prl_stream.trainer.record import Record, StepNote, finite
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.trainer.update import Updater


class Batches(Protocol):
    """What the loop needs of a loader: the batches of this rank, and a cursor that counts those handed out."""

    def __iter__(self) -> Iterator[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


class Hook(NamedTuple):
    """A question that is asked every so many steps and at the end, on all ranks at once; the objective is then in
    evaluation mode."""

    every: int
    """Steps."""
    ask: Callable[[int], Mapping[str, float]]
    """Step -> figures by name, such as {"valid_loss": 1.2}; they go into `metrics.jsonl`."""


@dataclass(frozen=True)
class TrainResult:
    """What a call of `train` did."""

    first_step: int
    """Steps that were done before."""
    last_step: int
    hours_seen: float
    """Hours of audio in all steps so far, of all ranks, padding not counted."""
    skipped_steps: int
    """Updates left out in all steps so far because loss or gradient was not finite, or memory did not do."""
    loss: float | None
    """Of the last step; None if this call did none, its batches were empty, or it was not finite."""
    left_out: int = 0
    """Clips that this call did not see because they are excluded or their batches skipped."""
    damaged: int = 0
    """Clips of a pretraining that could not be used; `damaged.jsonl` of the run lists them."""
    not_used: Mapping[str, int] = field(default_factory=dict)
    """Of a training for a task: why clips that are selected were not trained on, such as for want of a label -> how
    many."""
    unknown: Mapping[str, int] = field(default_factory=dict)
    """Of a training for a task: classes in the validation part that are not trained on -> how many clips are of them,
    which count as missed."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    """Of this call: seconds in each stage of loading, of waiting for it and of working, and the share of waiting."""
    metrics: Mapping[str, float] = field(default_factory=dict)
    """The last figures of each hook."""


def train(
    objective: nn.Module,
    batches: Batches,
    settings: TrainSettings,
    *,
    run: Path,
    set_names: Sequence[str],
    seconds_by_set: Callable[[Batch], Mapping[str, float]],
    hooks: Sequence[Hook] = (),
    device: str | torch.device = "cpu",
    notes: Mapping[str, Any] | None = None,
    quiet: bool = False,
) -> TrainResult:
    """Train to `settings.num_steps` updates, from the newest checkpoint in `run` if there is one.

    Every rank of torch.distributed calls it, where that is initialised.

    Args:
        objective: batch -> `Loss`; its parameters are trained in place.
        batches: endless; those of this rank. Its cursor goes into the checkpoints.
        settings: how to train.
        run: folder that gets `losses.jsonl`, `metrics.jsonl`, `waits.jsonl` and `checkpoints/`; the caller sees that no
            other process writes there (`alone_in`).
        set_names: of the sets that the batches come from.
        seconds_by_set: set -> seconds of its audio in a batch.
        hooks: what else to ask on the way.
        device: where to train.
        notes: what else the checkpoints are to keep, such as the settings of the recipe.
        quiet: no progress on stderr.

    Raises:
        DivergedError: `max_bad_steps` updates in a row had to be left out.
        StateError: the checkpoint or the log of the run cannot be used.
        UsageError: the batches end before the last step, or the ranks cannot share `update_batches`.
    """
    device, ranks = torch.device(device), Ranks()
    per_rank = ranks.share_of(settings.update_batches)
    run.mkdir(parents=True, exist_ok=True)
    objective.to(device).train()
    ranks.copy_from_first(objective)
    updater = Updater(objective, settings, ranks, device)
    state = _resume(run, objective, updater.optimizer, batches, settings, ranks, device)
    first_step = int(state.get("step", 0))
    if first_step >= settings.num_steps:
        return TrainResult(first_step, first_step, float(state["seconds"]) / 3600, int(state["skipped"]), None)

    late = LateFigures(device)
    with Record(run, settings, set_names, state, writes=ranks.is_first, quiet=quiet) as record:
        source = iter(batches)
        for step in range(first_step + 1, settings.num_steps + 1):
            began = time.perf_counter()
            update = _next(source, per_rank, step)
            note = StepNote(step, learning_rate(step, settings), time.perf_counter() - began)
            figures = updater.update(step, update, _seconds(update, set_names, seconds_by_set))
            last = step == settings.num_steps
            due = [hook for hook in hooks if last or step % hook.every == 0]
            keep = last or step % settings.checkpoint_every == 0
            arrived = late.put(note, figures)
            for one, numbers in (*arrived, *(late.rest() if due or keep else ())):
                record.take(one, numbers)
            if not (due or keep):
                continue
            ranks.average_buffers(objective)
            for hook in due:
                objective.eval()
                found = hook.ask(step)
                objective.train()
                record.take_metrics(step, found)
                if record.is_best(found) and ranks.is_first:
                    metrics = {name: finite(value) for name, value in found.items()}
                    kept = {"step": step, **(notes or {}), "metrics": metrics}
                    save_checkpoint(run, Checkpoint(kept, objective.state_dict(), None), keep=None, folder=BEST)
            if keep and ranks.is_first:
                kept = {**record.state(), "loader": batches.state_dict(), **(notes or {})}
                checkpoint = Checkpoint(kept, objective.state_dict(), updater.optimizer.state_dict())
                save_checkpoint(run, checkpoint, keep=settings.keep_checkpoints)
                keep_newest(run, 1, folder=BEST)
            record.go_on()
    hours = record.seconds / 3600
    return TrainResult(first_step, step, hours, record.skipped, finite(record.loss), metrics=dict(record.metrics))


def _resume(
    run: Path,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    settings: TrainSettings,
    ranks: Ranks,
    device: torch.device,
) -> dict[str, Any]:
    """The state of the newest checkpoint, which is loaded unless it has all steps; empty if there is none."""
    folders = list_checkpoints(run)
    done = step_of(folders[-1]) if folders else 0
    ranks.check_same_checkpoint(done)
    if ranks.is_first:  # a kill may have come before what goes with a checkpoint was gone
        forget_after(run, done, folder=BEST)
        keep_newest(run, 1, folder=BEST)
        for folder in (CHECKPOINTS, BEST):
            remove_unfinished(run / folder)
    if not folders:
        return {}
    checkpoint = load_checkpoint(folders[-1], device=device)
    if ranks.is_first:
        keep_newest(run, settings.keep_checkpoints, folder=CHECKPOINTS)
    if int(checkpoint.state["step"]) < settings.num_steps:
        objective.load_state_dict(checkpoint.weights)
        optimizer.load_state_dict(checkpoint.optimizer or {})
        batches.load_state_dict(checkpoint.state["loader"])
    if ranks.is_first and not list_checkpoints(run, folder=BEST):
        return {**checkpoint.state, "best": None}  # nothing is kept of it: the next will be the best
    return checkpoint.state


def _next(source: Iterator[Batch], num_batches: int, step: int) -> list[Batch]:
    """The batches of an update; fewer at the end of a finite stream, which comes for all ranks at once."""
    batches = list(itertools.islice(source, num_batches))
    if not batches:
        raise UsageError(
            f"the batches ended before step {step}. Stream with epochs=None, and check that the selection is not empty."
        )
    return batches


def _seconds(
    batches: Sequence[Batch], set_names: Sequence[str], seconds_by_set: Callable[[Batch], Mapping[str, float]]
) -> list[float]:
    """Of each set, in some batches."""
    totals = dict.fromkeys(set_names, 0.0)
    for batch in batches:
        for name, amount in seconds_by_set(batch).items():
            totals[name] += amount
    return list(totals.values())
