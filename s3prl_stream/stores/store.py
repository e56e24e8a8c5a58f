"""Where the files of a set lie: a folder on a disk (`local_store.py`) or in an object store (`object_store.py`).

A *store* is a folder of files. Names are relative paths with "/", such as "manifest.json", "index/part-00000.parquet"
or "set-000000.tar". What was read once must stay what it is: a file that is replaced under a reader is an error.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from s3prl_stream.errors import UsageError

RESTORE = "Restore the file; `s3prl-stream verify` lists what else is damaged, `repair` writes a set without it."
"""What to do about a file of a set that is lost."""

REMOTE_SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "http", "https")

_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


class Ahead(Protocol):
    """Reads that have begun before anybody waits for them, until it is closed."""

    def close(self) -> None:
        """Forget what was read ahead; what is still under way is given up."""


NOTHING_AHEAD: Ahead = contextlib.ExitStack()


class Store(Protocol):
    """A folder of files. Pickles without open connections; safe from several threads."""

    url: str
    """For messages: never with a user's name, a password or a query string."""
    is_remote: bool
    counters: dict[str, int]
    """Of this process: "requests", "bytes", "retries" and "rereads". A local folder counts nothing."""

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none of this name."""

    def read(self, name: str, offset: int, size: int) -> bytes:
        """`size` bytes at `offset`, fewer where the file ends.

        Raises:
            MissingFile: it is not there.
            DamagedFile: the disk cannot read them.
            ShardError: unreadable, or replaced since this store read it first.
        """

    def read_again(self, name: str, offset: int, size: int) -> bytes:
        """The same bytes from their source, whatever was read ahead; counted as a reread."""

    def read_ahead(self, ranges: Sequence[tuple[str, int, int]]) -> Ahead:
        """Begin to read (name, offset, size) of each: a `read` inside one of them, before it is closed, waits for it.

        Never raises for a file: its `read` does. A local folder leaves this to the operating system.
        """

    def read_whole(self, name: str, *, at_most: int) -> bytes:
        """All of a file of `at_most` bytes.

        Raises:
            MissingFile: it is not there.
            DamagedFile: larger, no plain file, or the disk cannot read it.
            ShardError: unreadable.
        """

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        """(name, bytes) of every file whose name begins with `prefix`, by name; half-written ones are left out.

        Raises:
            UsageError: a web server, which has no listing.
        """

    def write(self, name: str, content: bytes) -> None:
        """A whole file at once: a reader sees all of it or none."""

    def create(self, name: str, content: bytes) -> bool:
        """`write`, unless there is a file of this name; of several that try, one gets True.

        A store that has no such request writes in any case.
        """

    def upload(self, path: Path, name: str) -> None:
        """A local file as a file of this store, at once as `write`."""

    def delete(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""


def is_remote(url: str | Path) -> bool:
    """True of a URL of an object store or a web server; False of a local path and of file://.

    Raises:
        UsageError: it begins like a URL and is none.
    """
    match = _SCHEME.match(str(url))
    if match is None:
        return False
    try:
        urlsplit(str(url))
    except ValueError as error:  # without the URL, which may hold a password
        raise UsageError(f"{match[1]}://...: not a URL ({error}); write {match[1]}://NAME/FOLDER.") from None
    return match[1].lower() != "file"


def paths_in(given: Any) -> list[str | Path]:
    """A path or URL, or several of them, as a list.

    Raises:
        UsageError: something else.
    """
    several: list[Any] = (
        [given] if isinstance(given, str | bytes | os.PathLike) or not isinstance(given, Iterable) else list(given)
    )
    for one in several:
        if not isinstance(one, str | os.PathLike):
            raise UsageError(f"{one!r:.200} is no path and no URL; give one as text or as a pathlib.Path.")
    return several


def open_store(url: str | Path) -> Store:
    """The folder at a local path, or at s3://BUCKET/FOLDER, gs://, az://, abfss://, http(s)://HOST/FOLDER, file:///FOLDER.

    Nothing is read yet.

    Raises:
        UsageError: a scheme that is none of these, or a URL without a bucket; or no path at all.
    """
    paths_in([url])
    if not is_remote(url):
        from s3prl_stream.stores.local_store import LocalStore

        return LocalStore(local_path(url))
    from s3prl_stream.stores.object_store import ObjectStore

    return ObjectStore(str(url))


def local_path(url: str | Path) -> Path:
    """A path from a path or a file:// URL."""
    return Path(unquote(urlsplit(str(url)).path)) if _SCHEME.match(str(url)) else Path(url)


def check_remote(url: str) -> None:
    """Raises UsageError if a remote URL has an unknown scheme, or no bucket or host."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in REMOTE_SCHEMES:
        known = ", ".join(REMOTE_SCHEMES)
        raise UsageError(f"{scheme}://: unknown kind of store; known are {known}, file and local paths.")
    if not parts.netloc.rpartition("@")[2]:
        raise UsageError(f"{scheme}://{parts.path}: no bucket or host is named; write {scheme}://NAME/FOLDER.")
