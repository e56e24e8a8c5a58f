"""Where the shards of a plan are packed: in this process, in processes of this machine, or on a Ray cluster."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any, Protocol

from s3prl_stream.errors import ShardError, StreamError, UsageError
from s3prl_stream.packing.pack_shard import ShardTask, pack_shard
from s3prl_stream.shards.workers import Workers, count

ENGINES = ("local", "ray")

_RAY_TRIES = 3


class Engine(Protocol):
    """Packs shards, several at once. A shard that failed raises where it is waited for."""

    slots: int
    """Shards at once."""
    shares_this_machine: bool
    """Its tasks see the temporary files of this machine."""

    @property
    def clips_done(self) -> int:
        """By all tasks that have begun here, as far as is known."""

    def submit(self, task: ShardTask) -> None:
        """Begin a shard."""

    def wait(self, seconds: float) -> list[int]:
        """Numbers of shards that are finished since it was asked last; after `seconds` at most."""


class ThisProcess:
    """One shard after the other, here.

    Args:
        tell: called after each clip with how many there were.
    """

    slots = 1
    shares_this_machine = True

    def __init__(self, tell: Callable[[int], None]) -> None:
        self.clips_done = 0
        self._tell = tell
        self._finished: list[int] = []

    def submit(self, task: ShardTask) -> None:
        """See `Engine.submit`; returns when the shard is finished."""

        def tell() -> None:
            self.clips_done += 1
            self._tell(self.clips_done)

        pack_shard(task, tell)
        self._finished.append(task.number)

    def wait(self, seconds: float) -> list[int]:  # noqa: ARG002
        finished, self._finished = self._finished, []
        return finished


class Processes:
    """Worker processes of this machine.

    Args:
        workers: at least one.
    """

    shares_this_machine = True

    def __init__(self, workers: Workers) -> None:
        self.slots = workers.num_workers
        self._workers = workers
        self._running: dict[int, Future[int]] = {}

    @property
    def clips_done(self) -> int:
        return self._workers.counted

    def submit(self, task: ShardTask) -> None:
        self._running[task.number] = self._workers.submit(_pack_and_count, task)

    def wait(self, seconds: float) -> list[int]:
        finished = self._workers.wait(self._running.values(), seconds)
        for number in finished:
            del self._running[number]
        return finished


def _pack_and_count(task: ShardTask) -> int:
    pack_shard(task, count)
    return task.number


class Ray:
    """A Ray cluster: one task a shard, on as many CPUs as it has.

    Its machines must see the audio and the set under the same paths or URLs, and have this package installed.

    Args:
        module: `ray`, connected.
    """

    shares_this_machine = False

    def __init__(self, module: Any) -> None:
        self._ray = module
        self.slots = max(1, int(module.cluster_resources().get("CPU", 1)))
        self.clips_done = 0
        self._pack = module.remote(num_cpus=1, max_retries=_RAY_TRIES)(_pack_on_a_cluster)
        self._running: dict[Any, int] = {}

    def submit(self, task: ShardTask) -> None:
        self._running[self._pack.remote(task)] = task.number

    def wait(self, seconds: float) -> list[int]:
        if not self._running:
            return []
        done, _ = self._ray.wait(list(self._running), num_returns=1, timeout=seconds)
        finished = []
        for one in done:
            try:
                outcome = self._ray.get(one)
            except self._ray.exceptions.RayError as error:
                first_line = str(error).strip().partition("\n")[0]
                raise StreamError(
                    f"Ray gave up a shard: {type(error).__name__}: {first_line} The same command goes on with "
                    "what is not finished."
                ) from None
            if isinstance(outcome, StreamError):
                raise outcome
            self.clips_done += outcome
            finished.append(self._running.pop(one))
        return finished


def _pack_on_a_cluster(task: ShardTask) -> int | StreamError:
    """Clips of the shard. Our errors come back as values: Ray would wrap them."""
    try:
        return pack_shard(task, lambda: None)
    except StreamError as error:
        return ShardError(str(error))


@contextlib.contextmanager
def ray_cluster() -> Iterator[Ray]:
    """The cluster that RAY_ADDRESS names, or the one that was started on this machine.

    Raises:
        UsageError: Ray is not installed, or there is no cluster.
    """
    try:
        import ray
    except ImportError:
        raise UsageError('engine="ray" needs Ray: pip install "s3prl-stream[ray]".') from None
    was_connected = ray.is_initialized()
    if not was_connected:
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # else a warning about GPUs of tasks without
        try:
            ray.init(address="auto", log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            first_line = str(error).strip().partition("\n")[0]
            raise UsageError(
                f'engine="ray" found no cluster ({first_line}) Start one with `ray start --head`, or set RAY_ADDRESS.'
            ) from None
    try:
        yield Ray(ray)
    finally:
        if not was_connected:
            ray.shutdown()
