"""Work for one thread, in order, whose results are waited for with a limit.

Python waits at its end for the threads of a ThreadPoolExecutor. One that hangs would keep a process alive that has
found out and wants to stop, so this thread does not.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import queue
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, TypeVar

from s3prl_stream.errors import StuckLoader

Result = TypeVar("Result")

_LONGEST_END_SECONDS = 30.0
_LONGEST_EXIT_SECONDS = 5.0  # as long as torch waits for its workers


class OneThread:
    """A thread that runs calls one after another; ends with its `with` block, after the call that runs.

    A call that does not end is left behind: after half a minute, and where a StuckLoader tells so, at once.

    Args:
        name: of the thread, for those who look at stacks.
    """

    def __init__(self, name: str) -> None:
        self._calls: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=_run, args=(self._calls,), name=name, daemon=True)
        self._thread.start()
        _running.add(self)

    def submit(self, function: Callable[..., Result], *arguments: Any) -> Future[Result]:
        """Run `function(*arguments)` when its turn comes."""
        future: Future[Result] = Future()
        promised = [future]

        def call() -> None:
            promise = promised.pop()
            try:
                if promise.set_running_or_notify_cancel():
                    promise.set_result(function(*arguments))
            except BaseException as error:
                promise.set_exception(error)
            finally:
                del promise  # the error holds this frame, which must not hold the error

        self._calls.put(call)
        return future

    def end(self, longest_seconds: float) -> None:
        """Forget what has not begun, and wait for what has."""
        with contextlib.suppress(queue.Empty):
            while True:
                self._calls.get_nowait()
        self._calls.put(None)
        self._thread.join(longest_seconds)

    def __enter__(self) -> OneThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end(0.0 if isinstance(error, StuckLoader) else _LONGEST_END_SECONDS)
        _running.discard(self)


_running: weakref.WeakSet[OneThread] = weakref.WeakSet()


@atexit.register
def _end_all() -> None:
    """The last look: a thread inside a library while the process tears it down may crash."""
    for thread in list(_running):
        thread.end(_LONGEST_EXIT_SECONDS)


def _run(calls: queue.SimpleQueue[Callable[[], None] | None]) -> None:
    while (call := calls.get()) is not None:
        call()
        del call  # and with it the result


def result_within(future: Future[Result], seconds: float | None, what: str) -> Result:
    """The result of a call.

    Args:
        seconds: the limit; None: there is none.
        what: is waited for, for the message.

    Raises:
        StuckLoader: the limit was reached.
    """
    try:
        return future.result(seconds)
    except concurrent.futures.TimeoutError:
        if not future.done():
            raise StuckLoader(f"no batch came within {seconds:g} s: {what} has not ended") from None
        return future.result()  # done just after the limit, or the call's own TimeoutError
    finally:
        del future  # an error of the call holds this frame, which must not hold the error
