"""Files on a disk that are there whole or not at all, whatever ends the process that writes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from s3prl_stream.errors import ShardError

PARTIAL = ".partial"
"""Every file is written under a name with this at its end, and renamed when it is complete."""

_TRIES = 100


@contextlib.contextmanager
def replacing(path: Path, unfinished: Path) -> Iterator[None]:
    """A file is written under another name, synced to disk and renamed: a reader sees the old one or the new one.

    What there is of one that cannot be written is deleted.
    """
    try:
        yield
        sync(unfinished)
        unfinished.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):  # it may be what has failed
            unfinished.unlink(missing_ok=True)
        raise


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk: renamed before that, a file may be empty after a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def again_if_it_vanishes(write: Callable[[], object], folder: Path) -> None:
    """Write something into a folder that is made for it, and that another pack may remove as long as it is empty.

    Raises:
        OSError: time after time.
    """
    for tries_left in reversed(range(_TRIES)):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write()
            break
        except (FileNotFoundError, FileExistsError):  # the latter from mkdir, where it vanishes in between
            if not tries_left:
                raise


@contextlib.contextmanager
def explaining_writes(
    url: str, *, again: str = "the same command goes on after the shards that are finished"
) -> Iterator[None]:
    """What the system says when a set cannot be written, as a ShardError that tells what to do: mend that, and then?"""
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise ShardError(
            f"{url}: cannot be written: {error.strerror or error}{where}. When that is mended, {again}."
        ) from error
