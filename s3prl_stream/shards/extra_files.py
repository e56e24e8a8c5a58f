"""Small files that go with a set: trial lists, query lists, references for scoring.

They lie in the folder `files` of the set, and its manifest lists them with size and SHA-256. A corpus brings them as an
attribute `files` (name -> bytes).
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from s3prl_stream.errors import MissingFile, ShardError, UsageError
from s3prl_stream.shards.layout import EXTRA_FOLDER, MANIFEST
from s3prl_stream.stores.store import Store

_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,99}")
_MOST_BYTES = 1 << 30


def files_of(corpus: object) -> dict[str, bytes]:
    """The extra files that a corpus brings: none without an attribute `files`.

    Raises:
        UsageError: a name that is no plain file name.
    """
    files = dict(sorted(getattr(corpus, "files", {}).items()))
    for name in files:
        if not _NAME.fullmatch(name):
            raise UsageError(f"extra file {name!r}: a name has letters, digits, dots, - and _ only.")
    return files


def files_there(store: Store, names: Iterable[str]) -> dict[str, bytes]:
    """The extra files among these files of a set, as they are now."""
    inside = sorted(name.removeprefix(f"{EXTRA_FOLDER}/") for name in names if name.startswith(f"{EXTRA_FOLDER}/"))
    return {name: _read(store, f"{EXTRA_FOLDER}/{name}") for name in inside if _NAME.fullmatch(name)}


def entries_of(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """What a manifest says of extra files."""
    return [
        {"name": f"{EXTRA_FOLDER}/{name}", "bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        for name, content in files.items()
    ]


def read_extra_file(store: Store, manifest: Mapping[str, Any], name: str) -> bytes:
    """The content of one of a set's extra files, by its name without folder.

    Raises:
        UsageError: the set has no such file.
        ShardError: it is missing, or not as it was packed.
    """
    entries = {entry["name"].partition("/")[2]: entry for entry in _entries(manifest) if _is_sound(entry)}
    if name not in entries:
        raise UsageError(f"{store.url}: no extra file {name!r}. The set has: {', '.join(entries) or 'none'}.")
    content = _read(store, entries[name]["name"])
    if hashlib.sha256(content).hexdigest() != entries[name]["sha256"]:
        raise ShardError(f"{store.url}/{entries[name]['name']}: not the file that was packed (SHA-256 differs).")
    return content


def problems_with(store: Store, manifest: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """(file, message) of each extra file that is missing or damaged, or whose entry in the manifest is."""
    for entry in _entries(manifest):
        if not _is_sound(entry):
            yield MANIFEST, f"{entry!r:.200} is no entry of an extra file"
            continue
        try:
            read_extra_file(store, manifest, entry["name"].partition("/")[2])
        except (MissingFile, ShardError) as error:
            yield entry["name"], str(error)


def copy_extra_files(store: Store, out: Store, manifest: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """Copy those that are sound: what the manifest of the copy says of them, and the others' names."""
    lost = {name for name, _ in problems_with(store, manifest)}
    kept = [entry for entry in _entries(manifest) if _is_sound(entry) and entry["name"] not in lost]
    for entry in kept:
        out.write(entry["name"], _read(store, entry["name"]))
    return kept, sorted(lost - {MANIFEST})


def _read(store: Store, name: str) -> bytes:
    return store.read_whole(name, at_most=_MOST_BYTES)


def _entries(manifest: Mapping[str, Any]) -> list[Any]:
    files = manifest.get("files", [])
    return files if isinstance(files, list) else [files]


def _is_sound(entry: Any) -> bool:
    """It names a file of the folder `files`, and nothing outside of it."""
    if not isinstance(entry, dict) or not all(isinstance(entry.get(field), str) for field in ("name", "sha256")):
        return False
    folder, _, name = entry["name"].partition("/")
    return folder == EXTRA_FOLDER and _NAME.fullmatch(name) is not None
