"""The folder or bucket that a set made from another one is written into, by `repair` or `subset`.

While it is written there is a marker in it, which says whose files these are. A kill leaves the marker, and the next
call begins anew.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from s3prl_stream.errors import StateError, StreamError, UsageError
from s3prl_stream.shards.layout import EXTRA_FOLDER, INDEX_FOLDER, LEFT_OUT, MANIFEST, UNFINISHED
from s3prl_stream.shards.scratch import scratch_of_one, writing_in
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stores.store import Store
from s3prl_stream.stores.whole_files import explaining_writes

_SCRATCH = ".repairing"


def refuse_no_folder(store: Store) -> None:
    """Raises UsageError if no set can be written there, or Arrow could not open it."""
    if store.url != store.url.encode("utf-8", "replace").decode():
        raise UsageError(f"{store.url!r}: a set cannot lie in a folder whose name is not UTF-8. Choose another OUT.")
    if store.url.startswith(("http://", "https://")):
        raise UsageError(f"{store.url}: a web server takes no files. Give a folder or a bucket.")
    if isinstance(store, LocalStore) and store.folder.exists() and not store.folder.is_dir():
        raise UsageError(f"{store.url} is a file. OUT is the folder of the set.")


@contextlib.contextmanager
def begun(out: Store, name: str) -> Iterator[tuple[Store, Path]]:
    """The store to write to, and a scratch folder; until the end a marker says that the set is not finished.

    Raises:
        UsageError: `out` holds something that no killed call has left there.
        StateError: another call writes there.
        ShardError: it cannot be written, by what is done inside, too.
    """
    ours = re.compile(
        rf"{re.escape(name)}-\d+\.tar(\.idx|\.parquet)?|{INDEX_FOLDER}/part-\d+\.parquet|{re.escape(LEFT_OUT)}"
        rf"|{EXTRA_FOLDER}/[^/]+|{re.escape(UNFINISHED)}"
    )
    refuse_no_folder(out)
    _left_by_a_kill(out, ours)
    with explaining_writes(out.url, again="give the same command again"):
        with scratch_of_one(out, _SCRATCH) as scratch:
            left = _left_by_a_kill(out, ours)  # now that nobody else writes there
            new = writing_in(scratch, out)
            new.write(UNFINISHED, json.dumps({"name": name}).encode())
            for file in left:
                if file != UNFINISHED:
                    new.delete(file)
            yield new, scratch
        new.delete(UNFINISHED)


def _left_by_a_kill(out: Store, ours: re.Pattern[str]) -> list[str]:
    """Names of files; half-written ones are in the scratch folder.

    Raises:
        UsageError: something else is there.
    """
    there = [file for file, _ in out.list() if not file.startswith(f"{_SCRATCH}/")]
    if MANIFEST in there:
        if UNFINISHED in there:  # of one that was killed after its last file, or is about to end
            with contextlib.suppress(StateError, StreamError, OSError), scratch_of_one(out, _SCRATCH):
                out.delete(UNFINISHED)
        raise UsageError(f"{out.url} holds a set: choose a new or an empty folder.")
    for file in there:
        if UNFINISHED not in there or not ours.fullmatch(file):
            raise UsageError(f"{out.url} holds other files, such as {file}: choose a new or an empty folder.")
    return there
