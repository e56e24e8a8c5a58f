"""The set in a real store on loopback: `tools/object_store` starts it, and takes it away again."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

TOOL = Path(__file__).resolve().parent.parent / "object_store"
STORES = {
    "rgw": ("radosgw", "Ceph's S3 gateway"),
    "azurite": ("azurite-blob", "Azure's blob service, azurite"),
    "nginx": ("nginx", "nginx, a folder over http"),
}
"""Kind -> (a program of it, what it is), in the order of preference. The last is the smallest: 10 MB by apt."""


class Store(NamedTuple):
    """Where the set lies."""

    what: str
    endpoint: str
    url: str
    """Of the set. http ones begin with the endpoint."""
    variables: dict[str, str]
    """Of the environment, for its clients."""

    def behind(self, endpoint: str) -> Store:
        """The same store by way of a proxy."""
        moved = {name: value.replace(self.endpoint, endpoint) for name, value in self.variables.items()}
        return self._replace(endpoint=endpoint, url=self.url.replace(self.endpoint, endpoint), variables=moved)


def choose(wanted: str | None) -> str:
    """A kind: the one that was asked for, the first that is installed, or the one that is installed most easily."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
    there = (kind for kind, (program, _) in STORES.items() if shutil.which(program, path=path))
    return wanted or next(there, "nginx")


@contextmanager
def store_with(packed: Path, kind: str, folder: Path) -> Iterator[Store]:
    """A store that holds a packed set, until the block ends or this process does, killed with -9 too.

    Raises:
        SystemExit: it cannot be installed or started; the message of `tools/object_store` stands above.
    """
    subprocess.run([TOOL, "down", folder], check=True)  # of an earlier demo that was killed
    # Its input ends when we do, however that comes about. In a session of its own, for Ctrl-C goes to all of one.
    at_the_end = ["sh", "-c", 'cat; exec "$0" down "$1"', TOOL, folder]
    guard = subprocess.Popen(at_the_end, stdin=subprocess.PIPE, start_new_session=True)
    assert guard.stdin is not None
    done = subprocess.run([TOOL, "up", folder, "--kind", kind], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        print(
            "demo_elastic: no store. Name another kind by --store, or install this one as said above.", file=sys.stderr
        )
        sys.exit(done.returncode)
    try:
        state = json.loads(done.stdout)
        variables = dict(state.get("environment", {}))
        if kind == "nginx":
            url = f"{state['endpoint']}/set"
            shutil.copytree(packed, Path(state["folder"]) / "set")
        else:
            url = "az://test/set" if kind == "azurite" else "s3://test/set"
            # in a process of its own: one that has used obstore had better start no others
            command = [sys.executable, __file__, str(packed), url]
            subprocess.run(command, check=True, env={**os.environ, **variables, "PYTHONPATH": str(TOOL.parent.parent)})
        yield Store(STORES[kind][1], state["endpoint"], url, variables)
    finally:
        guard.stdin.close()
        guard.wait()


def upload(packed: Path, url: str) -> None:
    """Every file of a set, the manifest last."""
    from s3prl_stream.stores.store import open_store

    store = open_store(url)
    for path in sorted(packed.rglob("*"), key=lambda path: path.name == "manifest.json"):
        if path.is_file():
            store.upload(path, path.relative_to(packed).as_posix())


if __name__ == "__main__":
    upload(Path(sys.argv[1]), sys.argv[2])
