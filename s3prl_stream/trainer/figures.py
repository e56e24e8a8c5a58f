"""Numbers that lie on a device, read late: asking a GPU for a number makes the process wait until the GPU is there.

So the figures of a step are copied to pinned memory behind the step's own work, and read when the next step has been
sent off. The process is then at most two steps ahead of the GPU, and the GPU never waits for the process.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


class LateFigures:
    """A queue of steps whose figures are on their way: on a CPU they are there at once, else one step later."""

    def __init__(self, device: torch.device) -> None:
        self._longest = 0 if device.type == "cpu" else 1
        self._on_their_way: deque[tuple[Any, Tensor, Any]] = deque()

    def put(self, note: Any, figures: Tensor) -> Iterator[tuple[Any, list[float]]]:
        """Send off the figures of a step (a vector); gives (note, figures) of the steps that have arrived."""
        if figures.device.type == "cuda":
            there = torch.empty(figures.shape, dtype=figures.dtype, pin_memory=True)
            there.copy_(figures, non_blocking=True)
            arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
            arrived.record()
            self._on_their_way.append((note, there, arrived))
        else:
            self._on_their_way.append((note, figures, None))
        return self._read(self._longest)

    def rest(self) -> Iterator[tuple[Any, list[float]]]:
        """Wait for all that are on their way."""
        return self._read(0)

    def _read(self, leave: int) -> Iterator[tuple[Any, list[float]]]:
        while len(self._on_their_way) > leave:
            note, figures, arrived = self._on_their_way.popleft()
            if arrived is not None:
                arrived.synchronize()
            yield note, figures.tolist()
