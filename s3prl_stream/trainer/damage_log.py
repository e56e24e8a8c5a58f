"""`damaged.jsonl`: the clips that a run could not use, written down as they come and told once."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, TextIO

from tqdm import tqdm

from s3prl_stream.trainer.losslog import open_lines


class DamageLog:
    """Takes the rows of `Loader.damaged` out of it, so that memory does not grow with the damage.

    What is met again is listed again: in each epoch, and where a run that was killed does steps anew.

    Args:
        run: folder of the run.
        rank: each writes a file of its own, rank 0 `damaged.jsonl`, rank 3 `damaged-3.jsonl`.
        quiet: show nothing.
    """

    def __init__(self, run: Path, rank: int, *, quiet: bool) -> None:
        self.path = run / (f"damaged-{rank}.jsonl" if rank else "damaged.jsonl")
        self.num_clips = 0
        """Taken so far."""
        self._quiet = quiet
        self._file: TextIO | None = None

    def take(self, damaged: list[dict[str, Any]]) -> None:
        """Write the rows down and empty the list. There is no file before the first row."""
        if not damaged:
            return
        if self._file is None:
            self._file = open_lines(self.path)
            if not self._quiet:
                first = f"{damaged[0]['message']} ({damaged[0]['reason']})"
                tqdm.write(f"{self.path} lists clips that cannot be used; the first: {first}", file=sys.stderr)
        self._file.writelines(json.dumps(row) + "\n" for row in damaged)
        self.num_clips += len(damaged)
        damaged.clear()

    def close(self) -> None:
        """Write no more."""
        if self._file is not None:
            self._file.close()
