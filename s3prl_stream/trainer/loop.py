"""The training loop, to be read from top to bottom.

A step is a pure function of (weights, optimizer, batches, seed, step): torch is seeded from (seed, step), the rate
follows from the step, the batches from the loader's cursor. So a run that is killed and continued computes what an
undisturbed one does, bit for bit on a CPU with the same number of threads.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from s3prl_stream.errors import StreamError, UsageError
from s3prl_stream.hashing import hash64
from s3prl_stream.objectives.masked_reconstruction import Loss
from s3prl_stream.sample import Batch
from s3prl_stream.trainer.checkpoint import Checkpoint, list_checkpoints, load_checkpoint, save_checkpoint
from s3prl_stream.trainer.losslog import LossLog
from s3prl_stream.trainer.optimizer import build_adamw, learning_rate
from s3prl_stream.trainer.progress import Progress

WAITS = "waits.jsonl"
"""Seconds that each step waited for its batches, a line for each time a step was done. Apart from the losses, which
are the same in every run."""


class Batches(Protocol):
    """What the loop needs of a loader: batches, and a cursor that counts those handed out."""

    def __iter__(self) -> Iterator[Batch]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any], /) -> None: ...


@dataclass(frozen=True)
class TrainSettings:
    """How to train. Nothing here but `num_steps` may change when a run is continued."""

    num_steps: int
    """Updates in all; the learning rate ends at 0 there."""
    lr: float = 2e-4
    """Peak of the learning rate."""
    warmup_share: float = 0.07
    """Share of the steps in which the rate rises, 0 to 1."""
    weight_decay: float = 0.01
    """Of matrices; biases and norms have none."""
    clip_norm: float = 5.0
    """Ceiling of the gradient's L2 norm."""
    update_batches: int = 1
    """Batches in one update."""
    seed: int = 0
    """Of dropout."""
    checkpoint_every: int = 500
    """Steps between checkpoints; there is one at the end too."""
    keep_checkpoints: int = 2
    """Older ones are deleted."""
    max_bad_steps: int = 10
    """Updates in a row that may be left out because loss or gradient was not finite."""

    def __post_init__(self) -> None:
        for name in ("num_steps", "update_batches", "checkpoint_every", "keep_checkpoints", "max_bad_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if not (math.isfinite(self.lr) and self.lr > 0):
            raise UsageError(f"lr is {self.lr}; it must be above 0")
        if not 0 <= self.warmup_share < 1:
            raise UsageError(f"warmup_share is {self.warmup_share}; it must be at least 0 and below 1")


@dataclass(frozen=True)
class TrainResult:
    """What a call of `train` did."""

    first_step: int
    """Steps that were done before."""
    last_step: int
    hours_seen: float
    """Hours of audio in all steps so far, padding not counted."""
    skipped_steps: int
    """Updates left out in all steps so far because loss or gradient was not finite."""
    loss: float | None
    """Of the last step; None if this call did none, its batches were empty, or it was not finite."""
    left_out: int = 0
    """Clips that this call did not see because they are excluded or their batches skipped."""
    timing: Mapping[str, Any] = field(default_factory=dict)
    """Of this call: seconds in each stage of loading, of waiting for it and of working, and the share of waiting."""


class DivergedError(StreamError):
    """Loss or gradient was not finite too many times in a row."""


def train(
    objective: nn.Module,
    batches: Batches,
    settings: TrainSettings,
    *,
    run: Path,
    seconds_by_set: Callable[[Batch], Mapping[str, float]],
    device: str | torch.device = "cpu",
    quiet: bool = False,
) -> TrainResult:
    """Train to `settings.num_steps` updates, from the newest checkpoint in `run` if there is one.

    Args:
        objective: batch -> `Loss`; its parameters are trained in place.
        batches: endless; its cursor goes into the checkpoints.
        settings: how to train.
        run: folder that gets `losses.jsonl`, `waits.jsonl` and `checkpoints/`.
        seconds_by_set: set -> seconds of its audio in a batch.
        device: where to train.
        quiet: no progress on stderr.

    Raises:
        DivergedError: `max_bad_steps` updates in a row had no finite loss and gradient.
        StateError: the checkpoint or the log of the run cannot be used.
        UsageError: the batches end before the last step.
    """
    run.mkdir(parents=True, exist_ok=True)
    objective.to(device).train()
    optimizer = build_adamw(objective, lr=settings.lr, weight_decay=settings.weight_decay)
    step, seconds, skipped = _resume(run, objective, optimizer, batches, settings, device)
    first_step, bad_in_a_row, loss = step, 0, math.nan
    progress = Progress(step, settings.num_steps, hours=seconds / 3600, quiet=quiet)
    if step >= settings.num_steps:
        return TrainResult(step, step, seconds / 3600, skipped, None)

    with LossLog(run, last_step=step) as log, (run / WAITS).open("a", buffering=1, encoding="utf-8") as waits:
        source = iter(batches)
        while step < settings.num_steps:
            step += 1
            began = time.perf_counter()
            update = [_next(source, step) for _ in range(settings.update_batches)]
            waited = time.perf_counter() - began
            torch.manual_seed(int(hash64("train", settings.seed, step)) >> 1)
            rate = learning_rate(
                step, peak=settings.lr, num_steps=settings.num_steps, warmup_share=settings.warmup_share
            )
            loss, norm, num_elements = _accumulate(objective, [to_device(batch, device) for batch in update])
            # |x| passes the gradient 0 at x = NaN, so a loss that is not finite may come with a gradient that is
            finite = math.isfinite(loss) and math.isfinite(norm)
            applied = finite and num_elements > 0  # momentum and decay would move the weights without any data
            if applied:
                _apply(objective, optimizer, norm=norm, rate=rate, clip_norm=settings.clip_norm)
            bad_in_a_row = 0 if applied else bad_in_a_row + (not finite)
            skipped += not finite
            loss = loss if num_elements else math.nan
            mix: dict[str, float] = {}
            for name, amount in (pair for batch in update for pair in seconds_by_set(batch).items()):
                mix[name] = mix.get(name, 0.0) + amount
            step_seconds = sum(mix.values())
            seconds += step_seconds
            log.write(
                {
                    "step": step,
                    "loss": _finite(loss),
                    "lr": rate,
                    "grad_norm": _finite(norm),
                    "applied": applied,
                    "seconds": step_seconds,
                    "hours_seen": seconds / 3600,
                    "seconds_by_set": mix,
                }
            )
            waits.write(json.dumps({"step": step, "waited_seconds": round(waited, 6)}) + "\n")
            progress.update(step, loss, audio_seconds=step_seconds, waited_seconds=waited)
            if bad_in_a_row >= settings.max_bad_steps:
                raise DivergedError(
                    f"step {step}: loss or gradient was not finite {bad_in_a_row} times in a row (learning rate "
                    f"{rate:.2e}, last loss {loss}). Lower the rate; {run} holds the steps until the last checkpoint."
                )
            if step % settings.checkpoint_every == 0 or step == settings.num_steps:
                log.sync()
                state = {"step": step, "seconds": seconds, "skipped": skipped, "loader": batches.state_dict()}
                checkpoint = Checkpoint(state, objective.state_dict(), optimizer.state_dict())
                save_checkpoint(run, checkpoint, keep=settings.keep_checkpoints)
    progress.close()
    return TrainResult(first_step, step, seconds / 3600, skipped, _finite(loss))


def to_device(batch: Batch, device: str | torch.device) -> Batch:
    """The batch with its tensors on the device."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


def _resume(
    run: Path,
    objective: nn.Module,
    optimizer: torch.optim.Optimizer,
    batches: Batches,
    settings: TrainSettings,
    device: str | torch.device,
) -> tuple[int, float, int]:
    """(steps done, seconds of audio seen, updates left out) after loading the newest checkpoint, if any."""
    folders = list_checkpoints(run)
    if not folders:
        return 0, 0.0, 0
    checkpoint = load_checkpoint(folders[-1], device=device)
    step = int(checkpoint.state["step"])
    if step < settings.num_steps:
        objective.load_state_dict(checkpoint.weights)
        optimizer.load_state_dict(checkpoint.optimizer)
        batches.load_state_dict(checkpoint.state["loader"])
    return step, float(checkpoint.state["seconds"]), int(checkpoint.state["skipped"])


def _next(source: Iterator[Batch], step: int) -> Batch:
    try:
        return next(source)
    except StopIteration:
        raise UsageError(
            f"the batches ended before step {step}. Stream with epochs=None, and check that the selection is not empty."
        ) from None


def _accumulate(objective: nn.Module, batches: list[Batch]) -> tuple[float, float, int]:
    """Gradients of the mean over all masked elements of several batches.

    Returns:
        (that mean, the gradient's L2 norm, the number of elements: 0 where all batches are empty)
    """
    objective.zero_grad(set_to_none=True)
    losses: list[tuple[float, int]] = []
    for batch in batches:
        loss: Loss = objective(batch)
        losses.append((loss.mean.item(), int(loss.num_elements)))
        torch.autograd.backward(loss.mean if len(batches) == 1 else loss.mean * loss.num_elements)
    num_elements = max(sum(count for _, count in losses), 1)
    gradients = [parameter.grad for parameter in objective.parameters() if parameter.grad is not None]
    if len(batches) > 1:
        torch._foreach_mul_(gradients, 1.0 / num_elements)
    mean = losses[0][0] if len(batches) == 1 else sum(value * count for value, count in losses) / num_elements
    return mean, nn.utils.get_total_norm(gradients).item(), sum(count for _, count in losses)


def _apply(
    objective: nn.Module, optimizer: torch.optim.Optimizer, *, norm: float, rate: float, clip_norm: float
) -> None:
    """One update with the gradient, whose L2 norm is `norm`, scaled to at most `clip_norm`."""
    nn.utils.clip_grads_with_norm_(list(objective.parameters()), clip_norm, torch.tensor(norm))
    for group in optimizer.param_groups:
        group["lr"] = rate
    optimizer.step()


def _finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None
