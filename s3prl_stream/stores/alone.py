"""One at a time in a folder: two would write into each other's files, and what both make would be lost.

Packs share a folder, and in a store there are no locks: there it goes by `shards/claims.py`.
"""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.stores.store import is_remote, local_path, paths_in

LOCK = ".lock"
"""Name of the file in the folder that is locked, and stays there."""

_held: set[Path] = set()
"""By this process, to whom the system would give a lock that he has."""


def output_folder(out: str | Path) -> Path:
    """The folder that a run, a sweep or an extraction is written to.

    Raises:
        UsageError: no path, or a file; or a URL of a store, where nothing can be locked, appended to or renamed.
    """
    paths_in([out])
    if is_remote(out):
        raise UsageError(
            f"{out}: is no folder of this machine, which is needed here; mount the store, or copy it there"
        )
    folder = local_path(out)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{out}: is a file; give a folder")
    return folder


@contextmanager
def alone_in(folder: Path, *, of: str | Path | None = None) -> Iterator[None]:
    """Keep others out of a folder, which is made if there is none.

    The lock (of POSIX: it belongs to the process, not to those that it forks) ends with the process, however that ends.
    Where a file system has no locks, no other process is kept out.

    Args:
        folder: may be removed by who has it.
        of: what it is a part of, to be told to the others; None: of nothing.

    Raises:
        StateError: somebody else works there.
    """
    folder.mkdir(parents=True, exist_ok=True)
    path = folder.resolve() / LOCK
    if path in _held:
        raise refusal(of or folder, _this_process())
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            file.seek(0)
            raise refusal(of or folder, file.read().strip() or "another process") from None
        except OSError:
            pass
        if not os.fstat(file.fileno()).st_nlink:  # removed with the folder by one who had it when we opened it
            raise refusal(of or folder, "another process")
        file.truncate(0)
        file.write(_this_process())
        file.flush()
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)


def refusal(folder: str | Path, who: str) -> StateError:
    """The error for whoever finds somebody else at work."""
    return StateError(f"{folder}: {who} works in this folder. Wait for it, end it, or give another folder.")


def _this_process() -> str:
    return f"process {os.getpid()} of {socket.gethostname()}"
