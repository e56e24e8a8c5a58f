"""A set of 90 MB in real object stores: the local batches, few requests, uploads byte for byte.

Each reads through what a user has: a URL, and the environment of the cloud.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import soundfile
from chaos.obstore_client import obstore_process
from integration.reading import Reading, read_epoch, upload
from integration.servers import Azurite, Nginx, Rgw

import s3prl_stream as ss
from s3prl_stream.stores.store import open_store

pytestmark = pytest.mark.slow
Child = Callable[..., Any]
RATE = 16_000
MB_PER_REQUEST = 0.6
SETTINGS = {"max_batch_seconds": 120.0, "block_samples": 16_384}
KINDS = ("s3", "http", "az", "gs")


class Copy(NamedTuple):
    """The set in a store."""

    url: str
    environment: dict[str, str]


def corpus(folder: Path) -> Iterator[ss.Utterance]:
    for path in sorted(folder.iterdir()):
        yield ss.Utterance(path.stem, path, speaker=path.stem[-2:])


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 clips of 4 to 18 s, as large as speech of these lengths."""
    folder = tmp_path_factory.mktemp("clips")
    rng = np.random.default_rng(0)
    for number in range(400):
        wav = rng.integers(-300, 300, int(RATE * rng.uniform(4.0, 18.0)), dtype=np.int16)
        soundfile.write(folder / f"clip{number:04d}.wav", wav, RATE)
    return folder


