"""Scratch folders: what is half written lies there, and becomes a file of a set at once.

Those of a pack are one a process, because packs share a set (`claims.py`). What else writes one is alone in it.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from s3prl_stream.shards.claims import Claims, is_known_dead, new_owner, process_of
from s3prl_stream.shards.layout import WORK_FOLDER
from s3prl_stream.stores.alone import LOCK, alone_in, refusal
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stores.store import Store
from s3prl_stream.stores.whole_files import again_if_it_vanishes

SCRATCH = "scratch-"
"""How the scratch folders of packs begin that lie in the work folder of a set."""

_TEMPORARY = "packing-"
_PIECE_BYTES = 64 << 20


@contextlib.contextmanager
def scratch_folder(store: Store, owner: str, *, inside: bool = True) -> Iterator[Path]:
    """A folder for half-written files: in the set's own where that is on a disk, so that they can be renamed.

    Those that were killed on this machine have left are removed.

    Args:
        store: the set.
        owner: whose.
        inside: False: in the system's temporary folder whatever the store, for a set that is finished.
    """
    base, prefix = Path(tempfile.gettempdir()), _TEMPORARY
    if inside and isinstance(store, LocalStore):
        base, prefix = store.folder / WORK_FOLDER, SCRATCH
    remove_scratch_of_the_dead(base, prefix)
    folder = base / f"{prefix}{owner}"
    again_if_it_vanishes(lambda: folder.mkdir(mode=0o700), base)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_scratch_of_the_dead(base: Path, prefix: str = SCRATCH) -> None:
    """Folders whose names begin like this, of processes of this machine that are no more."""
    with contextlib.suppress(FileNotFoundError):  # another pack may take the empty folder away meanwhile
        for old in base.glob(f"{prefix}*"):
            if is_known_dead(old.name.removeprefix(prefix)):
                shutil.rmtree(old, ignore_errors=True)


@contextlib.contextmanager
def scratch_of_one(out: Store, name: str) -> Iterator[Path]:
    """An empty folder for what is half written; who has it is alone in `out` with what is made by this name.

    On a disk it is `out/name`, and locked. In a store its owner claims it below that name, and shows that he lives; the
    folder is a temporary one of his machine. What a kill leaves is removed when it is wanted again; that of another
    machine when it has shown no life for as long as a lease.

    Raises:
        StateError: somebody else works there.
        OSError: it cannot be made.
    """
    if not isinstance(out, LocalStore):
        owner = new_owner()
        with scratch_folder(out, owner) as folder, Claims(out.url, owner, name) as claims:
            other = claims.take_from_the_dead("all")
            if other is not None:
                raise refusal(out.url, process_of(other))
            yield folder
        return
    folder = out.folder / name
    with alone_in(folder, of=out.url):
        try:
            for left in folder.iterdir():
                if left.is_dir():
                    shutil.rmtree(left)
                elif left.name != LOCK:
                    left.unlink()
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def writing_in(scratch: Path, store: Store) -> Store:
    """The same store for one of several who may write the same files: a store on a disk writes them in `scratch`."""
    return LocalStore(store.folder, scratch) if isinstance(store, LocalStore) else store


def publish(path: Path, store: Store, name: str) -> None:
    """A scratch file becomes a file of the set: renamed on a disk, uploaded to a store.

    What several packs may write at once goes this way, or by `writing_in`.
    """
    if isinstance(store, LocalStore):
        target = store.folder / name
        again_if_it_vanishes(lambda: path.replace(target), target.parent)
    else:
        store.upload(path, name)
        path.unlink()


def download(store: Store, name: str, path: Path) -> None:
    """A file of a store as a local one, a piece at a time."""
    position, size = 0, store.size(name) or 0
    with path.open("wb") as file:
        while position < size:
            position += file.write(store.read(name, position, min(_PIECE_BYTES, size - position)))
