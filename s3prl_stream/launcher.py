"""What torchrun, or another launcher, says of this process in its environment. Nothing else reads it there."""

from __future__ import annotations

import os

from s3prl_stream.errors import UsageError

_DEFAULTS = {"RANK": 0, "LOCAL_RANK": 0, "WORLD_SIZE": 1}


def launched(name: str) -> int:
    """RANK, LOCAL_RANK or WORLD_SIZE; where it is not set, that of a process that is alone.

    Raises:
        UsageError: it is no number of a process, or of processes.
    """
    value = os.environ.get(name) or str(_DEFAULTS[name])
    if not value.isdecimal() or int(value) < int(name == "WORLD_SIZE"):
        raise UsageError(
            f"{name}={value!r} in the environment is no number of a launcher; start several processes by torchrun, or "
            f"unset {name} for one"
        )
    return int(value)


def speaks() -> bool:
    """True of the one process that says what there is to say. A RANK that is no number ends nothing here."""
    return os.environ.get("RANK", "0") in ("", "0")
