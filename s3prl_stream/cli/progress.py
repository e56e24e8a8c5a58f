"""What long commands show while they work, on stderr."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

_SECONDS_BETWEEN_LINES = 10.0
_MOST_DEFAULT_WORKERS = 16


class Progress:
    """A bar for each step on a terminal, else a plain line every ten seconds and at the end of the main step.

    Args:
        unit: of what is counted.
        main_step: the step whose end is always told.
    """

    def __init__(self, unit: str, main_step: str) -> None:
        self._unit, self._main_step = unit, main_step
        self._bar: Any = None
        self._step = ""
        self._last = (0, 0)
        self._told_at = time.monotonic()
        self._began = (0, self._told_at)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self._end_step()

    def tell(self, step: str, done: int, total: int | None) -> None:
        """Of `step`, `done` of `total` are done."""
        if step != self._step:
            self._end_step()
            self._step = step
            self._began = (done, time.monotonic())
            if sys.stderr.isatty():
                from tqdm import tqdm

                self._bar = tqdm(desc=step, total=total, unit=f" {self._unit}", file=sys.stderr, dynamic_ncols=True)
        self._last = (done, total or done)
        if self._bar is not None:
            self._bar.update(done - self._bar.n)
        elif time.monotonic() - self._told_at > _SECONDS_BETWEEN_LINES:
            self._print_line()

    def _end_step(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
        elif self._step == self._main_step:
            self._print_line()

    def _print_line(self) -> None:
        done, total = self._last
        self._told_at = time.monotonic()
        print(f"{self._step}: {done} of {total}{self._pace(done, total)}", file=sys.stderr, flush=True)

    def _pace(self, done: int, total: int) -> str:
        """Rate since the step began here, and the time left; nothing at its end."""
        done_before, began = self._began
        rate = (done - done_before) / max(self._told_at - began, 1e-9)
        if done >= total or rate <= 0:
            return ""
        left = round((total - done) / rate)
        return f", {rate:.3g} {self._unit}/s, {left // 3600}:{left // 60 % 60:02d}:{left % 60:02d} left"


def usable_cores() -> int:
    """How many worker processes a command starts unless told otherwise."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_DEFAULT_WORKERS)
