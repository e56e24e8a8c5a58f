"""`losses.jsonl` and `metrics.jsonl`: what each step gave, each once, whatever was killed in between."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TextIO

from s3prl_stream.errors import StateError
from s3prl_stream.json_files import json_object
from s3prl_stream.stores.whole_files import sync

LOSSES = "losses.jsonl"
METRICS = "metrics.jsonl"


class StepLog:
    """Appends lines that have a "step".

    Args:
        run: folder of the run.
        name: of the file.
        last_step: of the checkpoint from which the run goes on; later lines, and a line cut by a kill, are dropped.
        every_step: each step has a line, and one that is missing is an error.

    Raises:
        StateError: a step up to `last_step` is missing, or a line tells no step.
    """

    def __init__(self, run: Path, name: str, *, last_step: int, every_step: bool = False) -> None:
        self.path = run / name
        lines, number, line, end = _whole_lines(self.path), 0, b"", 0
        kept: Iterator[bytes] = itertools.takewhile(lambda one: self._step(one) <= last_step, lines)
        if every_step:
            kept = itertools.islice(lines, last_step)
        for line in kept:
            number, end = number + 1, end + len(line)
        if every_step and last_step and not number == last_step == self._step(line):
            raise StateError(
                f"{self.path}: does not hold steps 1 to {last_step}, at which this run stopped. "
                "Put the file back, or train into a new folder."
            )
        self._file = _cut_at(self.path, end)
        self.sync()
        sync(run)

    def _step(self, line: bytes) -> int:
        try:
            return int(json_object(line)["step"])
        except (ValueError, KeyError, TypeError, OverflowError):
            raise StateError(
                f"{self.path}: found the line {line!r:.100}, expected JSON with a step. Put the file back, or train "
                "into a new folder."
            ) from None

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; it survives a kill of the process at once, and of the machine after `sync`."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def sync(self) -> None:
        """Bring the lines to disk; called before each checkpoint, which relies on them."""
        os.fsync(self._file.fileno())

    def close(self) -> None:
        """Write no more."""
        self._file.close()


def open_lines(path: Path) -> TextIO:
    """A file of lines to go on with; a last one that was cut, by a kill or a full disk, is dropped."""
    return _cut_at(path, sum(map(len, _whole_lines(path))))


def read_losses(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's log of steps."""
    return read_lines(run / LOSSES)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """All lines of a log, see `each_line`."""
    return list(each_line(path))


def each_line(path: Path) -> Iterator[dict[str, Any]]:
    """The lines of a log, none if there is no such file; a last line that was cut by a kill is left out.

    Raises:
        StateError: another line is damaged.
    """
    for number, line in enumerate(_whole_lines(path), start=1):
        try:
            yield json_object(line)
        except ValueError as error:
            raise StateError(f"{path}, line {number}: {error}. Put the file back, or mend the line.") from None


def _whole_lines(path: Path) -> Iterator[bytes]:
    """One after the other, as a log may be long; without a last one that has no end."""
    if path.exists():
        with path.open("rb") as file:
            yield from (line for line in file if line.endswith(b"\n"))


def _cut_at(path: Path, end: int) -> TextIO:
    """The file with so many bytes of what it holds, to go on with."""
    file = path.open("a", buffering=1, encoding="utf-8")
    file.truncate(end)
    return file
