"""The folder or bucket that a set made from another one is written into, by `repair` or `subset`.

While it is written there is a marker in it, which says whose files these are. A kill leaves the marker, and the next
call begins anew.
"""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from s3prl_stream.errors import MissingFile, StreamError, UsageError
from s3prl_stream.shards.claims import is_known_alive, new_owner
from s3prl_stream.shards.layout import EXTRA_FOLDER, INDEX_FOLDER, LEFT_OUT, MANIFEST, UNFINISHED
from s3prl_stream.shards.manifest import MAX_MANIFEST_BYTES
from s3prl_stream.shards.outfolder import refuse_odd_path
from s3prl_stream.shards.store import PARTIAL, LocalStore, Store, explaining_writes
from s3prl_stream.shards.workfolder import scratch_folder

_SCRATCH = ".repairing-"
_ended: set[str] = set()
"""Owners that were calls of this process: one that ended with an error leaves its marker, and may be made again."""


@contextlib.contextmanager
def begun(out: Store, name: str) -> Iterator[Path]:
    """A scratch folder; while it is there, a marker says that the set is not finished.

    Raises:
        UsageError: `out` holds something that no killed call has left there, or another process writes there.
        ShardError: it cannot be written, by what is done inside, too.
    """
    ours = re.compile(
        rf"{re.escape(name)}-\d+\.tar(\.idx|\.parquet)?|{INDEX_FOLDER}/part-\d+\.parquet|{re.escape(LEFT_OUT)}"
        rf"|{EXTRA_FOLDER}/[^/]+|{re.escape(UNFINISHED)}|{re.escape(_SCRATCH)}[^/]*/.*"
    )
    refuse_odd_path(out)
    if out.url.startswith(("http://", "https://")):
        raise UsageError(f"{out.url}: a web server takes no files. Give another OUT.")
    there = [file for file, _ in out.list()]
    if MANIFEST in there:
        if UNFINISHED in there:  # of one that was killed after its last file
            with contextlib.suppress(StreamError, OSError):  # a set of which one may only read
                _remove_scratch(out, ours)
                out.delete(UNFINISHED)
        raise UsageError(f"{out.url} holds a set: choose a new or an empty folder.")
    for file in there:
        if UNFINISHED not in there or not ours.fullmatch(file):
            raise UsageError(f"{out.url} holds other files, such as {file}: choose a new or an empty folder.")
    before, owner = _owner_of(out), new_owner()
    if is_known_alive(before) and before not in _ended:
        raise UsageError(f"{out.url}: another process is writing a set there. Wait for it, or choose another folder.")
    with explaining_writes(out.url, again="give the same command again"), contextlib.ExitStack() as at_end:
        at_end.callback(_ended.add, owner)
        out.write(UNFINISHED, json.dumps({"name": name, "owner": owner}).encode())
        _remove_scratch(out, ours)
        for file in there:
            if file != UNFINISHED:
                out.delete(file)
        with _scratch(out, owner) as scratch:
            yield Path(scratch)
        out.delete(UNFINISHED)


def _scratch(out: Store, owner: str) -> AbstractContextManager[str | Path]:
    if isinstance(out, LocalStore):
        return tempfile.TemporaryDirectory(prefix=_SCRATCH, dir=out.folder)
    return scratch_folder(out, owner, inside=False)


def _owner_of(out: Store) -> str:
    """Who writes a set there, or did until a kill; empty: nobody, or it cannot be told."""
    try:
        return str(json.loads(out.read_whole(UNFINISHED, at_most=MAX_MANIFEST_BYTES))["owner"])
    except (MissingFile, ValueError, LookupError, TypeError):
        return ""


def _remove_scratch(out: Store, ours: re.Pattern[str]) -> None:
    """What was half written at a kill, on a disk; a list leaves that out."""
    if isinstance(out, LocalStore):
        for folder in out.folder.glob(f"{_SCRATCH}*"):
            shutil.rmtree(folder)
        for file in out.folder.rglob(f"*{PARTIAL}"):
            if ours.fullmatch(file.relative_to(out.folder).as_posix().removesuffix(PARTIAL)):
                file.unlink()
