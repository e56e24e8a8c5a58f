"""A command in another process that will be killed, and how far its run is."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path


def begun(*words: object) -> subprocess.Popen[bytes]:
    """The command in a process group of its own, with one thread."""
    return subprocess.Popen(
        [sys.executable, "-m", "s3prl_stream", *map(str, words)],
        start_new_session=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def num_steps(run: Path) -> int:
    """Updates that its log has whole lines of."""
    log = run / "losses.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0
