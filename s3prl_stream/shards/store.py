"""Where the files of a set lie: a folder on a disk (here), or in an object store (`object_store.py`).

A *store* is a folder of files. Names are relative paths with "/", such as "manifest.json", "index/part-00000.parquet"
or "set-000000.tar". What was read once must stay what it is: a file that is replaced under a reader is an error.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import unquote, urlsplit

from s3prl_stream.errors import DamagedFile, MissingFile, ShardError, UsageError
from s3prl_stream.shards.kept import Kept

MAX_OPEN_FILES = 64
PARTIAL = ".partial"
"""Every file is written under a name with this at its end, and renamed when it is complete."""

RESTORE = "Restore the file; `s3prl-stream verify` lists what else is damaged, `repair` writes a set without it."
"""What to do about a file of a set that is lost."""

REMOTE_SCHEMES = ("s3", "gs", "az", "abfs", "abfss", "http", "https")
_TRIES = 100
_NO_LINKS = {errno.EPERM, errno.ENOSYS, errno.EOPNOTSUPP, errno.EMLINK}
"""What disks without hard links (FAT, exFAT, many of FUSE) say to one."""

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_LOST_BY_THE_DISK = {errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)}
_SCHEME = re.compile(r"^([A-Za-z][A-Za-z0-9+.-]*)://")


_wanted: ContextVar[Callable[[], bool]] = ContextVar("wanted")


@contextlib.contextmanager
def reading_while(wanted: Callable[[], bool]) -> Iterator[None]:
    """What this thread reads inside waits for a store only as long as `wanted()`; then it ends with a StreamError.

    One inside another: as long as both say so.
    """
    outer = _wanted.get(None)
    before = _wanted.set(wanted if outer is None else lambda: wanted() and outer())
    try:
        yield
    finally:
        _wanted.reset(before)


def still_wanted() -> bool:
    """False if nobody is interested any more in what this thread reads."""
    wanted = _wanted.get(None)
    return wanted is None or wanted()


class Ahead(Protocol):
    """Reads that have begun before anybody waits for them, until it is closed."""

    def close(self) -> None:
        """Forget what was read ahead; what is still under way is given up."""


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
        return LocalStore(local_path(url))
    from s3prl_stream.shards.object_store import ObjectStore

    return ObjectStore(str(url))


def local_path(url: str | Path) -> Path:
    """A path from a path or a file:// URL."""
    return Path(unquote(urlsplit(str(url)).path)) if _SCHEME.match(str(url)) else Path(url)


class _Identity(NamedTuple):
    inode: int
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, stat: os.stat_result) -> _Identity:
        return cls(stat.st_ino, stat.st_size, stat.st_mtime_ns)


class _OpenFile:
    """A descriptor that is closed when nobody reads from it any more."""

    def __init__(self, path: Path) -> None:
        self.descriptor = os.open(path, os.O_RDONLY)
        self.stat = os.fstat(self.descriptor)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        # by a name of its own: at the end of the interpreter the module's names are gone before the last of these
        if hasattr(self, "descriptor"):
            close(self.descriptor)


