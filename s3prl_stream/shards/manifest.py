"""`manifest.json` of a set: written last, at once, so a set without one is not finished."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from s3prl_stream import __version__
from s3prl_stream.errors import DamagedFile, MissingFile, ShardError, UsageError
from s3prl_stream.json_files import json_object
from s3prl_stream.shards.layout import (
    EXTRACT_STATE,
    FORMAT_VERSION,
    INDEXING,
    MANIFEST,
    UNFINISHED,
    WORK_FOLDER,
    part_name,
)
from s3prl_stream.stores.store import RESTORE, Store

MAX_MANIFEST_BYTES = 1 << 30
MEND_INDEX = "`s3prl-stream repair` makes it anew; of tars made elsewhere, `s3prl-stream index` does."


def library_versions() -> dict[str, str]:
    """Versions of everything that decides about the bytes of a shard."""
    import soundfile

    versions = {name: metadata.version(name) for name in ("numpy", "pyarrow", "soundfile", "soxr")}
    return {**versions, "libsndfile": soundfile.__libsndfile_version__, "s3prl_stream": __version__}


def origin_of(name: str, corpus_name: str | None, licence: str | None) -> dict[str, Any]:
    """What a manifest says of where a set is from, as its maker calls it; UsageError for what is no text."""
    for what, text in (("corpus_name", corpus_name), ("licence", licence)):
        if not isinstance(text, str | None):
            raise UsageError(f"{what} is {text!r:.200}, expected text.")
    return {"corpus": corpus_name or name, "licence": licence}


def counts_of(shards: Sequence[Mapping[str, Any]], damaged: int, skipped: Mapping[str, int]) -> dict[str, Any]:
    """What a manifest counts: samples and seconds of its shards, and the utterances that are in none of them."""
    return {
        "samples": sum(shard["samples"] for shard in shards),
        "seconds": math.fsum(shard["seconds"] for shard in shards),
        "damaged": damaged,
        "skipped": dict(skipped),
    }


def write_manifest(
    store: Store,
    about: Mapping[str, Any],
    counts: Mapping[str, Any],
    parts: Sequence[str],
    shards: Sequence[Mapping[str, Any]],
    files: Sequence[Mapping[str, Any]] = (),
) -> dict[str, Any]:
    """Write at once: a reader sees the whole manifest or none.

    Args:
        store: the set.
        about: its name, what it was made of and how.
        counts: what `counts_of` gives, and more.
        parts: of the index.
        shards: what is said of each.
        files: what is said of each extra file.

    Returns:
        The manifest.
    """
    manifest = {"format_version": FORMAT_VERSION, **about, "counts": counts, "parts": parts, "shards": shards}
    if files:
        manifest["files"] = files
    # The name of a folder that is not UTF-8 holds surrogates; as \\udcXX they are JSON again.
    content = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    store.write(MANIFEST, content.encode("utf-8", "backslashreplace"))
    return manifest


def is_unfinished(store: Store) -> bool:
    """Something that ends with a manifest has begun here; where there is none: and not ended."""
    signs = (UNFINISHED, INDEXING, f"{WORK_FOLDER}/plan.json", EXTRACT_STATE)
    return any(store.size(name) is not None for name in signs)


def read_manifest(store: Store) -> dict[str, Any]:
    """The manifest of a set, with whatever a reader looks up in it.

    Raises:
        UsageError: there is no set, or an empty one.
        ShardError: it is damaged, or of a format version that this package does not know.
    """
    try:
        manifest = _whole_manifest(store)
    except MissingFile as error:
        why = str(error).removesuffix(f". {RESTORE}") if store.is_remote else f"{MANIFEST} is missing"
        if not store.is_remote and not Path(store.url).is_dir():
            why = "there is no such folder"
        raise UsageError(f"{store.url}: no shard set here ({why}). {_how_to_get_one(store)}") from None
    if not manifest["shards"]:
        raise UsageError(f"{store.url}: the set is empty (its manifest names no shard). Pack it again.")
    return manifest


def find_manifest(store: Store) -> dict[str, Any] | None:
    """The same, which may be empty; None if there is none."""
    try:
        return _whole_manifest(store)
    except MissingFile:
        return None


def manifest_as_it_is(store: Store) -> tuple[dict[str, Any], str | None]:
    """What can be read of a manifest, and what is wrong with the file as a whole.

    Raises:
        ShardError: it is of a newer format version.
    """
    try:
        manifest = json_object(store.read_whole(MANIFEST, at_most=MAX_MANIFEST_BYTES))
    except MissingFile:
        return {}, "missing"
    except (ValueError, DamagedFile) as error:
        return {}, f"not readable ({error})"
    version = manifest.get("format_version")
    if isinstance(version, int) and version > FORMAT_VERSION:
        raise _of_version(store, version)
    return manifest, None if version == FORMAT_VERSION else f"its format version is {version!r}"


def _whole_manifest(store: Store) -> dict[str, Any]:
    content = store.read_whole(MANIFEST, at_most=MAX_MANIFEST_BYTES)
    try:
        manifest = json_object(content)
        version = manifest["format_version"]
        if version == FORMAT_VERSION:
            _check(manifest)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ShardError(f"{store.url}/{MANIFEST}: not a readable manifest ({error!r:.300}). {MEND_INDEX}") from error
    if version != FORMAT_VERSION:
        raise _of_version(store, version)
    return manifest


def _of_version(store: Store, version: Any) -> ShardError:
    return ShardError(
        f"{store.url}/{MANIFEST}: format version {version!s:.40}; this package reads version {FORMAT_VERSION}."
    )


def _how_to_get_one(store: Store) -> str:
    """What to do where there is no manifest."""
    if is_unfinished(store):
        return "It was begun and never finished: give the command that makes it again."
    if store.size(part_name(0)) is not None:
        return f"The index of one is there, its manifest is lost: {MEND_INDEX}"
    return "Make one with `s3prl-stream pack`, or of tars made elsewhere with `s3prl-stream index`."


def _check(manifest: dict[str, Any]) -> None:
    """Look up whatever is read of a manifest: KeyError or TypeError where it is not there."""
    for name in (manifest["name"], *(shard["name"] for shard in manifest["shards"])):
        if not isinstance(name, str):
            raise ValueError(f"the name {name!r:.100} is no text")
        if "\0" in name or any("\ud800" <= character <= "\udfff" for character in name):  # which JSON can hold
            raise ValueError(f"the name {name!r:.100} cannot be that of a file")
    for field, kind in (("packing", dict), ("parts", list)):
        if not isinstance(manifest.get(field) or kind(), kind):
            raise ValueError(f"{field} is {manifest[field]!r:.100}")
    indexed = manifest.get("indexed", {})
    if not isinstance(indexed, dict) or not isinstance(indexed.get("from_table", []), list):
        raise ValueError(f"indexed is {indexed!r:.100}")
    if b"\0" in os.fsencode(str(indexed.get("tars"))):
        raise ValueError(f"the folder of the tars is {indexed['tars']!r:.100}")
    for shard in manifest["shards"]:
        if shard["name"].startswith("/") or ".." in shard["name"].split("/"):
            raise ValueError(f"the shard name {shard['name']!r:.100} leads out of the set")
        for field in ("samples", "bytes"):
            if not 0 <= int(shard[field]) < 1 << 62:
                raise ValueError(f"{field} of {shard['name']} is {shard[field]!r:.100}")
        float(shard["seconds"]), f"{shard['sha256']} {shard.get('rows_hash')} {shard.get('table_hash')}".encode()
