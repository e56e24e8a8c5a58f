"""Commands that are killed before each of their changes to the disk, one after the other, and then given again.

Other tests kill at random moments, and hit the rare ones rarely. What pyarrow writes by itself is not seen here; that
goes into scratch folders.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tars import files_below

from s3prl_stream.cli import main

CHANGES = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.link", "os.truncate"}
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
LONGEST_SECONDS = 60


def is_change(event: str, arguments: tuple[Any, ...]) -> bool:
    """Whether this event of Python's audit changes something on the disk."""
    if event == "open":
        path, _, flags = arguments
        return isinstance(path, str | Path) and bool(flags & WRITES) and not str(path).startswith("/dev/")
    return event in CHANGES


def run(words: Sequence[str | Path], *, kill_before: int | None = None) -> int:
    """A command in a forked process that is killed before its change of this number (from 1); its exit status."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(LONGEST_SECONDS)
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
        done = itertools.count(1)

        def watch(event: str, arguments: tuple[Any, ...]) -> None:
            if is_change(event, arguments) and next(done) == kill_before:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.addaudithook(watch)
        status = 70
        try:
            status = main(list(map(str, words)))
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Recordings, of which one is damaged, a set of two shards of them, and its tars alone."""
    folder = tmp_path_factory.mktemp("work")
    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    for number in range(4):
        soundfile.write(folder / f"audio/{number}.wav", rng.integers(-3000, 3000, 8000, dtype=np.int16), 16_000)
    (folder / "audio/damaged.wav").write_bytes(b"RIFF")
    words = ["pack", "folder", folder / "audio", folder / "set", "--shard-mb", "0.03", "--workers", "0"]
    assert main(list(map(str, words))) == 1
    (folder / "tars").mkdir()
    tars = sorted((folder / "set").glob("*.tar"))
    for tar in tars:
        shutil.copy(tar, folder / "tars")
    with tars[0].open("r+b") as file:
        file.seek(3000)
        file.write(b"damage")
    assert len(tars) == 2
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("command", ["pack", "repair", "subset", "index"])
def test_a_kill_before_any_change_to_the_disk_costs_nothing(
    command: str, work: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same command ends with the same files, whatever is killed before, and with no others."""
    out = tmp_path / "out"
    words = {
        "pack": ["folder", work / "audio", out, "--shard-mb", "0.03"],
        "repair": [work / "set", out],
        "subset": [work / "set", out, "--where", "seconds > 0"],
        "index": [out],
    }[command]
    words = [command, *words, "--workers", "0"]
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "scratch"))

    def begin() -> None:
        shutil.rmtree(out, ignore_errors=True)
        if command == "index":
            shutil.copytree(work / "tars", out)

    begin()
    status = main(list(map(str, words)))  # here: so that those who are forked need import nothing
    wanted = files_below(tmp_path)
    assert (status, "out/manifest.json" in wanted) == (0 if command == "index" else 1, True)
    killed = 0
    for number in itertools.count(1):
        begin()
        if run(words, kill_before=number) != -signal.SIGKILL:
            break
        again = run(words)
        # 2: it had been killed after its last file, and the set is there
        assert again == status or (again, command in ("repair", "subset")) == (2, True), number
        assert files_below(tmp_path) == wanted, number
        killed += 1
    assert killed > 40
