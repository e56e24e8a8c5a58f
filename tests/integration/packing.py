"""A corpus, and packs of it in processes of their own that are killed at random moments, for tests.

python -m integration.packing RECORDINGS OUT ENGINE WORKERS
"""

from __future__ import annotations

import hashlib
import os
import random
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import soundfile

TESTS = Path(__file__).resolve().parents[1]
SETTINGS = {"shard_mb": 0.25, "seed": 3, "name": "set"}


def make_recordings(folder: Path, num_files: int) -> Path:
    """FLACs of 1 to 4 s at 16 kHz, with a damaged one and a pair of duplicates."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number in range(num_files):
        wav = rng.integers(-3000, 3000, int(16_000 * rng.uniform(1, 4)), dtype=np.int16)
        soundfile.write(folder / f"clip{number:03d}.flac", wav, 16_000)
    (folder / "clip001.flac").write_bytes((folder / "clip002.flac").read_bytes())
    (folder / "clip003.flac").write_bytes((folder / "clip004.flac").read_bytes()[:9000])
    return folder


def start(
    recordings: Path,
    out: str | Path,
    *,
    engine: str = "local",
    workers: int,
    environment: Mapping[str, str] | None = None,
) -> subprocess.Popen[str]:
    """A pack, in a process group of its own."""
    command = [sys.executable, "-m", "integration.packing", str(recordings), str(out), engine, str(workers)]
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent), os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        command, env={**os.environ, **(environment or {}), "PYTHONPATH": paths}, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def finish(process: subprocess.Popen[str], seconds: float = 240) -> None:
    """Wait for a pack, which must end well."""
    out, err = process.communicate(timeout=seconds)
    assert process.returncode == 0, (out, err)


def kill_again_and_again(
    begin: Callable[[], subprocess.Popen[str]], wait: Callable[[subprocess.Popen[str]], None], times: int
) -> int:
    """Start a pack, wait, and SIGKILL it, with all its workers or alone, `times` times; how many were still at work."""
    at_work = 0
    draw = random.Random(0)
    for _ in range(times):
        process = begin()
        wait(process)
        if process.poll() is None:
            at_work += 1
            if draw.random() < 0.5:
                kill_group(process)
            else:  # its workers notice by themselves
                process.kill()
        process.communicate()
    return at_work


def kill_group(process: subprocess.Popen[str]) -> None:
    """SIGKILL to a pack with all its workers, and with who would remove their semaphores, which is done here."""
    inodes = set()
    for pid in psutil.pids():
        with suppress(OSError):  # one that has just ended
            if os.getpgid(pid) == process.pid:
                mapped = Path(f"/proc/{pid}/maps").read_text().splitlines()
                inodes.update(int(line.split()[4]) for line in mapped if "/dev/shm/sem." in line)
    os.killpg(process.pid, signal.SIGKILL)
    for semaphore in Path("/dev/shm").glob("sem.mp-*"):
        with suppress(FileNotFoundError):
            if semaphore.stat().st_ino in inodes:
                semaphore.unlink()


def digests(files: Mapping[str, bytes]) -> dict[str, str]:
    """Name -> SHA-256 of every file of a set."""
    return {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}


if __name__ == "__main__":
    import s3prl_stream as ss

    ss.pack(ss.corpora.folder(sys.argv[1]), sys.argv[2], engine=sys.argv[3], num_workers=int(sys.argv[4]), **SETTINGS)  # type: ignore[arg-type]
