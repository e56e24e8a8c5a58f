"""Tests that run in a child process: one that has used obstore must not fork, and other tests of a session do.

    from apart import in_child

    @in_child
    def test_something(tmp_path: Path) -> None: ...

The child is one for all of them, since it takes seconds to start; it gets its environment and its temporary folder back
after each. Fixtures must be picklable. A failed assertion shows the child's traceback. `obstore_child` runs a function
there, where a test has something to do on both sides.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import tempfile
import traceback
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Any

import pytest

SECONDS = 200
Test = Callable[..., None]


@pytest.fixture(scope="session")
def child() -> Iterator[ProcessPoolExecutor]:
    """The process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        yield pool


@pytest.fixture(scope="session")
def obstore_child(child: ProcessPoolExecutor) -> Callable[..., Any]:
    """Runs a function in that process, and gives back what it returns."""
    return lambda function, *arguments, **settings: child.submit(_call_here, function, arguments, settings).result(
        SECONDS
    )


def in_child(test: Test) -> Test:
    """Run a test in the child process."""

    @functools.wraps(test)
    def run(child: ProcessPoolExecutor, **arguments: Any) -> None:
        failed = child.submit(_run_here, test.__module__, test.__name__, arguments).result(SECONDS)
        assert failed is None, failed

    fixtures = [inspect.Parameter("child", inspect.Parameter.KEYWORD_ONLY)]
    own = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in inspect.signature(test).parameters.values()]
    run.__signature__ = inspect.Signature([*fixtures, *own])  # type: ignore[attr-defined]
    return run


def _run_here(module: str, name: str, arguments: dict[str, Any]) -> str | None:
    try:
        with _as_it_was():
            vars(importlib.import_module(module))[name].__wrapped__(**arguments)
    except BaseException:
        return traceback.format_exc()
    return None


def _call_here(function: Callable[..., Any], arguments: tuple[Any, ...], settings: dict[str, Any]) -> Any:
    with _as_it_was():
        return function(*arguments, **settings)


@contextmanager
def _as_it_was() -> Iterator[None]:
    """What is done in it changes nothing for those who come next."""
    from s3prl_stream.stores import object_clients, object_tries

    object_clients.CLIENT_OPTIONS["read_timeout"] = "10s"  # a test of servers that stall sets a shorter one
    object_tries.FIRST_PAUSE_SECONDS, object_tries.LONGEST_PAUSE_SECONDS = 0.001, 0.002
    environment, temporary = dict(os.environ), tempfile.tempdir
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(environment)
        tempfile.tempdir = temporary
