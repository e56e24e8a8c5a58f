"""What a person sees while training: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time

from tqdm import tqdm

_LINE_EVERY_SECONDS = 10.0
_SMOOTHING = 0.95


class Progress:
    """Shows loss, audio hours per second, hours seen and the share of time spent waiting for data.

    Args:
        first_step, num_steps: steps already done, and in all.
        hours: audio seen before.
        quiet: show nothing.
    """

    def __init__(self, first_step: int, num_steps: int, *, hours: float, quiet: bool = False) -> None:
        self.num_steps = num_steps
        self.loss = float("nan")
        self.waited_seconds = 0.0
        self._began = self._line_at = time.perf_counter()
        self._hours_before = self.hours = hours
        self._bar: tqdm[None] | None = None
        self._quiet = quiet
        if not quiet and sys.stderr.isatty():
            self._bar = tqdm(total=num_steps, initial=first_step, unit="step", dynamic_ncols=True)

    def update(self, step: int, loss: float, *, audio_seconds: float, waited_seconds: float) -> None:
        """One step is done."""
        if math.isfinite(loss):
            self.loss = _SMOOTHING * self.loss + (1 - _SMOOTHING) * loss if math.isfinite(self.loss) else loss
        self.hours += audio_seconds / 3600
        self.waited_seconds += waited_seconds
        if self._bar is not None:
            self._bar.set_postfix_str(self.describe(), refresh=False)
            self._bar.update()
        elif not self._quiet and (step == self.num_steps or time.perf_counter() - self._line_at > _LINE_EVERY_SECONDS):
            self._line_at = time.perf_counter()
            self.say(f"step {step}/{self.num_steps}  {self.describe()}")

    def describe(self) -> str:
        """The figures since this process began, in one phrase."""
        elapsed = max(time.perf_counter() - self._began, 1e-9)
        speed = (self.hours - self._hours_before) / elapsed
        waiting = self.waited_seconds / elapsed
        return f"loss {self.loss:.4f}  {speed:.4f} audio h/s  {self.hours:.2f} h seen  waiting {waiting:.0%}"

    def say(self, text: str) -> None:
        """One plain line on stderr, past the bar."""
        if not self._quiet:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()
