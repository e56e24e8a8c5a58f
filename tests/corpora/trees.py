"""Small trees of files in the layout of a corpus."""

from __future__ import annotations

import functools
import io
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from s3prl_stream.sample import Utterance

_FORMATS = {".wav": ("WAV", None), ".flac": ("FLAC", None), ".ogg": ("OGG", "VORBIS"), ".mp3": ("MP3", None)}


def tree(root: Path, files: Mapping[str, str | bytes | float] | str) -> Path:
    """Write files below the root: path -> content, or names divided by spaces.

    A number, or an empty audio file, becomes sound: so many seconds of noise (default 0.1) that hangs on its name.
    """
    content = dict.fromkeys(files.split(), "") if isinstance(files, str) else files
    for name, what in content.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in _FORMATS and not isinstance(what, bytes):
            what = sound(path.suffix, zlib.crc32(name.encode()), seconds=float(what or 0.1))
        path.write_bytes(what if isinstance(what, bytes) else str(what).encode())
    return root


@functools.cache
def sound(suffix: str, seed: int, *, seconds: float = 0.1, sample_rate: int = 8000) -> bytes:
    """A file of noise."""
    noise = np.random.default_rng(seed).integers(-3000, 3000, round(seconds * sample_rate), dtype=np.int16)
    container, subtype = _FORMATS[suffix]
    file = io.BytesIO()
    soundfile.write(file, noise, sample_rate, format=container, subtype=subtype)
    return file.getvalue()


def listed(utterances: Any) -> dict[str, Utterance]:
    """Key -> utterance; no key may come twice."""
    found = list(utterances)
    by_key = {utterance.key: utterance for utterance in found}
    assert len(by_key) == len(found)
    return by_key


def column(utterances: Mapping[str, Utterance], name: str) -> dict[str, Any]:
    """Key -> one metadata value; None where it is not there."""
    return {key: utterance.metadata.get(name) for key, utterance in utterances.items()}