@pytest.fixture(scope="module")
def large_set(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The clips in a few shards, each larger than one part of an upload."""
    folder = tmp_path_factory.mktemp("large") / "speech"
    shards = ss.pack(corpus(recordings), folder, shard_mb=20.0)
    assert shards.num_shards > 3
    assert min(path.stat().st_size for path in folder.glob("*.tar")) > 16 << 20
    return folder


@pytest.fixture(scope="module")
def local(large_set: Path) -> Reading:
    return read_epoch({}, large_set, **SETTINGS)


@pytest.fixture(scope="module")
def child() -> Iterator[Child]:
    with obstore_process() as run:
        yield run


@pytest.fixture(scope="module")
def copies(large_set: Path, child: Child, request: pytest.FixtureRequest) -> Callable[[str], Copy]:
    """Puts the set into a store, once."""
    made: dict[str, Copy] = {}

    def put(kind: str) -> Copy:
        if kind not in made:
            made[kind] = globals()[f"put_{kind}"](large_set, child, request.getfixturevalue)
        return made[kind]

    return put


def put_s3(folder: Path, child: Child, fixture: Callable[[str], Any]) -> Copy:
    rgw: Rgw = fixture("rgw")
    child(upload, rgw.environment(), folder, "s3://test/stores/speech")
    return Copy("s3://test/stores/speech", rgw.environment())


def put_gs(folder: Path, child: Child, fixture: Callable[[str], Any]) -> Copy:
    """Google's protocol for reading is S3's as far as it goes: Ceph answers it where no signature is needed."""
    rgw: Rgw = fixture("rgw")
    child(upload, rgw.environment(), folder, "s3://public/stores/speech")
    key = {"gcs_base_url": rgw.endpoint, "disable_oauth": True, "client_email": "", "private_key": "",
           "private_key_id": ""}  # fmt: skip
    return Copy(
        "gs://public/stores/speech", {"GOOGLE_SERVICE_ACCOUNT_KEY": json.dumps(key), "GOOGLE_ALLOW_HTTP": "true"}
    )


def put_az(folder: Path, child: Child, fixture: Callable[[str], Any]) -> Copy:
    azurite: Azurite = fixture("azurite")
    child(upload, azurite.environment(), folder, "az://test/stores/speech")
    return Copy("az://test/stores/speech", azurite.environment())


def put_http(folder: Path, child: Child, fixture: Callable[[str], Any]) -> Copy:
    nginx: Nginx = fixture("nginx")
    link = nginx.files / f"stores-{os.getpid()}"  # of this session
    link.symlink_to(folder.parent)
    return Copy(f"{nginx.endpoint}/{link.name}/speech", {})


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_the_batches_of_an_epoch_are_the_local_ones(
    kind: str, workers: int, copies: Callable[[str], Copy], local: Reading, child: Child
) -> None:
    copy = copies(kind)
    found = child(read_epoch, copy.environment, copy.url, workers=workers, read_timeout="10s", **SETTINGS)
    assert found.error is None
    assert found.damaged == []
    assert found.batches == local.batches
    assert len(local.rows) == 400


def test_requests_are_few_and_fewer_with_longer_runs(
    copies: Callable[[str], Copy], large_set: Path, child: Child, nginx: Nginx
) -> None:
    num_bytes = sum(path.stat().st_size for path in large_set.glob("*.tar"))
    copy = copies("http")
    counted = {}
    for run in (1, 4, 8, 16):
        before = len(nginx.requests())
        found = child(read_epoch, {}, copy.url, run=run, read_timeout="10s", **SETTINGS)
        counted[run] = len(nginx.requests()) - before
        assert found.counters["requests"] == counted[run]  # what is counted is what is seen
        assert found.counters["retries"] == 0
    print({run: (requests, round(num_bytes / requests / 1e6, 3)) for run, requests in counted.items()})
    assert counted[4] <= num_bytes / 1e6 / MB_PER_REQUEST
    assert counted[1] > counted[4] > counted[8] > counted[16]
    before = len(nginx.requests())
    child(read_epoch, {}, copy.url, workers=2, read_timeout="10s", **SETTINGS)
    assert len(nginx.requests()) - before == counted[4]  # manifest and index are read by one process only


def pack_to(environment: dict[str, str], recordings: Path, url: str) -> tuple[str, dict[str, bytes]]:
    os.environ.update(environment)
    shards = ss.pack(corpus(recordings), url, shard_mb=20.0, name="speech", num_workers=1)
    store = open_store(url)
    return shards.fingerprint, {name: store.read_whole(name, at_most=1 << 30) for name, _ in store.list()}


@pytest.mark.parametrize("kind", ["rgw", "azurite"])
def test_a_set_is_packed_into_a_store(
    kind: str, recordings: Path, large_set: Path, child: Child, request: pytest.FixtureRequest
) -> None:
    server: Rgw | Azurite = request.getfixturevalue(kind)
    url = f"{'s3' if kind == 'rgw' else 'az'}://test/stores/packed"
    fingerprint, files = child(pack_to, server.environment(), recordings, url)
    assert fingerprint == ss.open_shards(large_set).fingerprint
    assert files.keys() == {str(path.relative_to(large_set)) for path in large_set.rglob("*") if path.is_file()}
    assert all(content == (large_set / name).read_bytes() for name, content in files.items())


@pytest.mark.timeout(900)
def test_the_command_line_takes_urls(copies: Callable[[str], Copy], tmp_path: Path) -> None:
    copy = copies("s3")

    def run(*words: str) -> str:
        command = [sys.executable, "-m", "s3prl_stream", *words]
        done = subprocess.run(command, env={**os.environ, **copy.environment}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert copy.environment["AWS_SECRET_ACCESS_KEY"] not in done.stdout + done.stderr
        return done.stdout

    assert json.loads(run("inspect", copy.url, "--json"))["samples"] == 400
    assert json.loads(run("plan", copy.url, "--json"))["clips_selected"] == 400
    assert len(run("which", copy.url, "--batch", "3").splitlines()) > 1
    assert json.loads(run("verify", copy.url, "--full", "--workers", "2", "--json"))["findings"] == []
    sizes = ["--hidden-size", "24", "--layers", "1", "--heads", "2", "--ffn-size", "24", "--batch-seconds", "20"]
    run("pretrain", "tera", "--data", copy.url, "--out", str(tmp_path / "run"), "--steps", "2", *sizes)
    assert len((tmp_path / "run" / "losses.jsonl").read_text().splitlines()) == 2
