"""JSON that may be damaged, or somebody else's: an object, or one error that says why not."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
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


def sealed(values: Mapping[str, Any]) -> bytes:
    """An object as JSON with a checksum, for what only a process of ours reads again."""
    return json.dumps({**values, "checksum": _checksum(values)}).encode()


def unsealed(content: bytes) -> dict[str, Any]:
    """The values that were `sealed`; ValueError: these are not as they were written."""
    values = json_object(content)
    if values.pop("checksum", None) != _checksum(values):
        raise ValueError("not as it was written")
    return values


def _checksum(values: Mapping[str, Any]) -> str:
    return hashlib.blake2b(json.dumps(values).encode(), digest_size=8).hexdigest()


def read_json(
    path: Path, kind: type[StreamError], advice: str, read: Callable[[bytes], dict[str, Any]] = json_object
) -> dict[str, Any]:
    """The object of a file of this machine.

    Args:
        path: of the file.
        kind: what is raised if it cannot be read.
        advice: what to do then.
        read: `json_object`, or `unsealed`.
    """
    try:
        return read(path.read_bytes())
    except (OSError, ValueError) as error:
        raise kind(f"{path}: cannot be read ({error}). {advice}") from error
