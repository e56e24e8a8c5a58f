"""Folders of tars as Energon, Lhotse and NeMo lay them out: which tars belong to the set, and what lies beside them.

Energon: `.nv-meta/.info.json` (or `.info.yaml`) names the tars, `.nv-meta/split.yaml` their splits. Lhotse Shar: the
tars `recording.000000.tar` with the cuts `cuts.000000.jsonl.gz`. NeMo: `audio_0.tar` with `tarred_audio_manifest.json`
or `sharded_manifests/manifest_0.json`. Anything else is a folder of plain WebDataset tars.
"""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from s3prl_stream.errors import UsageError
from s3prl_stream.json_files import json_object
from s3prl_stream.stores.braces import MAX_NAMES, expand_braces
from s3prl_stream.stores.store import Store, is_remote, local_path, open_store

MAX_BYTES = 64 << 20
"""Of a file of `.nv-meta`."""

_NV_META = ".nv-meta"
_INFO = (f"{_NV_META}/.info.json", f"{_NV_META}/.info.yaml")
_SPLITS = f"{_NV_META}/split.yaml"
_CUTS = re.compile(r"cuts(\.\d+)?\.jsonl(\.gz)?")
_FIELD = re.compile(r"([^./]+)(\.\d+)?\.(tar|jsonl|jsonl\.gz)")
_NEMO_TABLE = "tarred_audio_manifest.json"
_NEMO_TABLES = re.compile(r"sharded_manifests/manifest[^/]*\.json")


class Layout(NamedTuple):
    """What is known of a folder."""

    maker: str
    """"Energon", "Lhotse Shar" or "NeMo"."""
    base: str
    """URL or path of the folder."""
    tars: list[str]
    """Names in it."""
    tables: list[str]
    """Paths or URLs of the tables of its samples."""
    splits: dict[str, str]
    """Tar -> name of its split."""
    not_read: list[str]
    """Files of the set that hold no audio."""
    last_dot: bool = False
    """Keys end at the last dot of a name, not at its first."""


def find_layout(folder: str | Path) -> Layout | None:
    """The layout of a folder; None: none that is known, or no folder, or one on a web server, which lists nothing.

    Raises:
        UsageError: a layout that cannot be indexed: features without recordings, splits that are no such thing.
    """
    text = str(folder)
    if text.startswith(("http://", "https://")) or text.endswith(".tar"):
        return None
    if not is_remote(text) and not local_path(text).is_dir():
        return None
    base = text.rstrip("/") if is_remote(text) else str(local_path(text).absolute())
    store = open_store(base)
    names = _listed(store, base)
    for find in (_energon, _lhotse_shar, _nemo):
        layout = find(store, base, names)
        if layout is not None:
            return layout
    return None


def _listed(store: Store, base: str) -> set[str]:
    """Names in the folder and in its folders of metadata."""
    if store.is_remote:
        return {name for name, _ in store.list()}
    folder = local_path(base)
    names = set(os.listdir(folder))
    for inner in (_NV_META, "sharded_manifests"):
        if (folder / inner).is_dir():
            names |= {f"{inner}/{name}" for name in os.listdir(folder / inner)}
    return names


def _energon(store: Store, base: str, names: set[str]) -> Layout | None:
    info = next((name for name in _INFO if name in names), None)
    if info is None:
        return None
    counts = _parsed(store, info).get("shard_counts")
    if not isinstance(counts, Mapping) or not counts:
        raise UsageError(f"{store.url}/{info}: no shard_counts in it. Run `energon prepare` again.")
    outside = next((tar for tar in counts if not _is_inside(tar)), None)
    if outside is not None:  # files are written beside the tars that are named here
        raise UsageError(f"{store.url}/{info}: {outside!a:.100} is no name of a tar in the folder.")
    split = _parsed(store, _SPLITS) if _SPLITS in names else {}
    excluded = set(_names(split.get("exclude"), store))
    inside = sorted(name for name in excluded if name not in counts)
    if inside:
        raise UsageError(
            f"{store.url}/{_SPLITS}: excludes {inside[0]}, which is no tar of the set. Single samples are left out by "
            "the loader (`exclude`): name the tars with a star in place of the folder, and give the keys there."
        )
    parts = split.get("split_parts") or {}
    if not isinstance(parts, Mapping):
        raise UsageError(f"{store.url}/{_SPLITS}: split_parts is no mapping of splits to tars.")
    splits = {tar: str(name) for name, tars in parts.items() for tar in _names(tars, store)}
    return Layout("Energon", base, [str(tar) for tar in counts if tar not in excluded], [], splits, [])


def _lhotse_shar(store: Store, base: str, names: set[str]) -> Layout | None:
    cuts = sorted(name for name in names if _CUTS.fullmatch(name))
    fields = {name: match[1] for name in sorted(names) if (match := _FIELD.fullmatch(name))}
    tars = [name for name in fields if name.endswith(".tar")]
    if not cuts or not tars:
        return None
    recordings = [name for name in tars if fields[name] == "recording"]
    if not recordings:
        raise UsageError(
            f"{store.url}: a Lhotse Shar of {', '.join(sorted({fields[tar] for tar in tars}))}, without recordings. "
            "Only audio is streamed: write the recordings too, or name the tars of another field that holds audio."
        )
    not_read = [name for name in fields if name not in cuts and name not in recordings]
    return Layout("Lhotse Shar", base, recordings, [f"{base}/{name}" for name in cuts], {}, not_read, last_dot=True)


def _nemo(_store: Store, base: str, names: set[str]) -> Layout | None:
    tars = sorted(name for name in names if name.endswith(".tar") and "/" not in name)
    tables = [_NEMO_TABLE] if _NEMO_TABLE in names else sorted(filter(_NEMO_TABLES.fullmatch, names))
    if not tars or not tables:
        return None
    return Layout("NeMo", base, tars, [f"{base}/{name}" for name in tables], {}, [])


def _is_inside(tar: object) -> bool:
    """True of the name of a tar in the folder or in one below it."""
    return isinstance(tar, str) and not tar.startswith("/") and "\\" not in tar and ".." not in tar.split("/")


def _parsed(store: Store, name: str) -> dict[str, Any]:
    content = store.read_whole(name, at_most=MAX_BYTES)
    if name.endswith(".json"):
        try:
            return json_object(content)
        except ValueError as error:
            raise UsageError(f"{store.url}/{name}: {error}.") from None
    import yaml

    try:
        values = yaml.safe_load(content)
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, or a date that is none
        raise UsageError(f"{store.url}/{name}: not YAML: {' '.join(str(error).split())[:200]}.") from None
    if not isinstance(values, dict):
        raise UsageError(f"{store.url}/{name}: holds a {type(values).__name__}, expected a mapping.")
    return values


def _names(patterns: Any, store: Store) -> Iterable[str]:
    if patterns is None:
        return []
    if not isinstance(patterns, list) or not all(isinstance(one, str) for one in patterns):
        raise UsageError(f"{store.url}/{_SPLITS}: expected lists of names of tars.")
    names = (name for pattern in patterns for name in expand_braces(pattern))
    found = list(itertools.islice(names, MAX_NAMES + 1))
    if len(found) > MAX_NAMES:
        raise UsageError(f"{store.url}/{_SPLITS}: a list stands for more than {MAX_NAMES} names.")
    return found