class LocalStore:
    """A folder on a disk: positioned reads, with a bounded number of files open in each process.

    Args:
        folder: need not exist.
        scratch: a folder on the same disk, for files that are being written; None: beside their final names, where a
            second writer of a file would write into the half-written one of the first.
    """

    is_remote = False

    def __init__(self, folder: str | Path, scratch: Path | None = None) -> None:
        self.folder = Path(folder)
        self._scratch = scratch
        self.url = str(folder)
        self.counters: dict[str, int] = {}
        self._pinned: dict[str, _Identity] = {}
        self._open: Kept[str, _OpenFile] = Kept(MAX_OPEN_FILES)

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["folder"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"LocalStore({self.url!r})"

    def path(self, name: str) -> Path:
        """The path of a file, for a library that opens it itself.

        Raises:
            MissingFile: it is not there.
            ShardError: replaced since this store opened it first.
        """
        path = self.folder / name
        with self._explained(name):
            self._check_identity(name, path.stat())
        return path

    def size(self, name: str) -> int | None:
        return self._size(self.folder / name, name)

    def read(self, name: str, offset: int, size: int) -> bytes:
        """See `Store.read`; a file that is replaced while it is open is read to its end as it was."""
        try:
            # held while it is read: another thread may let go of it meanwhile
            file = self._open.get(name, lambda: self._opened(name))
            # no more than is there: room for what an index claims would be taken first
            return os.pread(file.descriptor, min(size, max(file.stat.st_size - offset, 0)), offset)
        except OSError as error:
            raise self._unreadable(name, error, f" at byte {offset}") from error

    def read_again(self, name: str, offset: int, size: int) -> bytes:
        return self.read(name, offset, size)

    def read_ahead(self, ranges: Sequence[tuple[str, int, int]]) -> Ahead:  # noqa: ARG002
        """Nothing: the operating system reads ahead."""
        return NOTHING_AHEAD

    def read_whole(self, name: str, *, at_most: int) -> bytes:
        path = self.folder / name
        with self._explained(name):
            found = path.stat()
            if not stat.S_ISREG(found.st_mode):  # a folder; or a pipe, which would be waited for
                raise DamagedFile(f"{path}: is no file, expected one of bytes. {RESTORE}")
            if found.st_size > at_most:
                raise DamagedFile(f"{path}: {found.st_size} bytes, expected at most {at_most}.")
            return path.read_bytes()

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        """See `Store.list`; links to folders are not followed."""
        found = []
        for folder, _, names in os.walk(self.folder, onerror=self._skip_or_raise):
            for name in names:
                path = Path(folder, name)
                relative = path.relative_to(self.folder).as_posix()
                if relative.startswith(prefix) and not name.endswith(PARTIAL):
                    size = self._size(path, relative)
                    if size is not None:
                        found.append((relative, size))
        return sorted(found)

    def _size(self, path: Path, name: str) -> int | None:
        """None: no plain file is there (any more: others may remove theirs meanwhile)."""
        try:
            found = path.stat()
        except OSError as error:
            self._skip_or_raise(error, name)
            return None
        return found.st_size if stat.S_ISREG(found.st_mode) else None

    def _skip_or_raise(self, error: OSError, name: str = "") -> None:
        if error.errno not in _NOT_THERE:
            raise self._unreadable(name, error) from error

    def write(self, name: str, content: bytes) -> None:
        """See `Store.write`: under another name, flushed to the disk, renamed."""

        def write() -> None:
            with self._being_written(name) as partial:
                partial.write_bytes(content)

        again_if_it_vanishes(write, (self.folder / name).parent)

    def create(self, name: str, content: bytes) -> bool:
        """See `Store.create`: a hard link cannot replace a file. Where there are none, the file may be seen empty."""
        path = self.folder / name
        partial = path.with_name(f"{path.name}.{secrets.token_hex(4)}{PARTIAL}")
        try:
            again_if_it_vanishes(lambda: partial.write_bytes(content), path.parent)
            path.hardlink_to(partial)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno not in _NO_LINKS:
                raise
            return _create_in_place(path, content)
        finally:
            partial.unlink(missing_ok=True)
        return True

    def upload(self, path: Path, name: str) -> None:
        """See `Store.upload`: copied, flushed to the disk, renamed."""
        with self._being_written(name) as partial:
            shutil.copyfile(path, partial)

    def link(self, path: Path, name: str) -> None:
        """A file of the same disk as a file of this store, without copying its bytes.

        Raises:
            OSError: it is of another disk, or this one knows no hard links.
        """
        with self._being_written(name) as partial:
            partial.hardlink_to(path)

    def delete(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        self._forget(name)

    @contextlib.contextmanager
    def _being_written(self, name: str) -> Iterator[Path]:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        partial = (self._scratch or path.parent) / (path.name + PARTIAL)
        partial.unlink(missing_ok=True)  # one that a kill has left may be a link to a shard of another set
        with replacing(path, partial):
            yield partial
        self._forget(name)

    def _forget(self, name: str) -> None:
        self._pinned.pop(name, None)
        self._open.forget(name)

    def _opened(self, name: str) -> _OpenFile:
        file = _OpenFile(self.folder / name)
        self._check_identity(name, file.stat)
        return file

    def _check_identity(self, name: str, stat: os.stat_result) -> None:
        found = _Identity.of(stat)
        pinned = self._pinned.setdefault(name, found)
        if found != pinned:
            raise ShardError(
                f"{self.folder / name}: replaced since it was opened (it had {pinned.size} bytes, has {found.size}, "
                "or was written again). A running stream needs the files it began with: restore them, or begin anew."
            )

    @contextlib.contextmanager
    def _explained(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise self._unreadable(name, error) from error

    def _unreadable(self, name: str, error: OSError, where: str = "") -> ShardError:
        kind = ShardError
        if isinstance(error, FileNotFoundError | NotADirectoryError):
            kind = MissingFile
        elif error.errno in _LOST_BY_THE_DISK:
            kind = DamagedFile
        return kind(f"{self.folder / name}: cannot be read{where} ({error.strerror}). {RESTORE}")


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


def _create_in_place(path: Path, content: bytes) -> bool:
    try:
        with path.open("xb") as file:
            file.write(content)
    except FileExistsError:
        return False
    return True


NOTHING_AHEAD: Ahead = contextlib.ExitStack()


def check_remote(url: str) -> None:
    """Raises UsageError if a remote URL has an unknown scheme, or no bucket or host."""
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    if scheme not in REMOTE_SCHEMES:
        known = ", ".join(REMOTE_SCHEMES)
        raise UsageError(f"{scheme}://: unknown kind of store; known are {known}, file and local paths.")
    if not parts.netloc.rpartition("@")[2]:
        raise UsageError(f"{scheme}://{parts.path}: no bucket or host is named; write {scheme}://NAME/FOLDER.")
