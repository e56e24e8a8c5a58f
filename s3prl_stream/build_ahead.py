"""Batches are built ahead of the consumer, and come in the order of the plan: by torch's worker processes, or a thread.

Nothing here chooses batches or counts them. What is planned goes in, what was built of it comes out beside it.
"""

from __future__ import annotations

import pickle
import sys
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Future
from contextlib import closing
from typing import Any, NamedTuple

from torch.utils.data import DataLoader

from s3prl_stream.errors import ChainError, StreamError, StuckLoader
from s3prl_stream.one_thread import OneThread, result_within
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import PlannedBatch
from s3prl_stream.shards.read_ahead import ReadAhead, Task, depth_of, with_coming
from s3prl_stream.stream import BatchBuilder, Built
from s3prl_stream.watchdog import Watchdog
from s3prl_stream.worker_context import Environment, context_for, start_method

_TURN_SECONDS = 5.0
"""After so long without a batch, the workers are looked at."""


class Delivery(NamedTuple):
    """What is to be delivered of a planned batch, and what only the consumer's process knows of it."""

    planned: PlannedBatch
    """This goes to a worker."""
    seconds: list[float]
    """Of audio, of each item."""
    excluded: list[dict[str, Any]]
    """Rows of what is left out of it."""


class BuildAhead:
    """Builds deliveries ahead.

    Args:
        builder: what each worker does.
        num_workers: worker processes; 0: one thread of this process.
        prefetch: batches built ahead, for each worker.
        pin_memory: of what worker processes give.
        longest_wait_seconds: for a batch; None: as long as it takes.
        multiprocessing_context: as a `Loader` takes it.

    Attributes:
        under_way: what was begun and has not come out, in order.

    Raises:
        ChainError: a stage cannot be sent to a worker.
        UsageError: "fork" where an object store is used.
    """

    def __init__(
        self,
        builder: BatchBuilder,
        *,
        num_workers: int,
        prefetch: int,
        pin_memory: bool,
        longest_wait_seconds: float | None,
        multiprocessing_context: str | None,
    ) -> None:
        self.builder = builder
        self.num_workers, self.prefetch, self.pin_memory = num_workers, prefetch, pin_memory
        self.longest_wait_seconds = longest_wait_seconds
        self.multiprocessing_context = multiprocessing_context
        self.under_way: deque[Delivery] = deque()
        method = self._start_method()
        if num_workers and method in ("forkserver", "spawn"):
            _check_picklable(builder.all_stages, method)

    def built(self, deliveries: Iterator[Delivery]) -> Generator[tuple[Delivery, Built]]:
        """Each delivery with its batch, in order.

        Raises:
            StuckLoader: no batch came for too long; all stacks are on stderr by then.
        """
        self.under_way.clear()
        tasks = with_coming(self._begun(deliveries), max(self.num_workers, 1), depth_of(self.builder.root.shards))
        watchdog = Watchdog(self.builder.place, self.num_workers)
        by_workers = self._by_processes(tasks, watchdog) if self.num_workers else self._by_thread(tasks, watchdog)
        with closing(by_workers) as all_built:
            for built in all_built:
                yield self.under_way.popleft(), built

    def _begun(self, deliveries: Iterator[Delivery]) -> Iterator[PlannedBatch]:
        for delivery in deliveries:
            self.under_way.append(delivery)
            yield delivery.planned

    def _by_thread(self, tasks: Iterator[Task], watchdog: Watchdog) -> Generator[Built]:
        work = _Work(self.builder)
        waiting: deque[Future[Built]] = deque()

        def oldest() -> Built:
            return result_within(waiting.popleft(), self.longest_wait_seconds, "building a batch")

        try:
            with closing(work.ahead), OneThread("loader") as thread:
                try:
                    for task in tasks:
                        waiting.append(thread.submit(work.build, task))
                        if len(waiting) > self.prefetch:
                            yield oldest()
                    while waiting:
                        yield oldest()
                finally:
                    for future in waiting:
                        future.cancel()
                    work.ahead.give_up()  # or the thread would wait for a store that nobody waits for
        except StuckLoader as error:
            raise self._with_stacks(error, watchdog) from None

    def _by_processes(self, tasks: Iterator[Task], watchdog: Watchdog) -> Generator[Built]:
        sampler = _OneWay(tasks)
        work = _Work(self.builder)
        workers: DataLoader[Any] = DataLoader(
            work,  # type: ignore[arg-type]
            batch_size=None,
            sampler=sampler,
            num_workers=self.num_workers,
            prefetch_factor=self.prefetch,
            pin_memory=self.pin_memory,
            timeout=min(self.longest_wait_seconds or 0, _TURN_SECONDS),
            worker_init_fn=watchdog,
            multiprocessing_context=context_for(self._start_method(), work),
        )
        try:
            yield from _in_turns(iter(workers), self.longest_wait_seconds)
        except Exception as error:
            if isinstance(error, RuntimeError) and str(error).startswith("DataLoader timed out"):
                stuck = StuckLoader(f"no batch came within {self.longest_wait_seconds:g} s")
                error = self._with_stacks(stuck, watchdog)  # now, while the workers are there
            # torch's frames would keep the workers until some later collection, which then waits 5 s for them; and
            # that which raises an error of a worker holds it, and with it the batch that was handed over last
            raise error.with_traceback(None) from None
        try:
            sampler.raise_error()
        except StuckLoader as error:
            raise self._with_stacks(error, watchdog) from None

    def _start_method(self) -> str | None:
        return start_method(self.multiprocessing_context, is_remote=self.builder.root.shards.is_remote)

    def _with_stacks(self, error: StuckLoader, watchdog: Watchdog) -> StuckLoader:
        """The error that says more, once the stacks are on stderr."""
        watchdog.dump()
        doing = watchdog.describe([one.planned for one in self.under_way])
        return StuckLoader(f"{error}; {doing}. The stacks of all threads and workers are on stderr.")


