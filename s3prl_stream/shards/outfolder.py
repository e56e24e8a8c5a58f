"""The folder or bucket that packing writes into: whose it is, and how it begins and ends.

A marker file stands there while a set is being packed. A folder with the marker and without a manifest holds the
leftovers of a pack that was killed: ours to replace. Everything else that is in the way is the user's.

A set for an object store is packed into a scratch folder, from which each finished file is uploaded and removed.
"""

from __future__ import annotations

import contextlib
import json
import re
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.shards.layout import INDEX_FOLDER, MANIFEST
from s3prl_stream.shards.manifest import MAX_MANIFEST_BYTES, read_manifest
from s3prl_stream.shards.store import PARTIAL, LocalStore, Store, is_remote, local_path

LEFT_OUT = "left_out.jsonl"
"""The utterances that are not in the set, one a line, with kind, reason and message."""

_MARKER = ".packing.json"

Finished = Callable[[Path], None]
"""Called with each file of the set that is complete, the manifest apart."""


def name_of_folder(out: str | Path) -> str:
    """The last part of a path or URL."""
    if not is_remote(out):
        return local_path(out).resolve().name
    parts = urlsplit(str(out))
    return parts.path.rstrip("/").rpartition("/")[2] or parts.netloc


def refuse_strangers(store: Store) -> None:
    """Raises UsageError if there is no folder to write into, or it holds files that no pack has put there."""
    if store.is_remote and urlsplit(store.url).scheme in ("http", "https"):
        raise UsageError(f"{store.url}: a web server takes no files. Give a folder or a bucket.")
    if isinstance(store, LocalStore) and store.folder.exists() and not store.folder.is_dir():
        raise UsageError(f"{store.url} is a file. OUT is the folder of the set.")
    if store.size(MANIFEST) is not None or store.size(_MARKER) is not None:
        return
    stranger = next(_names(store), None)
    if stranger is not None:
        raise UsageError(f"{store.url} holds other files, such as {stranger}: choose a new or an empty folder.")


def find_finished(store: Store, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the set that is there if it is this very set and complete; None if there is no finished set.

    Raises:
        UsageError: it is another set; the first difference is named.
        ShardError: it is this set, but a shard is missing or of another size.
    """
    manifest = read_manifest(store)
    if manifest is None:
        return None
    difference = _difference(manifest, identity)
    if difference is not None:
        raise UsageError(f"{store.url} holds another set: {difference}. Choose another folder, or remove that one.")
    for shard in manifest["shards"]:
        if store.size(shard["name"]) != shard["bytes"]:
            raise ShardError(
                f"{store.url}/{shard['name']}: missing or not of {shard['bytes']} bytes. Remove {store.url} and pack "
                "again."
            )
    return manifest


@contextlib.contextmanager
def packing_into(store: Store, name: str) -> Iterator[tuple[Path, Finished]]:
    """The folder to write shards and index into, and whom to tell of each finished file of it.

    The leftovers of a killed pack are removed, and the marker is left; `end` takes it away.
    """
    if store.size(_MARKER) is not None:
        for leftover in _leftovers(store):
            store.delete(leftover)
    store.write(_MARKER, json.dumps({"name": name}).encode())
    if isinstance(store, LocalStore):
        yield store.folder, _tell_nobody
        return
    with tempfile.TemporaryDirectory(prefix="packing-") as scratch, _Uploads(store, Path(scratch)) as uploads:
        yield Path(scratch), uploads.add
        uploads.wait()


def end(store: Store) -> None:
    """Take the marker away: the set is finished."""
    store.delete(_MARKER)


def left_out_of(store: Store) -> list[dict[str, Any]]:
    """The lines of `left_out.jsonl`."""
    content = store.read_whole(LEFT_OUT, at_most=MAX_MANIFEST_BYTES)
    return [json.loads(line) for line in content.splitlines()]


class _Uploads:
    """Uploads finished files one after the other while packing goes on, at most two shards behind it."""

    def __init__(self, store: Store, scratch: Path) -> None:
        self._store, self._scratch = store, scratch
        self._thread = ThreadPoolExecutor(1, "upload")
        self._under_way: list[Future[None]] = []

    def __enter__(self) -> _Uploads:
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(cancel_futures=True)

    def add(self, path: Path) -> None:
        """Waits for older uploads where there are many.

        Raises:
            ShardError: one of them has failed.
        """
        while len(self._under_way) > _MOST_UPLOADS:
            self._under_way.pop(0).result()
        self._under_way.append(self._thread.submit(self._upload, path))

    def wait(self) -> None:
        """Until all is uploaded."""
        while self._under_way:
            self._under_way.pop(0).result()

    def _upload(self, path: Path) -> None:
        self._store.upload(path, path.relative_to(self._scratch).as_posix())
        path.unlink()


_MOST_UPLOADS = 6  # files: a shard is three


def _tell_nobody(path: Path) -> None:
    """Files that are where they belong need nobody's care."""


def _names(store: Store) -> Iterator[str]:
    """Files, and of a local folder all that stands in it, half-written ones too."""
    if not isinstance(store, LocalStore):
        yield from (name for name, _ in store.list())
    elif store.folder.exists():
        yield from (path.name for path in store.folder.iterdir())
        index = store.folder / INDEX_FOLDER
        yield from (f"{INDEX_FOLDER}/{path.name}" for path in (index.iterdir() if index.is_dir() else ()))


def _leftovers(store: Store) -> list[str]:
    try:
        name = str(json.loads(store.read_whole(_MARKER, at_most=1 << 20))["name"])
    except (ValueError, TypeError, KeyError):
        name = ""
    # Only files of the shape that a pack writes, and only of the set that the marker names.
    shards = rf"{re.escape(name)}-\d{{6}}\.tar(\.idx|\.parquet)?"
    parts = rf"{INDEX_FOLDER}/part-\d{{5}}\.parquet"
    ours = re.compile(f"{shards}|{parts}|{re.escape(LEFT_OUT)}|{re.escape(MANIFEST)}")
    return [name for name in _names(store) if ours.fullmatch(name.removesuffix(PARTIAL))]


def _difference(manifest: dict[str, Any], identity: dict[str, Any]) -> str | None:
    if manifest.get("name") != identity["name"]:
        return f"its name is {manifest.get('name')!r}, not {identity['name']!r}"
    packing = manifest.get("packing") or {}
    for setting, value in identity["packing"].items():
        if packing.get(setting) != value:
            return f"it was packed with {setting}={packing.get(setting)!r}, not {value!r}"
    if manifest.get("corpus_hash") != identity["corpus_hash"]:
        return f"its corpus, {manifest.get('corpus')!r}, has other utterances"
    return None
