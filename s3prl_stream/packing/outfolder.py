"""The folder or bucket that packing writes into: whose it is, and whether the very set is there already.

A folder with a work folder and without a manifest holds a pack that was not finished: ours to go on with. Everything
else that is in the way is the user's.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.packing.settings import default_of
from s3prl_stream.shards.layout import LEFT_OUT, MANIFEST, WORK_FOLDER, offsets_name, part_name, rows_name
from s3prl_stream.shards.left_out import LeftOut, read_left_out
from s3prl_stream.shards.manifest import find_manifest
from s3prl_stream.shards.new_set import refuse_no_folder
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stores.store import Store, is_remote, local_path

_MEND = "`s3prl-stream repair` writes the set with a new one."


def name_of_folder(out: str | Path) -> str:
    """The last part of a path or URL."""
    if not is_remote(out):
        return os.path.basename(os.path.realpath(local_path(out)))
    parts = urlsplit(str(out))
    return parts.path.rstrip("/").rpartition("/")[2] or parts.netloc


def refuse_strangers(store: Store) -> None:
    """Raises UsageError if there is no folder to write into, or it holds files that no pack has put there."""
    refuse_no_folder(store)
    if store.size(MANIFEST) is not None:
        return
    if isinstance(store, LocalStore):  # half-written ones, too
        names = [path.name for path in store.folder.iterdir()] if store.folder.exists() else []
    else:
        names = [name for name, _ in store.list()]
    stranger = None if any(name.split("/")[0] == WORK_FOLDER for name in names) else next(iter(names), None)
    if stranger is not None:
        if store.size(part_name(0)) is not None:
            raise UsageError(
                f"{store.url} holds a set whose {MANIFEST} is lost: `s3prl-stream repair` writes it with a new one. Or "
                "choose a new or an empty folder."
            )
        raise UsageError(f"{store.url} holds other files, such as {stranger}: choose a new or an empty folder.")


def find_finished(store: Store, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the set that is there if it is this very set and complete; None if there is no finished set.

    Raises:
        UsageError: it is another set; the first difference is named.
        ShardError: it is this set, but a shard is missing or of another size.
    """
    manifest = find_manifest(store)
    if manifest is None:
        return None
    how = difference(manifest, identity)
    if how is not None:
        raise UsageError(f"{store.url} holds another set: {how}. Choose another folder, or remove that one.")
    there = dict(store.list())
    for shard in manifest["shards"]:
        found = there.get(shard["name"])
        if found != shard["bytes"]:
            what = "not there" if found is None else f"{found} bytes"
            raise ShardError(
                f"{store.url}/{shard['name']}: {what}, {shard['bytes']} bytes were packed. `s3prl-stream repair` "
                f"writes the set without what is lost; or remove {store.url} and pack again."
            )
    index = [name for shard in manifest["shards"] for name in (offsets_name(shard["name"]), rows_name(shard["name"]))]
    lost = next((name for name in [*(manifest.get("parts") or []), *index, LEFT_OUT] if name not in there), None)
    if lost is not None:
        raise ShardError(f"{store.url}/{lost}: not there, though the set was finished. {_MEND}")
    return manifest


def whole_left_out(store: Store) -> list[LeftOut]:
    """The lines of `left_out.jsonl`; ShardError if one is damaged."""
    lines, problem = read_left_out(store)
    if problem is not None:
        raise ShardError(f"{store.url}/{LEFT_OUT}: {problem}. {_MEND}")
    return lines


def difference(manifest: dict[str, Any], identity: dict[str, Any]) -> str | None:
    """Why a manifest or a plan is of another set than the one with this identity; None: it is of this one."""
    if manifest.get("name") != identity["name"]:
        return f"its name is {manifest.get('name')!r}, not {identity['name']!r} (name=, --name)"
    packing = manifest.get("packing") or {}
    for setting, value in identity["packing"].items():
        found = packing.get(setting, default_of(setting))
        if found != value:
            return f"it was packed with {setting}={found!r}, not {value!r}"
    if manifest.get("corpus_hash") != identity["corpus_hash"]:
        return f"its corpus, {manifest.get('corpus')!r}, has other utterances, or files of another size"
    return None