class _Work:
    """What a worker runs."""

    def __init__(self, builder: BatchBuilder) -> None:
        self.environment = Environment()
        self.builder = builder
        self.ahead = ReadAhead(builder.root.shards)

    def build(self, task: Task) -> Built:
        with self.ahead.reading(task):
            return self.builder[task.planned]

    def __getitem__(self, task: Task) -> Built | StreamError:
        """For torch's workers. Our own errors come back as values: torch would bury their text in a traceback."""
        try:
            return self.build(task)
        except StreamError as error:
            return error


def _check_picklable(stages: Sequence[Stage], context: str) -> None:
    script = sys.modules["__main__"]  # of a notebook or a prompt a new process finds nothing
    is_found = getattr(script, "__file__", None) or getattr(script, "__spec__", None)
    for stage in stages:
        try:
            sent = pickle.dumps(({name: value for name, value in vars(stage).items() if name != "source"}, type(stage)))
            if b"__main__" in sent and not is_found:
                raise pickle.PicklingError("it is defined in a notebook or at a prompt")
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ChainError(
                f"{type(stage).__name__} cannot be sent to a {context} worker ({error}). Use functions and classes "
                "of a module instead of lambdas and notebook cells, or num_workers=0; with local sets alone "
                'multiprocessing_context="fork" will do.'
            ) from None


class _OneWay:
    """A sampler that is read once: planned batches, in the process of the consumer.

    An error of the plan ends it and is kept for `raise_error`: raised inside torch's iterator, it would overtake the
    batches that are being built, and tear down the queues of workers that have just begun.
    """

    def __init__(self, tasks: Iterator[Task]) -> None:
        self.tasks = tasks
        self._error: Exception | None = None

    def __iter__(self) -> Iterator[Task]:
        try:
            yield from self.tasks
        except Exception as error:
            self._error = error

    def raise_error(self) -> None:
        """The error that ended it, if one did."""
        error, self._error = self._error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # it holds this frame and that of the iterator, neither of which may hold the error


def _in_turns(batches: Iterator[Any], longest_wait_seconds: float | None) -> Iterator[Any]:
    """What torch's workers give; an error of ours, which comes as a value, is raised.

    Given a limit, torch looks whether its workers are alive only when it is reached, and no signal tells of a fork
    server's. So it gets a short one, again and again.
    """
    waited_seconds = 0.0
    while True:
        try:
            built = next(batches)
        except StopIteration:
            return
        except RuntimeError as error:
            waited_seconds += _TURN_SECONDS
            timed_out = str(error).startswith("DataLoader timed out")
            if not timed_out or longest_wait_seconds is None or waited_seconds >= longest_wait_seconds:
                raise
            continue
        waited_seconds = 0.0
        if isinstance(built, StreamError):
            raise built
        yield built
