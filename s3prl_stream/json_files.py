"""JSON that may be damaged, or somebody else's: an object, or one error that says why not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s3prl_stream.errors import StreamError


def json_object(content: bytes) -> dict[str, Any]:
    """The object that stands there; ValueError: none does."""
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise ValueError(f"holds a {type(value).__name__}, expected an object")
    return value


def read_json(path: Path, kind: type[StreamError], advice: str) -> dict[str, Any]:
    """The object of a file of this machine.

    Args:
        path: of the file.
        kind: what is raised if it cannot be read.
        advice: what to do then.
    """
    try:
        return json_object(path.read_bytes())
    except (OSError, ValueError) as error:
        raise kind(f"{path}: cannot be read ({error}). {advice}") from error
