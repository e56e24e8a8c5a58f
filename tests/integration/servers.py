"""Real servers for tests, started by `tools/object_store`; tests/conftest.py makes the fixtures known to all.

    @pytest.mark.slow
    def test_something(rgw, monkeypatch):
        rgw.set_environment(monkeypatch)
        ... s3://test/any/prefix ...

They start once a session (the gateway in a quarter of a minute) and are gone at its end. To keep one over many
sessions, start it yourself and name its folder: `tools/object_store up DIR`, then S3PRL_STREAM_TEST_RGW=DIR (or
_NGINX).

A process that has used obstore must not fork, and other tests of the session do: use it in a child process
(`chaos.obstore_client` shows how), or in a test that starts its own interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

TOOL = Path(__file__).resolve().parents[2] / "tools" / "object_store"


class Server:
    """What every started server has."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        self.folder = folder
        self.endpoint: str = state["endpoint"]
        """http://127.0.0.1:port"""
        self._environment: dict[str, str] = state.get("environment", {})

    def environment(self, *, endpoint: str | None = None) -> dict[str, str]:
        """Variables with which s3://test/... (or az://) is here; `endpoint`: the `url` of a ChaosProxy before it."""
        to = endpoint or self.endpoint
        return {name: value.replace(self.endpoint, to) for name, value in self._environment.items()}

    def set_environment(self, monkeypatch: pytest.MonkeyPatch, *, endpoint: str | None = None) -> None:
        """The same for this process and its children, until the test ends."""
        for name, value in self.environment(endpoint=endpoint).items():
            monkeypatch.setenv(name, value)


class Rgw(Server):
    """Ceph's S3 gateway, with its objects in memory and two empty buckets."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        super().__init__(folder, state)
        self.bucket: str = state["bucket"]
        """Needs the keys."""
        self.public_bucket: str = state["public_bucket"]
        """Needs them only for writing: what lies there is at `endpoint`/public/NAME for any HTTP client."""
        self.access_key: str = state["access_key"]
        self.secret_key: str = state["secret_key"]
        self.region: str = state["region"]

    def kill_gateway(self) -> None:
        """SIGKILL to radosgw. The objects stay. Whoever calls this calls `start_gateway` before the test ends."""
        command("kill-rgw", self.folder)

    def start_gateway(self, *, max_concurrent_requests: int | None = None) -> None:
        """Start it again, at the same address; with a limit, more requests at a time get its real 503."""
        limit = [] if max_concurrent_requests is None else ["--max-concurrent-requests", str(max_concurrent_requests)]
        command("start-rgw", self.folder, *limit)

    @contextmanager
    def limited_to(self, max_concurrent_requests: int) -> Iterator[None]:
        """For a while, the gateway takes no more requests at a time than this."""
        self.kill_gateway()
        self.start_gateway(max_concurrent_requests=max_concurrent_requests)
        try:
            yield
        finally:
            self.kill_gateway()
            self.start_gateway()


class Nginx(Server):
    """A folder over http, with ranges and a listing in HTML."""

    def __init__(self, folder: Path, state: dict[str, Any]) -> None:
        super().__init__(folder, state)
        self.files = Path(state["folder"])
        """What is put here is at `endpoint`/NAME."""
        self._log = Path(state["access_log"])

    def requests(self) -> list[dict[str, Any]]:
        """All so far, in the order in which they ended: method, path, range, status, bytes_sent."""
        return [json.loads(line) for line in self._log.read_text("utf-8").splitlines()]


class Azurite(Server):
    """Azure's blob service with one account and one empty container, `test`."""


def command(name: str, folder: Path, *arguments: str) -> dict[str, Any]:
    """Run the tool, and return the state that it prints."""
    done = subprocess.run([TOOL, name, folder, *arguments], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)) if done.stdout else {}


@contextmanager
def running(kind: str, folder: Path) -> Iterator[tuple[Path, dict[str, Any]]]:
    """A server of the session's own, or the one that the environment names."""
    named = os.environ.get(f"S3PRL_STREAM_TEST_{kind.upper()}")
    if named:
        yield Path(named), command("status", Path(named))
        return
    done = subprocess.run([TOOL, "up", folder, "--kind", kind], capture_output=True, text=True)
    if done.returncode == 2:  # in a new folder, this is the only wrong use that is left
        pytest.skip(f"cannot be installed here: {done.stderr.splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    try:
        yield folder, json.loads(done.stdout)
    finally:
        command("down", folder)


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rgw]:
    """A running S3 gateway: `rgw.endpoint`, `rgw.bucket`, `rgw.environment()`. Shared: take a prefix of your own."""
    with running("rgw", tmp_path_factory.mktemp("rgw") / "server") as (folder, state):
        yield Rgw(folder, state)


@pytest.fixture(scope="session")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Nginx]:
    """A running nginx: put files below `nginx.files`, read them at `nginx.endpoint`. Take a folder of your own."""
    with running("nginx", tmp_path_factory.mktemp("nginx") / "server") as (folder, state):
        yield Nginx(folder, state)


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Azurite]:
    """A running blob service of Azure: `azurite.set_environment(monkeypatch)`, then az://test/..."""
    with running("azurite", tmp_path_factory.mktemp("azurite") / "server") as (folder, state):
        yield Azurite(folder, state)
