"""`extract`: the hidden states of an upstream as a set of shards, with the keys, labels and texts of the audio's.

The new set is a set like any other: its index counts frames in the place of samples (`sample_rate` is frames a second),
so it is planned, cut, mixed and streamed like audio, with `load_feat` in the place of `load_audio`.

What a kill leaves is continued: after each shard the loader's cursor is written beside it.
"""

from __future__ import annotations

import contextlib
import json
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.errors import StateError, StreamError, UsageError
from s3prl_stream.json_files import read_json, sealed, unsealed
from s3prl_stream.loader import Loader
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import RESERVED_KEYS, Batch, Sample
from s3prl_stream.settings import fitted
from s3prl_stream.shards.feature_set import FeatureSet
from s3prl_stream.shards.layout import EXTRACT_FOLDER, EXTRACT_STATE, LEFT_OUT, MANIFEST, set_name
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.manifest import counts_of, library_versions, read_manifest, write_manifest
from s3prl_stream.shards.npy import DTYPES
from s3prl_stream.shards.selection import longest_seconds
from s3prl_stream.shards.shardset import ShardSet, as_shard_set, name_and_fingerprint
from s3prl_stream.shards.workers import Progress, tell_nobody
from s3prl_stream.stores.alone import alone_in, output_folder
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stream import ShardStream
from s3prl_stream.upstreams import upstream as upstream_named
from s3prl_stream.upstreams.upstream import Upstream, checked_states, fingerprint_of

SAMPLE_RATE = 16_000
_BYTES_PER_MB = 1_000_000


@dataclass(frozen=True)
class ExtractReport:
    """What an extraction did."""

    out: str
    samples: int
    hours: float
    layers: tuple[int, ...]
    first_sample: int
    """How many were there before: 0, or what a run that was stopped had finished."""
    damaged: int
    """Clips that could not be read, listed in left_out.jsonl."""


