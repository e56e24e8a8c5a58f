"""What a process holds of the system, and loaders that end, are abandoned or fail; run where nothing else happens."""

from __future__ import annotations

import contextlib
import gc
import os
import threading
import time
import tracemalloc
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock  # of a fault that no disk has at will

import numpy as np
import psutil

import s3prl_stream as ss
from s3prl_stream.errors import ShardError
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.plan.planner import EpochPlanner, Position, Step
from s3prl_stream.sample import Sample
from s3prl_stream.stores.store import is_remote

SECONDS_TO_END = 5.0
WAYS = ["ended", "abandoned", "failed"]
FAILURES = ["mistake", "error", "plan"]
"""A mistake of a user; an error of ours, which a worker hands over as a value; an error of the plan, raised here."""

_used: weakref.WeakSet[ss.Loader] = weakref.WeakSet()


class Held(NamedTuple):
    """Of this process at one moment."""

    threads: int
    files: int
    """Descriptors that are no sockets."""
    sockets: int
    children: int
    shared_memory: int
    """Mappings of it."""
    loaders: int
    """Of `use`, that something still holds."""


def held() -> Held:
    """What this process holds now."""
    files: Counter[bool] = Counter()
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            files[os.readlink(f"/proc/self/fd/{descriptor}").startswith("socket:")] += 1
        except FileNotFoundError:  # the one by which the folder was listed
            continue
    maps = Path("/proc/self/maps").read_text()
    return Held(
        threading.active_count(),
        files[False],
        files[True],
        len(psutil.Process().children(recursive=True)),
        sum("/dev/shm/" in line for line in maps.splitlines()),
        len(_used),
    )


class FailsAt(Stage):
    """An error in one batch."""

    functional_name = "fails_at"

    def __init__(self, source: Any = None, *, batch: int, error: type[Exception]) -> None:
        self.batch, self.error = batch, error
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        if sample["batch_index"] == self.batch:
            raise self.error("an error")
        yield sample


def use(url: str | Path, workers: int, way: str, failure: str) -> None:
    """One loader, from its making to its end."""
    stream: Any = ss.ShardStream(url, epochs=1, max_batch_seconds=3.0, block_samples=6).load_audio(dtype="int16")
    error = ZeroDivisionError if failure == "mistake" else ShardError
    if way == "failed" and failure != "plan":
        stream = FailsAt(batch=3, error=error)(stream)
    loader = ss.Loader(stream, num_workers=workers)
    _used.add(loader)
    last_block = 1 if way == "failed" and failure == "plan" else None
    try:
        with index_lost_behind(last_block):
            for number, _ in enumerate(loader):
                if way == "abandoned" and number == 2:
                    break
        assert way != "failed"
    except error:
        assert way == "failed"


@contextlib.contextmanager
def index_lost_behind(block: int | None) -> Iterator[None]:
    """As where the index can be read no further; None: it can."""
    step = EpochPlanner.step

    def step_or_error(planner: EpochPlanner, position: Position) -> Step | None:
        if block is not None and position.block > block:
            raise ShardError("an error")
        return step(planner, position)

    with mock.patch.object(EpochPlanner, "step", step_or_error):
        yield


def held_after_each(
    environment: dict[str, str], url: str | Path, workers: int, way: str, *, times: int = 5
) -> list[Held]:
    """Use loaders one after the other, without the collector of cycles: it may come late, and threads wait for it.

    What queues leave to their threads to end is given a moment.
    """
    os.environ.update(environment)
    gc.disable()
    try:
        return _held_after_each(url, workers, way, times)
    finally:
        gc.enable()


def _held_after_each(url: str | Path, workers: int, way: str, times: int) -> list[Held]:
    found: list[Held] = []
    vary = {"threads", "sockets"} if is_remote(url) else set()  # a pool's, within a bound
    for number in range(times):
        use(url, workers, way, FAILURES[number % len(FAILURES)])
        found.append(held())
        end_at = time.monotonic() + SECONDS_TO_END
        while len(found) > 2 and more_than(found[-1], lowest(found[:2])).keys() - vary and time.monotonic() < end_at:
            time.sleep(0.01)
            found[-1] = held()
    return found


def lowest(found: list[Held]) -> Held:
    """Of each kind."""
    return Held(*map(min, zip(*found, strict=True)))


def more_than(one: Held, before: Held) -> dict[str, tuple[int, int]]:
    """Of what there is more than before, and how many."""
    pairs = zip(before, one, strict=True)
    return {name: (then, now) for name, (then, now) in zip(Held._fields, pairs, strict=True) if now > then}


def python_bytes_per_batch(url: str | Path, *, warm_up: int, batches: int, **stream: Any) -> float:
    """Growth of all that Python and numpy hold, per batch of an endless stream."""
    loader = iter(ss.Loader(ss.ShardStream(url, **stream).load_audio(dtype="int16")))
    for _ in range(warm_up):
        next(loader)
    tracemalloc.start()
    try:
        samples = []
        for number in range(batches):
            next(loader)
            if number % 50 == 49:
                samples.append((number, tracemalloc.get_traced_memory()[0]))
    finally:
        tracemalloc.stop()
    return slope(samples)


def slope(samples: list[tuple[int, float]]) -> float:
    """Of the straight line with the least squares."""
    at, values = np.array(samples, dtype=np.float64).T
    return float(np.polyfit(at, values, 1)[0])


def lasting_slope(samples: list[tuple[int, float]]) -> float:
    """Of the half of the samples that grew less: a leak goes on, what a pool takes once does not."""
    half = len(samples) // 2
    return min(slope(samples[:half]), slope(samples[half:]))


def resident_bytes_per_batch(
    environment: dict[str, str], url: str | Path, *, workers: int, warm_up: int, batches: int, **stream: Any
) -> tuple[float, list[tuple[int, float]]]:
    """Growth of the memory of this process and its workers, per batch of an endless stream; and the samples."""
    os.environ.update(environment)
    loader = iter(ss.Loader(ss.ShardStream(url, **stream).load_audio(dtype="int16"), num_workers=workers))
    samples = []
    for number in range(warm_up + batches):
        next(loader)
        if number >= warm_up and number % 500 == 0:
            processes = [psutil.Process(), *psutil.Process().children(recursive=True)]
            samples.append((number, float(sum(process.memory_info().rss for process in processes))))
    return slope(samples), samples
