"""A process that a test may kill, without the seconds that another interpreter needs to import torch."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from multiprocessing import resource_tracker
from pathlib import Path
from typing import Any

from s3prl_stream.worker_context import Environment
from tests.contract import forkserver


class Forked:
    """A function of a module, in a process of the fork server that leads a group of its own.

    Args:
        function: what it returns or raises is the process's exit status.
        arguments: picklable.
        stderr: a file for what it says there; its stdout goes nowhere.
        environment: variables beside those of this process.
    """

    def __init__(
        self,
        function: Callable[..., Any],
        *arguments: Any,
        stderr: str | Path = os.devnull,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        added = {**(environment or {}), "OMP_NUM_THREADS": "1"}
        words = (Environment(), added, str(stderr), function, arguments)
        self._process = forkserver().Process(target=_alone, args=words)  # type: ignore[attr-defined]
        self._process.start()
        self.pid: int = self._process.pid
        with suppress(ProcessLookupError):  # it has ended
            while os.getpgid(self.pid) != self.pid:
                time.sleep(0.001)

    def poll(self) -> int | None:
        """Its exit status, or minus the signal that ended it; None while it runs."""
        status: int | None = self._process.exitcode
        return status

    def wait(self, seconds: float | None = None) -> int | None:
        """The same, once it has ended or so much time has gone by."""
        self._process.join(seconds)
        return self.poll()

    def kill(self) -> None:
        """SIGKILL to it alone."""
        os.kill(self.pid, signal.SIGKILL)


def _alone(
    _: Environment, environment: Mapping[str, str], stderr: str, function: Callable[..., Any], arguments: Any
) -> None:
    import torch

    os.setsid()
    resource_tracker._resource_tracker._fd = None  # type: ignore[attr-defined]  # one of its own tells it alone
    os.environ.update(environment)
    torch.set_num_threads(1)
    for name, mode, descriptor in ((os.devnull, os.O_WRONLY, 1), (stderr, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 2)):
        os.dup2(os.open(name, mode), descriptor)
    sys.exit(function(*arguments))
