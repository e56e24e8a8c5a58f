"""What a person sees while training: a bar on a terminal, a plain line now and then elsewhere."""

from __future__ import annotations

import math
import sys
import time

from tqdm import tqdm

_LINE_EVERY_SECONDS = 10.0
_SMOOTHING = 0.95


class Progress:
    """Shows loss, audio hours per second, hours seen, the share of time spent waiting for data, and the time left.

    Args:
        first_step, num_steps: steps already done, and in all.
        hours: audio seen before.
        quiet: show nothing.
    """

    def __init__(self, first_step: int, num_steps: int, *, hours: float, quiet: bool = False) -> None:
        self.num_steps = num_steps
        self._first_step = self._step = first_step
        self.loss = float("nan")
        self.waited_seconds = 0.0
        self._began = self._line_at = time.perf_counter()
        self._hours_before = self.hours = hours
        self._bar: tqdm[None] | None = None
        self._quiet = quiet
        if not quiet and sys.stderr.isatty():
            bar = "{percentage:3.0f}% {bar} {n_fmt}/{total_fmt}  {postfix}"  # the time left is in our own words
            self._bar = tqdm(total=num_steps, initial=first_step, bar_format=bar, dynamic_ncols=True)

    def update(self, step: int, loss: float, *, audio_seconds: float, waited_seconds: float) -> None:
        """One step is done."""
        if math.isfinite(loss):
            self.loss = _SMOOTHING * self.loss + (1 - _SMOOTHING) * loss if math.isfinite(self.loss) else loss
        self._step = step
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
        left = elapsed / max(self._step - self._first_step, 1) * (self.num_steps - self._step)
        return (
            f"loss {self.loss:.4f}  {speed:.4f} audio h/s  {self.hours:.2f} h seen  waiting {waiting:.0%}  "
            f"{duration(left)} left"
        )

    def say(self, text: str) -> None:
        """One plain line on stderr, past the bar."""
        if not self._quiet:
            tqdm.write(text, file=sys.stderr)

    def close(self) -> None:
        """End the bar."""
        if self._bar is not None:
            self._bar.close()


def duration(seconds: float) -> str:
    """As in 3 d 04:05:06, without days where there are none."""
    days, rest = divmod(round(seconds), 86_400)
    clock = f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}"
    return f"{days} d {clock}" if days else clock
