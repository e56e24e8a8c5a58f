"""A command in another process that will be killed, and how far its run is."""

from __future__ import annotations

from pathlib import Path

from integration.forked import Forked

from s3prl_stream.cli import main


def begun(*words: object) -> Forked:
    """The command in a process group of its own, with one thread."""
    return Forked(main, list(map(str, words)))


def num_steps(run: Path) -> int:
    """Updates that its log has whole lines of."""
    log = run / "losses.jsonl"
    return log.read_bytes().count(b"\n") if log.exists() else 0
