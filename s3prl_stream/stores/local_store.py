"""A set in a folder on a disk: positioned reads of files that must stay what they are; writes are seen whole."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.errors import DamagedFile, MissingFile, ShardError
from s3prl_stream.stores.kept import Kept
from s3prl_stream.stores.store import NOTHING_AHEAD, RESTORE, Ahead
from s3prl_stream.stores.whole_files import PARTIAL, again_if_it_vanishes, replacing

MAX_OPEN_FILES = 64

_NOT_THERE = {errno.ENOENT, errno.ENOTDIR, errno.ELOOP}
_LOST_BY_THE_DISK = {errno.EIO, errno.EBADMSG, getattr(errno, "EUCLEAN", errno.EIO)}


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
        self._pinned: dict[str, tuple[int, int, int]] = {}
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
        """See `Store.create`; for a moment the file may be seen empty, and a kill then leaves it so."""
        path = self.folder / name
        is_ours = True

        def create() -> None:
            nonlocal is_ours
            try:
                with path.open("xb", buffering=0) as file:
                    file.write(content)
            except FileExistsError:
                is_ours = False

        again_if_it_vanishes(create, path.parent)
        return is_ours

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
        found = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
        pinned = self._pinned.setdefault(name, found)
        if found != pinned:
            raise ShardError(
                f"{self.folder / name}: replaced since it was opened (it had {pinned[1]} bytes, has {found[1]}, "
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
