"""Small trees of files in the layout of a corpus."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3prl_stream.sample import Utterance


def tree(root: Path, files: Mapping[str, str | bytes] | str) -> Path:
    """Write files below the root: path -> content, or names of empty files divided by spaces."""
    content = dict.fromkeys(files.split(), "") if isinstance(files, str) else files
    for name, what in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(what if isinstance(what, bytes) else what.encode())
    return root


def listed(utterances: Any) -> dict[str, Utterance]:
    """Key -> utterance; no key may come twice."""
    found = list(utterances)
    by_key = {utterance.key: utterance for utterance in found}
    assert len(by_key) == len(found)
    return by_key


def column(utterances: Mapping[str, Utterance], name: str) -> dict[str, Any]:
    """Key -> one metadata value; None where it is not there."""
    return {key: utterance.metadata.get(name) for key, utterance in utterances.items()}
