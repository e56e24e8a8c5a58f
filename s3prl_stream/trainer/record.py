"""What a run writes down and shows of its steps, and the sums that its checkpoints keep."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from s3prl_stream.errors import StreamError, UsageError
from s3prl_stream.trainer.losslog import LOSSES, METRICS, StepLog, open_lines
from s3prl_stream.trainer.progress import Progress
from s3prl_stream.trainer.settings import TrainSettings

WAITS = "waits.jsonl"
"""Seconds that each step waited for its batches and took in all, a line for each time a step was done. Apart from the
losses, which are the same in every run."""
EVENTS = "tensorboard"
"""Folder of TensorBoard's files."""


class DivergedError(StreamError):
    """Loss or gradient was not finite, or memory did not do, too many times in a row."""


class StepNote(NamedTuple):
    """What is known of a step before its figures have come from the device."""

    step: int
    rate: float
    waited_seconds: float


class StepFigures(NamedTuple):
    """The figures of a step, of all ranks, in the order in which the loop puts them into one vector."""

    loss: float
    norm: float
    num_elements: float
    num_without_memory: float
    """Batches that did not fit into memory."""
    seconds: tuple[float, ...]
    """Of audio, of each set."""


class Record:
    """Counts on every rank; writes and shows on the first. Used in a `with` block.

    Args:
        run: folder that gets `losses.jsonl`, `waits.jsonl`, `metrics.jsonl`.
        settings: of the training.
        set_names: of the sets whose seconds are in the figures.
        state: of the checkpoint from which the run goes on; empty: from the beginning.
        writes: False on all ranks but the first.
        quiet: show nothing.
    """

    def __init__(
        self,
        run: Path,
        settings: TrainSettings,
        set_names: Sequence[str],
        state: Mapping[str, Any],
        *,
        writes: bool,
        quiet: bool,
    ) -> None:
        self.run = run
        self.settings = settings
        self.set_names = set_names
        self.step = int(state.get("step", 0))
        self.seconds = float(state.get("seconds", 0.0))
        self.skipped = int(state.get("skipped", 0))
        self.best: float | None = state.get("best")
        self.loss = math.nan
        self.metrics: dict[str, float] = {}
        self._bad_in_a_row = int(state.get("bad_in_a_row", 0))
        self._writes = writes
        self._quiet = quiet or not writes
        self._arrived_at = time.perf_counter()

    def __enter__(self) -> Record:
        with contextlib.ExitStack() as opened:  # where one cannot be opened, those before it are closed
            progress = Progress(self.step, self.settings.num_steps, hours=self.seconds / 3600, quiet=self._quiet)
            self.progress = opened.enter_context(contextlib.closing(progress))
            if self._writes:
                log = StepLog(self.run, LOSSES, last_step=self.step, every_step=True)
                self._losses = opened.enter_context(contextlib.closing(log))
                log = StepLog(self.run, METRICS, last_step=self.step)
                self._metrics = opened.enter_context(contextlib.closing(log))
                self._waits = opened.enter_context(open_lines(self.run / WAITS))
                self._events = _open_events(self.run / EVENTS, self.step) if self.settings.tensorboard else None
                if self._events is not None:
                    opened.callback(self._events.close)
            self._opened = opened.pop_all()
        self._arrived_at = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def take(self, note: StepNote, numbers: Sequence[float]) -> None:
        """The figures of a step have come.

        Raises:
            DivergedError: it is one of too many in a row that had to be left out.
        """
        figures = StepFigures(numbers[0], numbers[1], numbers[2], numbers[3], tuple(numbers[4:]))
        now = time.perf_counter()
        took, self._arrived_at = now - self._arrived_at, now
        left_out = _why_left_out(figures)
        bad = left_out is not None and left_out != NO_DATA
        self._bad_in_a_row = 0 if left_out is None else self._bad_in_a_row + bad
        self.skipped += bad
        self.step = note.step
        self.loss = figures.loss if figures.num_elements else math.nan
        seconds = sum(figures.seconds)
        self.seconds += seconds
        self.progress.update(note.step, self.loss, audio_seconds=seconds, waited_seconds=note.waited_seconds)
        if self._writes:
            line = {
                "step": note.step,
                "loss": finite(self.loss),
                "lr": note.rate,
                "grad_norm": finite(figures.norm),
                "applied": left_out is None,
                "seconds": seconds,
                "hours_seen": self.seconds / 3600,
                "seconds_by_set": {
                    name: amount for name, amount in zip(self.set_names, figures.seconds, strict=True) if amount
                },
            }
            self._losses.write(line if left_out is None else {**line, "left_out": left_out})
            times = {"step": note.step, "waited_seconds": round(note.waited_seconds, 6), "seconds": round(took, 6)}
            self._waits.write(json.dumps(times) + "\n")
            self._show_events(note.step, {"loss": self.loss, "lr": note.rate, "grad_norm": figures.norm})
            self._show_events(note.step, {"audio_hours_per_second": seconds / 3600 / max(took, 1e-9)})
        if bad and self._bad_in_a_row >= self.settings.max_bad_steps:
            raise DivergedError(
                f"step {note.step}: {left_out} {self._bad_in_a_row} times in a row (learning rate {note.rate:.2e}, "
                f"last loss {figures.loss}). {_ADVICE.get(str(left_out))} {self.run} holds the steps until the last "
                "checkpoint."
            )

    def take_metrics(self, step: int, metrics: Mapping[str, float]) -> None:
        """What a hook has found."""
        self.metrics.update(metrics)
        if self._writes and metrics:
            self._metrics.write({"step": step, **{name: finite(value) for name, value in metrics.items()}})
            self._show_events(step, metrics)
            self.progress.say(f"step {step}  " + "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))

    def is_best(self, metrics: Mapping[str, float]) -> bool:
        """True if the figure that `best_by` names is better than all before; remembers it."""
        value = metrics.get(self.settings.best_by or "", math.nan)
        if not math.isfinite(value):
            return False
        lowest = self.settings.best_is == "lowest"
        if self.best is not None and not (value < self.best if lowest else value > self.best):
            return False
        self.best = value
        return True

    def go_on(self) -> None:
        """What was done since the last step (checkpoint, hooks) is not the next one's time."""
        self._arrived_at = time.perf_counter()

    def state(self) -> dict[str, Any]:
        """For a checkpoint, which relies on the lines until now: they are brought to disk."""
        if self._writes:
            self._losses.sync()
            self._metrics.sync()
        return {
            "step": self.step,
            "seconds": self.seconds,
            "skipped": self.skipped,
            "bad_in_a_row": self._bad_in_a_row,
            "best": self.best,
        }

    def _show_events(self, step: int, values: Mapping[str, float]) -> None:
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name.replace("_", "/", 1) if name.startswith("valid_") else name, value, step)


NO_DATA, NOT_FINITE, NO_MEMORY = "no data", "loss or gradient was not finite", "memory was exhausted"
_ADVICE = {NOT_FINITE: "Lower the rate, or skip the batches (--skip-batches).", NO_MEMORY: "Make the batches smaller."}


def _why_left_out(figures: StepFigures) -> str | None:
    if figures.num_without_memory:
        return NO_MEMORY
    if not figures.num_elements and math.isfinite(figures.loss):
        return NO_DATA
    # |x| passes the gradient 0 at x = NaN, so a loss that is not finite may come with a gradient that is
    return None if math.isfinite(figures.loss) and math.isfinite(figures.norm) else NOT_FINITE


def finite(value: float) -> float | None:
    """JSON has no NaN."""
    return value if math.isfinite(value) else None


def _open_events(folder: Path, last_step: int) -> Any:
    """A writer that goes on after `last_step`: what an earlier process wrote of later steps is hidden."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("tensorboard=true needs tensorboard: pip install 's3prl-stream[tensorboard]'") from None
    return SummaryWriter(str(folder), purge_step=last_step + 1)
