"""When no batch comes for too long: where the loader hangs, with the stacks of its threads and processes on stderr."""

from __future__ import annotations

import atexit
import faulthandler
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.data import get_worker_info

from s3prl_stream.sample import PlannedBatch
from s3prl_stream.shards.workers import end_with_parent
from s3prl_stream.timing import BATCH, PROCESS, SLOT, STEP, Place

_STDERR = 2  # the real one: a notebook's sys.stderr has no descriptor
_DUMP_SIGNAL = signal.SIGUSR2
_DUMP_SECONDS = 0.2  # for a process to write its stacks before the next one does


class Watchdog:
    """Knows what the worker processes of a loader are doing. Goes to each of them when it begins.

    Args:
        place: of this process's builder.
        num_workers: processes; 0: the builder is a thread of this one.
    """

    def __init__(self, place: Place, num_workers: int) -> None:
        self.place = place
        self.num_workers = num_workers
        self.numbers = torch.tensor([[0, -1, -1, -1]] * num_workers, dtype=torch.int64)
        self.numbers.share_memory_()  # type: ignore[no-untyped-call]

    def __call__(self, worker: int) -> None:
        """Called once in a worker process: torch's `worker_init_fn`."""
        end_with_parent()
        # A spawned process takes its interpreter apart at its end, unlike a forked one. The thread in which torch sends
        # a batch that nobody waits for any more would be ended inside C++ by that, which aborts the process.
        atexit.register(os._exit, 0)
        faulthandler.register(_DUMP_SIGNAL, file=_STDERR, all_threads=True)
        info = get_worker_info()
        assert info is not None
        numbers: Any = memoryview(self.numbers[worker].numpy())  # type: ignore[arg-type]
        numbers[PROCESS] = os.getpid()
        place: Place = info.dataset.builder.place  # type: ignore[attr-defined]
        place.numbers = numbers

    def dump(self) -> None:
        """Stacks of this process's threads and of the workers, on stderr."""
        sys.stderr.flush()
        _say(f"s3prl_stream: no batch comes. Stacks of process {os.getpid()}, in which the loader is:")
        faulthandler.dump_traceback(file=_STDERR, all_threads=True)
        alive = {process.pid for process in multiprocessing.active_children()}
        for worker, (process, *_) in enumerate(self.numbers.tolist()):
            if process in alive:
                _say(f"s3prl_stream: stacks of process {process}, worker {worker} of the loader:")
                os.kill(process, _DUMP_SIGNAL)
                time.sleep(_DUMP_SECONDS)

    def describe(self, under_way: Sequence[PlannedBatch]) -> str:
        """One sentence: what each builder is doing."""
        batches = {batch.number: batch for batch in under_way}
        if not self.num_workers:
            return f"the loader's thread {self._doing(self.place.numbers, batches)}"
        alive = {process.pid for process in multiprocessing.active_children()}
        told = []
        for worker, numbers in enumerate(self.numbers.tolist()):
            process = numbers[PROCESS]
            if not process:
                what = "has not begun (it imports, or the chain is on its way to it)"
            elif process not in alive:
                what = f"(process {process}) is dead"
            else:
                what = f"(process {process}) {self._doing(numbers, batches)}"
            told.append(f"worker {worker} {what}")
        return "; ".join(told)

    def _doing(self, numbers: Sequence[int], batches: dict[int, PlannedBatch]) -> str:
        batch, step, slot = numbers[BATCH], numbers[STEP], numbers[SLOT]
        if batch < 0:
            return "has nothing to do"
        name = self.place.steps[step]
        clip = f", at clip {batches[batch].items[slot].key!r}" if batch in batches and slot >= 0 else ""
        return f"is in {name!r} of batch {batch}{clip}"


def _say(line: str) -> None:
    os.write(_STDERR, f"{line}\n".encode())
