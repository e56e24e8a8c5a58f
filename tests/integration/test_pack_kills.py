"""Packs that are killed again and again, in one process or several, on a disk, in a store, on Ray: the same bytes."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from integration.packing import SETTINGS, digests, finish, kill_again_and_again, kill_group, make_recordings, start
from integration.servers import Rgw
from tars import files_below

import s3prl_stream as ss


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("audio") / "recordings", 60)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_recordings(tmp_path_factory.mktemp("audio") / "recordings", 400)


def undisturbed(recordings: Path, folder: Path) -> dict[str, str]:
    ss.pack(ss.corpora.folder(recordings), folder, **SETTINGS)  # type: ignore[arg-type]
    return digests(files_below(folder))


def some_time(shortest: float, longest: float) -> Callable[[subprocess.Popen[str]], None]:
    """Waits for a random time between these (seconds)."""
    draw = random.Random(1)
    return lambda process: time.sleep(draw.uniform(shortest, longest))


def some_shards(out: Path, most: int) -> Callable[[subprocess.Popen[str]], None]:
    """Waits until up to `most` more shards are there, and a random moment, so that a kill may hit any step."""
    draw = random.Random(1)

    def wait(process: subprocess.Popen[str]) -> None:
        wanted = len(list(out.glob("*.tar"))) + draw.randint(0, most)
        while len(list(out.glob("*.tar"))) < wanted and process.poll() is None:
            time.sleep(0.001)
        time.sleep(draw.uniform(0.0, 0.005))

    return wait


def test_a_kill_and_two_packs_at_once_give_the_bytes_of_one(recordings: Path, tmp_path: Path) -> None:
    wanted = undisturbed(recordings, tmp_path / "whole")
    assert len(wanted) > 40
    out = tmp_path / "set"
    process = start(recordings, out, workers=2)
    while len(list(out.glob("*.tar"))) < 2:
        assert process.poll() is None
        time.sleep(0.01)
    kill_group(process)
    process.communicate()
    assert not (out / "manifest.json").exists()
    together = [start(recordings, out, workers=workers) for workers in (0, 1)]
    for process in together:
        finish(process)
    assert digests(files_below(out)) == wanted


@pytest.mark.slow
def test_twenty_kills_of_a_pack_with_two_workers(many: Path, tmp_path: Path) -> None:
    wanted = undisturbed(many, tmp_path / "whole")
    out = tmp_path / "set"
    assert len(wanted) > 2 * 120  # a tar and an index beside it for each shard, so the kills leave something to do
    kills = kill_again_and_again(lambda: start(many, out, workers=2), some_shards(out, 3), 20)
    assert kills > 15  # the rest found it finished
    finish(start(many, out, workers=2))
    assert digests(files_below(out)) == wanted


@pytest.mark.slow
def test_twenty_kills_of_packs_into_a_bucket(
    many: Path, tmp_path: Path, rgw: Rgw, obstore_child: Callable[..., Any]
) -> None:
    wanted = undisturbed(many, tmp_path / "whole")
    url, environment = "s3://test/kills/set", rgw.environment()
    assert (
        kill_again_and_again(lambda: start(many, url, workers=2, environment=environment), some_time(0.5, 4.0), 20) > 10
    )
    together = [start(many, url, workers=1, environment=environment) for _ in range(2)]
    for process in together:
        finish(process)
    found = tmp_path / "found"
    program = (
        "import sys, pathlib\nfrom s3prl_stream.stores.store import open_store\nstore = open_store(sys.argv[1])\n"
        "for name, _ in store.list():\n"
        "    path = pathlib.Path(sys.argv[2], name)\n    path.parent.mkdir(parents=True, exist_ok=True)\n"
        "    path.write_bytes(store.read_whole(name, at_most=1 << 30))\n"
    )
    subprocess.run([sys.executable, "-c", program, url, found], env={**os.environ, **environment}, check=True)
    assert digests(files_below(found)) == wanted


@contextmanager
def ray_cluster(folder: Path) -> Iterator[dict[str, str]]:
    """A head without CPUs and two workers of one CPU each, as three nodes on this machine; the variables to use it."""
    pytest.importorskip("ray", reason="Ray is not installed: pip install 's3prl-stream[ray]'")
    port = 20_000 + os.getpid() % 10_000
    environment = {"RAY_ADDRESS": f"127.0.0.1:{port}", "RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": str(folder)}
    nodes = [
        ["--head", f"--port={port}", "--num-cpus=0", "--include-dashboard=false"],
        *[[f"--address=127.0.0.1:{port}", "--num-cpus=1"]] * 2,
    ]
    running: list[subprocess.Popen[bytes]] = []
    try:
        for words in nodes:
            command = [
                *("setpriv", "--pdeathsig", "TERM"),  # a cluster ends with tests that are killed
                Path(sys.executable).with_name("ray"),
                "start",
                "--block",
                "--object-store-memory=100000000",
                *words,
            ]
            log = folder / f"node-{len(running)}.log"
            with log.open("wb") as out:
                running.append(
                    subprocess.Popen(
                        command, env={**os.environ, **environment}, start_new_session=True, stdout=out, stderr=out
                    )
                )
            wait_for(log, b"Ray runtime started")
        yield environment
    finally:
        for process in reversed(running):
            process.terminate()
        for process in running:
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def wait_for(log: Path, words: bytes) -> None:
    stop = time.monotonic() + 90
    while words not in log.read_bytes():
        assert time.monotonic() < stop, log.read_text()
        time.sleep(0.2)


@pytest.mark.slow
def test_a_ray_cluster_of_two_gives_the_same_bytes_also_after_kills(many: Path, tmp_path: Path) -> None:
    wanted = undisturbed(many, tmp_path / "whole")
    with TemporaryDirectory(prefix="ray") as short, ray_cluster(Path(short)) as environment:  # sockets have short paths
        out = tmp_path / "set"
        finish(start(many, out, engine="ray", workers=0, environment=environment))
        assert digests(files_below(out)) == wanted
        killed = tmp_path / "killed/set"

        def begin() -> subprocess.Popen[str]:
            return start(many, killed, engine="ray", workers=0, environment=environment)

        assert kill_again_and_again(begin, some_time(3.0, 8.0), 3)
        finish(begin())
        assert digests(files_below(killed)) == wanted
