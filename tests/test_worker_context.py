"""Workers from a fork server have the environment of the process that sends them their work."""

from __future__ import annotations

import multiprocessing
import os
from typing import Any

import pytest

from s3prl_stream.worker_context import Environment, context_for, start_method

NAME = "S3PRL_STREAM_TEST_WORKER_CONTEXT"


def _tell(environment: Environment, queue: Any) -> None:
    queue.put(os.environ.get(NAME))


def test_variables_set_after_the_server_began_reach_its_children(monkeypatch: pytest.MonkeyPatch) -> None:
    context = multiprocessing.get_context("forkserver")
    queue = context.SimpleQueue()
    for value in ("one", None):
        monkeypatch.setenv(NAME, value) if value else monkeypatch.delenv(NAME)
        process = context.Process(target=_tell, args=(Environment(), queue))
        process.start()
        assert queue.get() == value
        process.join()


def test_what_the_user_asks_for_is_taken_where_it_is_safe() -> None:
    for asked in (None, "fork", "forkserver", "spawn"):
        assert start_method(asked, is_remote=False) == asked
    assert start_method(None, is_remote=True) == "forkserver"
    assert start_method("spawn", is_remote=True) == "spawn"
    for method in (None, "fork", "spawn"):
        assert context_for(method, None) == method
