"""The folder that packing writes into: whose it is, and how it begins and ends.

A marker file stands in the folder while a set is being packed. A folder with the marker and without a manifest holds
the leftovers of a pack that was killed: ours to replace. Everything else that is in the way is the user's.
"""

from __future__ import annotations

import glob
import json
import re
from pathlib import Path
from typing import Any

from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.shards.layout import INDEX_FOLDER, MANIFEST
from s3prl_stream.shards.manifest import read_manifest, write_atomically
from s3prl_stream.shards.store import PARTIAL

LEFT_OUT = "left_out.jsonl"
"""The utterances that are not in the set, one a line, with kind, reason and message."""

_MARKER = ".packing.json"


def refuse_strangers(folder: Path) -> None:
    """Raises UsageError if the folder is no folder, or holds files that no pack has put there."""
    if not folder.exists():
        return
    if not folder.is_dir():
        raise UsageError(f"{folder} is a file. OUT is the folder of the set.")
    if (folder / MANIFEST).exists() or (folder / _MARKER).exists():
        return
    stranger = next(folder.iterdir(), None)
    if stranger is not None:
        raise UsageError(f"{folder} holds other files, such as {stranger.name}: choose a new or an empty folder.")


def find_finished(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """The manifest of the set in the folder if it is this very set and complete; None if there is no finished set.

    Raises:
        UsageError: it holds another set; the first difference is named.
        ShardError: it is this set, but a shard is missing or of another size.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        return None
    difference = _difference(manifest, identity)
    if difference is not None:
        raise UsageError(f"{folder} holds another set: {difference}. Choose another folder, or remove that one.")
    for shard in manifest["shards"]:
        path = folder / shard["name"]
        if not path.is_file() or path.stat().st_size != shard["bytes"]:
            raise ShardError(f"{path}: missing or not of {shard['bytes']} bytes. Remove {folder} and pack again.")
    return manifest


def begin(folder: Path, name: str) -> None:
    """Make the folder, remove the leftovers of a killed pack, and leave the marker."""
    folder.mkdir(parents=True, exist_ok=True)
    marker = folder / _MARKER
    if marker.exists():
        for leftover in _leftovers(folder, marker):
            leftover.unlink()
    write_atomically(marker, json.dumps({"name": name}).encode())


def end(folder: Path) -> None:
    """Take the marker away: the set is finished."""
    (folder / _MARKER).unlink()


def _leftovers(folder: Path, marker: Path) -> list[Path]:
    try:
        name = str(json.loads(marker.read_bytes())["name"])
    except (ValueError, TypeError, KeyError):
        name = ""
    # Only files of the shape that a pack writes, and only of the set that the marker names.
    shards = rf"{re.escape(name)}-\d{{6}}\.tar(\.idx|\.parquet)?"
    ours = re.compile(f"{shards}|{re.escape(LEFT_OUT)}|{re.escape(MANIFEST)}")
    parts = re.compile(r"part-\d{5}\.parquet")
    here = [path for path in folder.iterdir() if ours.fullmatch(path.name.removesuffix(PARTIAL))]
    index = [path for path in folder.glob(f"{glob.escape(INDEX_FOLDER)}/*") if parts.match(path.name)]
    return here + index


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
