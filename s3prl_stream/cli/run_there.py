"""Whether the folder of a run is there, told before torch is imported, which takes seconds."""

from __future__ import annotations

from pathlib import Path

from s3prl_stream.errors import UsageError


def need_run(folder: str, command: str) -> None:
    """UsageError if there is no such folder; `command` makes one."""
    if not Path(folder).is_dir():
        raise UsageError(f"{folder}: no such folder; give the output folder of `s3prl-stream {command}`")