def extract(
    shards: Any,
    upstream: str | Path | Upstream,
    out: str | Path,
    *,
    layers: Sequence[int] | None = None,
    dtype: str = "float16",
    where: str | None = None,
    subset: str | None = None,
    max_batch_seconds: float = 120.0,
    shard_mb: float = 512,
    num_workers: int = 0,
    name: str | None = None,
    device: str | None = None,
    progress: Progress | None = None,
) -> ExtractReport:
    """Write hidden states of a set's clips to a set of their own, or go on where a call of the same was stopped.

    Args:
        shards: one set: `open_shards(...)`, or what a `ShardStream` accepts.
        upstream: a name as `ss.upstream` takes it, or an upstream.
        out: folder of the new set: new, empty, or with what an extraction of the same left.
        layers: hidden states that are kept, 0 for what goes into the first layer; None: all. One layer is stored as
            [F, D], several as [F, L, D].
        dtype: "float16" or "float32".
        where, subset: which clips, see `ShardStream`.
        max_batch_seconds: padded audio in a batch.
        shard_mb: wanted size of a shard (10**6 bytes).
        num_workers: processes that load; 0: a thread of this one.
        name: of the new set; None: that of the folder.
        device: where the upstream computes; None: the GPU if there is one. An upstream that is given stays where it is.
        progress: called with the step, how many clips are done, and of how many.

    Raises:
        UsageError: a wrong setting, several sets, or a folder that holds something else.
        StateError: the folder holds another extraction, the difference is named; or another process works there.
        StreamError: a hidden state is beyond float16.
    """
    shard_set = as_shard_set(shards)
    if len(shard_set.members) != 1:
        raise UsageError(f"extract: {shard_set.name} are several sets; extract each by itself, keys may be the same")
    if dtype not in DTYPES:
        raise UsageError(f"extract: dtype {dtype!r}; there are {', '.join(DTYPES)}")
    folder = output_folder(out)
    up = upstream if isinstance(upstream, Upstream) else upstream_named(upstream, device=device)
    kept = tuple(range(up.num_layers + 1)) if layers is None else fitted("extract: layers", layers, tuple[int, ...])
    if not kept or not all(0 <= layer <= up.num_layers for layer in kept):
        raise UsageError(f"extract: layers {kept}; there are 0 to {up.num_layers}")
    if len(set(kept)) < len(kept):
        raise UsageError(f"extract: layers {kept}; name each once")
    for setting, value in (("max_batch_seconds", max_batch_seconds), ("shard_mb", shard_mb)):
        if not fitted(f"extract: {setting}", value, float) > 0:
            raise UsageError(f"extract: {setting} is {value}; it must be above 0")
    stream, planned = _stream(shard_set, where, subset, max_batch_seconds)
    identity: dict[str, Any] = {
        "name": set_name(folder.resolve().name, name),
        "data": name_and_fingerprint(shard_set),
        "upstream": f"{type(upstream).__name__ if isinstance(upstream, Upstream) else upstream} {fingerprint_of(up)}",
        "layers": list(kept),
        "dtype": dtype,
        "where": where,
        "subset": subset,
        "batch_seconds": max_batch_seconds,
        "shard_mb": shard_mb,
    }
    if _begin(folder, identity) is None:
        return _report(folder, kept, first_sample=int(read_manifest(LocalStore(folder))["counts"]["samples"]))
    with alone_in(folder / EXTRACT_FOLDER):
        state = _begin(folder, identity)  # as it is now that nobody else changes it
        assert state is not None, "the work folder of a finished set is gone"
        if not state:
            LocalStore(folder).write(EXTRACT_STATE, sealed({"identity": identity}))
        new = FeatureSet(
            folder, folder / EXTRACT_FOLDER, identity["name"], shard_set.columns(), state.get("shards", [])
        )
        before = done = new.num_samples
        loader = Loader(stream, num_workers=num_workers, rank=0, world_size=1)
        if "loader" in state:
            loader.load_state_dict(state["loader"])

        def end_shard() -> list[dict[str, Any]]:
            """The damaged clips until now."""
            damaged: list[dict[str, Any]] = [*state.get("damaged", []), *loader.damaged]
            new.end_shard()
            now = {"identity": identity, "shards": new.shards, "damaged": damaged, "loader": loader.state_dict()}
            LocalStore(folder).write(EXTRACT_STATE, sealed(now))
            return damaged

        with contextlib.closing(new):
            for batch in loader:
                for key, metadata, features in _features(up, kept, dtype, batch):
                    new.add(key, features, frames_per_second=round(SAMPLE_RATE / up.stride), metadata=metadata)
                    done += 1
                (progress or tell_nobody)("extracting", done, planned)
                if new.bytes_in_shard >= shard_mb * _BYTES_PER_MB:
                    end_shard()
            _finish(folder, identity, new, end_shard())
    return _report(folder, kept, first_sample=before)


def _features(
    up: Upstream, layers: Sequence[int], dtype: str, batch: Batch
) -> Iterator[tuple[str, dict[str, Any], npt.NDArray[Any]]]:
    """(key, metadata, [F, D] or [F, L, D]) of each clip of a batch."""
    if not batch["key"]:
        return
    frames = up.num_frames(batch["wav_len"]).tolist()
    with torch.inference_mode():
        given = up(batch["wav"], batch["wav_len"])
    hidden_states = checked_states(up, given, len(frames), max(frames))
    chosen = torch.stack([hidden_states[layer] for layer in layers], dim=2).float().cpu().numpy()
    for row, (key, text) in enumerate(zip(batch["key"], batch["metadata"], strict=True)):
        with np.errstate(over="ignore"):
            features = chosen[row, : frames[row]].astype(dtype)
        if not np.isfinite(features).all():
            raise StreamError(
                f"extract: {key} has hidden states that are not finite in {dtype}; write float32 (dtype='float32', "
                "--dtype float32), or leave out that layer"
            )
        yield key, json.loads(text), features[:, 0] if len(layers) == 1 else features


