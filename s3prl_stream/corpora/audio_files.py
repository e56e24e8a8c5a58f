"""Audio files below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from s3prl_stream.errors import UsageError

# fmt: off
AUDIO_SUFFIXES = (".aac", ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mp3", ".oga", ".ogg", ".opus",
                  ".sph", ".w64", ".wav", ".wma")
# fmt: on
"""What counts as audio. Formats that cannot be read are listed too, so that packing reports them."""


def audio_below(root: Path) -> Iterator[str]:
    """Paths of audio files below the root, sorted, with slashes. Names that begin with a dot are left out.

    Raises:
        UsageError: a link that leads back to a folder it lies in.
    """
    yield from _below(root, "", ())


def audio_by_stem(folder: Path, where: str) -> dict[str, Path]:
    """Name without suffix -> path, of the audio files that lie in a folder.

    Raises:
        UsageError: two of them differ in their suffix only.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() not in AUDIO_SUFFIXES or path.name.startswith("."):
            continue
        if path.stem in found:
            raise UsageError(f"{where}: {found[path.stem].name} and {path.name} have one name. Remove one of them.")
        found[path.stem] = path
    return found


def _below(root: Path, inside: str, above: tuple[str, ...]) -> Iterator[str]:
    here = os.path.realpath(root / inside)
    if here in above:
        raise UsageError(f"{root / inside}: a link leads back to a folder it lies in. Remove the link.")
    for entry in sorted(os.scandir(root / inside), key=lambda entry: entry.name):
        if entry.name.startswith("."):
            continue
        path = f"{inside}{entry.name}"
        if entry.is_dir():
            yield from _below(root, f"{path}/", (*above, here))
        elif PurePosixPath(entry.name).suffix.lower() in AUDIO_SUFFIXES:
            yield path
