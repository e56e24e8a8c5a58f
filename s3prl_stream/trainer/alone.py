"""One process at a time in a folder: two would write into each other's files, and both runs were lost."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.shards.store import is_remote, local_path, paths_in

LOCK = ".lock"
"""Name of the file in the folder that is locked, and stays there."""


def output_folder(out: str | Path) -> Path:
    """The folder that a run is written to.

    Raises:
        UsageError: no path; or a URL of a store, where nothing can be locked, appended to or renamed.
    """
    paths_in([out])
    if is_remote(out):
        raise UsageError(f"{out}: a run is written to a folder of this machine; mount the store, or copy the run there")
    return local_path(out)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made if there is none. Not to be nested: the inner end unlocks.

    The lock (of POSIX: it belongs to the process, not to those that it forks) ends with the process, however that ends.
    Where a file system has no locks, nobody is kept out.

    Raises:
        StateError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise StateError(
                f"{folder}: {file.read().strip() or 'another process'} works in this folder. Wait for it, end it, or "
                "give another folder."
            ) from None
        except OSError:
            pass
        file.truncate(0)
        file.write(f"process {os.getpid()} of {socket.gethostname()}")
        file.flush()
        yield