def _finish(folder: Path, identity: dict[str, Any], new: FeatureSet, damaged: list[dict[str, Any]]) -> None:
    parts, shards, store = new.finish(), new.shards, LocalStore(folder)
    if not shards:
        raise StreamError(f"extract: none of {len(damaged)} clips could be read; the first: {damaged[:1]}")
    left_out = (LeftOut(one["key"], one["shard"], "damaged", one["reason"], one["message"]) for one in damaged)
    store.write(LEFT_OUT, b"".join(one.line() for one in left_out))
    corpus, _, corpus_hash = identity["data"].rpartition(" ")
    about = {
        "name": identity["name"],
        "packing": {name: value for name, value in identity.items() if name not in ("name", "data")},
        "corpus_hash": corpus_hash,
        "corpus": corpus,
        "licence": None,
        "libraries": library_versions(),
    }
    write_manifest(store, about, counts_of(shards, len(damaged), {}), parts, shards)
    shutil.rmtree(folder / EXTRACT_FOLDER, ignore_errors=True)  # the next call removes what is left


class _KeepMetadata(Stage):
    """All that a clip came with, as one text, so that collation leaves it as it is."""

    functional_name = "keep_metadata"

    def emit(self, sample: Sample) -> Iterator[Sample]:
        """The sample with `metadata`."""
        metadata = {name: value for name, value in sample.items() if name not in RESERVED_KEYS}
        yield {**sample, "metadata": json.dumps(metadata)}


def _stream(shards: ShardSet, where: str | None, subset: str | None, max_batch_seconds: float) -> tuple[Stage, int]:
    """Every selected clip once, whole, in the order of the set; and how many there are."""
    # nothing is split or cropped
    budget = max(float(max_batch_seconds), math.ceil(longest_seconds(shards)) + 1.0)
    root = ShardStream(shards, shuffle=False, epochs=1, max_batch_seconds=budget, where=where, subset=subset)
    return _KeepMetadata()(root.load_audio(sample_rate=SAMPLE_RATE, dtype="float32")), len(root.selection)


def _begin(folder: Path, identity: dict[str, Any]) -> dict[str, Any] | None:
    """What was done before ({}: nothing); None: all of it.

    Raises:
        UsageError: the folder holds something else.
        StateError: another extraction; the difference is named.
    """
    if (folder / MANIFEST).exists():
        manifest = read_manifest(LocalStore(folder))
        if "upstream" not in (manifest.get("packing") or {}):
            raise UsageError(f"{folder} holds a set that is no extraction: choose a new or an empty folder")
        data = f"{manifest.get('corpus')} {manifest.get('corpus_hash')}"
        _same(folder, {**(manifest.get("packing") or {}), "name": manifest.get("name"), "data": data}, identity)
        shutil.rmtree(folder / EXTRACT_FOLDER, ignore_errors=True)  # of one that was killed after its last file
        return None
    has_files = folder.exists() and any(entry.name != EXTRACT_FOLDER for entry in folder.iterdir())
    if (folder / EXTRACT_STATE).exists():
        advice = f"Remove {folder}, and the same call begins anew."
        state = read_json(folder / EXTRACT_STATE, StateError, advice, unsealed)
        if has_files or set(state) != {"identity"}:  # else nothing came of it, and it may have been another
            _same(folder, state["identity"], identity)
            return state
    elif has_files:
        raise UsageError(f"{folder} holds other files: choose a new or an empty folder")
    (folder / EXTRACT_FOLDER).mkdir(parents=True, exist_ok=True)
    return {}


def _same(folder: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    for name, value in now.items():
        if before.get(name) != value:
            raise StateError(
                f"{folder} holds another extraction: {name} was {before.get(name)!r}, is {value!r}. Give the same "
                "settings, or another folder."
            )


def _report(folder: Path, layers: tuple[int, ...], *, first_sample: int) -> ExtractReport:
    counts = read_manifest(LocalStore(folder))["counts"]
    return ExtractReport(
        str(folder), counts["samples"], counts["seconds"] / 3600, layers, first_sample, counts["damaged"]
    )
