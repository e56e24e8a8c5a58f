"""How worker processes of a loader begin: forked, or from a fork server where this process must not fork.

A fork server's children normally run the user's script again, to find the functions in it; a script without
`if __name__ == "__main__"` would begin anew in each. Where nothing that goes to the workers is defined in the script,
they are spared that.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
from multiprocessing.context import BaseContext, ForkServerContext, ForkServerProcess
from multiprocessing.process import BaseProcess
from typing import Any

from s3prl_stream.errors import UsageError
from s3prl_stream.shards.workers import without_script
from s3prl_stream.stores import object_clients

_PRELOADED = ["s3prl_stream.loader"]  # imported once in the server, not in each worker


def start_method(asked: str | None, *, is_remote: bool) -> str | None:
    """ "fork", "forkserver" or "spawn" for workers; None: torch's default.

    Args:
        asked: by the user; None: what is safe.
        is_remote: any of the sets lies in an object store, whose client does not outlive a fork.

    Raises:
        UsageError: "fork" is asked for where it would not be safe.
    """
    must_not_fork = is_remote or object_clients.in_use()
    if asked == "fork" and must_not_fork:
        why = "a set lies in an object store" if is_remote else "this process has used an object store"
        raise UsageError(
            f'multiprocessing_context="fork": {why}, whose client does not outlive a fork. Leave it out, or give '
            '"forkserver" or "spawn".'
        )
    return "forkserver" if asked is None and must_not_fork else asked


def context_for(method: str | None, work: Any) -> BaseContext | str | None:
    """What torch's DataLoader takes as its context.

    Args:
        method: from `start_method`.
        work: what will be sent to every worker.
    """
    if method != "forkserver":
        return method
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(_PRELOADED)  # without the script; of no effect where the server runs already
    return context if b"__main__" in pickle.dumps(work) else _Context()


class Environment:
    """What goes to a worker with this takes along the environment variables of the process that sends it.

    A fork server's children have those of the moment in which it began: without credentials that were set later.
    """

    def __reduce__(self) -> tuple[Any, ...]:
        return _take_over, (dict(os.environ),)


def _take_over(variables: dict[str, str]) -> Environment:
    for name in os.environ.keys() - variables.keys():
        del os.environ[name]
    os.environ.update(variables)
    return Environment()


class _Process(ForkServerProcess):
    @staticmethod
    def _Popen(process: BaseProcess) -> Any:  # noqa: N802  # multiprocessing's name
        with without_script():
            return ForkServerProcess._Popen(process)


class _Context(ForkServerContext):
    Process = _Process
