"""`losses.jsonl` and `metrics.jsonl`: what each step gave, each once, whatever was killed in between."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from s3prl_stream.errors import StateError
from s3prl_stream.trainer.checkpoint import write_whole

NAME = "losses.jsonl"
METRICS = "metrics.jsonl"


class StepLog:
    """Appends lines that have a "step".

    Args:
        run: folder of the run.
        name: of the file.
        last_step: of the checkpoint from which the run goes on; later lines, and a line cut by a kill, are dropped.
        every_step: each step has a line, and one that is missing is an error.

    Raises:
        StateError: a step up to `last_step` is missing.
    """

    def __init__(self, run: Path, name: str, *, last_step: int, every_step: bool = False) -> None:
        self.path = run / name
        lines = self.path.read_bytes().splitlines(keepends=True) if self.path.exists() else []
        if every_step:
            kept = lines[:last_step]
            complete = len(kept) == last_step and (not kept or json.loads(kept[-1])["step"] == last_step)
        else:
            kept = [line for line in lines if line.endswith(b"\n") and json.loads(line)["step"] <= last_step]
            complete = True
        if not complete:
            raise StateError(
                f"{self.path}: does not hold steps 1 to {last_step}, at which this run stopped. "
                "Put the file back, or train into a new folder."
            )
        write_whole(self.path, b"".join(kept))
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; it survives a kill of the process at once, and of the machine after `sync`."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Bring the lines to disk; called before each checkpoint, which relies on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def open_lines(path: Path) -> TextIO:
    """A file of lines to go on with; a last one that was cut, by a kill or a full disk, is dropped."""
    content = path.read_bytes() if path.exists() else b""
    if not content.endswith(b"\n"):
        path.write_bytes(content[: content.rfind(b"\n") + 1])
    return path.open("a", buffering=1, encoding="utf-8")


def read_losses(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's log of steps."""
    return read_lines(run / NAME)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines of a log, see `each_line`."""
    return list(each_line(path))


def each_line(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log, none if there is no such file; a last line that was cut by a kill is left out."""
    if path.exists():
        with path.open(encoding="utf-8") as file:
            yield from (json.loads(line) for line in file if line.endswith("\n"))
