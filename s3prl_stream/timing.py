"""Where the time of a loader goes: each stage, and the waiting. Seconds of a clock on the wall, not of CPU."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple


class Timing(NamedTuple):
    """Of all batches that a loader has handed over so far."""

    stages: Mapping[str, float]
    """Seconds in each step of building a batch, summed over the workers: "read" (bytes or index rows to a checked
    sample), each stage by its name ("add_noise", a second one "add_noise#1"), and "collate"."""
    waiting: float
    """Seconds in which the consumer waited for a batch; the start of workers and the first plan are in it."""
    working: float
    """Seconds in which the consumer did not wait."""

    @property
    def waiting_share(self) -> float:
        """0 to 1."""
        return self.waiting / max(self.waiting + self.working, 1e-9)

    def as_dict(self) -> dict[str, Any]:
        """JSON values."""
        return {**self._asdict(), "stages": dict(self.stages), "waiting_share": self.waiting_share}

    def __str__(self) -> str:
        stages = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.stages.items())
        return f"waited {self.waiting:.1f} s for data ({self.waiting_share:.0%}); building it took {stages}"


PROCESS, BATCH, STEP, SLOT = range(4)


class Place:
    """What one builder of batches is doing: four numbers, which may lie in memory that processes share.

    They are the number of its process (0: it has not begun), the global batch (-1: none), the step, and the sample of
    the batch (-1: all).

    Args:
        steps: names of the steps that a batch goes through.
    """

    def __init__(self, steps: Sequence[str]) -> None:
        self.steps = list(steps)
        self.numbers: Any = [0, -1, -1, -1]
        self.number_of = {step: number for number, step in enumerate(self.steps)}


class StageClock:
    """Adds up the seconds of stages; one stage runs at a time. Costs about 0.3 microseconds each time.

    Args:
        place: where it is noted what is being done, for those who ask why it takes so long.
    """

    def __init__(self, place: Place | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self._place = Place([]) if place is None else place
        self._stage, self._began = "", 0.0

    def on_sample(self, slot: int) -> None:
        """The next stages work on the sample of this number in the batch; -1: on all of them."""
        self._place.numbers[SLOT] = slot

    def enter(self, stage: str) -> None:
        self._place.numbers[STEP] = self._place.number_of.get(stage, -1)
        self._stage, self._began = stage, perf_counter()

    def leave(self) -> None:
        self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + perf_counter() - self._began
