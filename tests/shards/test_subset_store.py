"""Subsets into and out of an object store, and one that was killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
from apart import in_child
from packing.test_pack_store import files
from tars import noise_files

import s3prl_stream as ss
from s3prl_stream.shards.claims import new_owner
from s3prl_stream.stores.store import open_store


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 recordings of a quarter of a second."""
    return noise_files(tmp_path_factory.mktemp("recordings"), 60, 2000, rate=8000)


def pack(recordings: Path, out: str | Path) -> ss.ShardSet:
    corpus = ss.corpora.WithFiles(ss.corpora.folder(recordings), {"trials.txt": b"1 clip00 clip01\n"})
    return ss.pack(corpus, out, sample_rate=8000, shard_mb=0.03)


@in_child
def test_a_subset_is_the_same_in_a_store_and_on_a_disk(recordings: Path, tmp_path: Path) -> None:
    pack(recordings, tmp_path / "set")
    pack(recordings, "memory:///all/set")
    assert files("memory:///all/set") == files(tmp_path / "set")
    ss.subset(tmp_path / "set", tmp_path / "part", "50%")
    for source, out in (
        ("memory:///all/set", "memory:///all/part"),
        (tmp_path / "set", "memory:///all/from_disk"),
        ("memory:///all/set", tmp_path / "from_store"),
    ):
        part = ss.subset(source, out, "50%")
        assert files(out) == files(tmp_path / "part")
        assert part.extra_file("trials.txt") == b"1 clip00 clip01\n"
    assert len(part) == 30


@in_child
def test_what_a_kill_left_in_the_temporary_folder_goes_with_the_next_call_for_that_store(
    recordings: Path, tmp_path: Path
) -> None:
    pack(recordings, tmp_path / "set")
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    tempfile.tempdir = str(scratch)
    store, seen = open_store("memory:///one"), set[Path]()
    *here, _, token = new_owner().split(".")
    left = scratch / f"packing-{'.'.join([*here, str(1 << 23), token])}"  # no process has such a number
    for _ in range(2):
        ss.repair(tmp_path / "set", "memory:///one", progress=lambda *_: seen.update(scratch.rglob("*")))
        ss.index_shards("memory:///one/set-*.tar", "memory:///index")
        assert os.listdir(scratch) == []
        assert files("memory:///one").keys() == files(tmp_path / "set").keys() - {"report.json"}
        assert seen
        assert left not in seen
        left.mkdir()
        (left / "half.tar").touch()
        for file, _ in store.list():
            store.delete(file)


@pytest.mark.slow
def test_a_killed_subset_is_written_again(recordings: Path, tmp_path: Path) -> None:
    pack(recordings, tmp_path / "set")
    ss.subset(tmp_path / "set", tmp_path / "undisturbed", "90%", shard_mb=0.005)
    out = tmp_path / "part"
    words = ["subset", tmp_path / "set", out, "--subset", "90%", "--shard-mb", "0.005", "--workers", "0"]
    command = [sys.executable, "-m", "s3prl_stream", *map(str, words)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as killed:
        while killed.poll() is None and len(list(out.glob("*.tar"))) < 3:
            time.sleep(0.001)
        killed.send_signal(signal.SIGKILL)
    assert killed.returncode == -signal.SIGKILL
    assert not (out / "manifest.json").exists()
    assert subprocess.run(command, check=False).returncode == 0
    assert files(out) == files(tmp_path / "undisturbed")
    assert ss.verify(out, full=True).is_sound
