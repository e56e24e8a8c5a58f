"""`losses.jsonl`: one line per step, each step once, whatever was killed in between."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import TracebackType
from typing import Any

from s3prl_stream.errors import StateError

NAME = "losses.jsonl"


class LossLog:
    """Appends lines; used in a `with` block.

    Args:
        run: folder of the run.
        last_step: of the checkpoint from which the run goes on; later lines, and a line cut by a kill, are dropped.

    Raises:
        StateError: a step up to `last_step` is missing.
    """

    def __init__(self, run: Path, *, last_step: int) -> None:
        self.path = run / NAME
        kept = self.path.read_bytes().splitlines(keepends=True)[:last_step] if self.path.exists() else []
        if len(kept) < last_step or (kept and json.loads(kept[-1])["step"] != last_step):
            raise StateError(
                f"{self.path}: does not hold steps 1 to {last_step}, at which this run stopped. "
                "Put the file back, or train into a new folder."
            )
        unfinished = self.path.with_name(f".unfinished-{NAME}")
        unfinished.write_bytes(b"".join(kept))
        unfinished.rename(self.path)
        self._file = self.path.open("a", encoding="utf-8")

    def write(self, line: dict[str, Any]) -> None:
        """Append one line; it survives a kill of the process at once, and of the machine after `sync`."""
        self._file.write(json.dumps(line, allow_nan=False) + "\n")
        self._file.flush()

    def sync(self) -> None:
        """Bring the lines to disk; called before each checkpoint, which relies on them."""
        os.fsync(self._file.fileno())

    def __enter__(self) -> LossLog:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._file.close()


def read_losses(run: Path) -> list[dict[str, Any]]:
    """All lines of a run's log; a last line that was cut by a kill is left out."""
    lines = (run / NAME).read_text(encoding="utf-8").splitlines(keepends=True)
    return [json.loads(line) for line in lines if line.endswith("\n")]
