"""`subset`: a part of a set, written out as a set of its own. The bytes of samples are copied as they are.

Which samples: as a stream's `where` and `subset` select them, so 1 h lies inside 10 h. The new set has the name of the
old one unless it is told otherwise: a sample stays the sample it was, gets the same random draws, and a subset of a
subset is the subset of the whole, byte for byte. Samples stand in the order in which packing would put them: mixed by
a hash of their keys, neighbours of like duration together.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.settings import fitted
from s3prl_stream.shards.arrange import arrange
from s3prl_stream.shards.extra_files import copy_extra_files
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.layout import LEFT_OUT, set_name, shard_name
from s3prl_stream.shards.manifest import counts_of, write_manifest
from s3prl_stream.shards.member import I64
from s3prl_stream.shards.new_set import begun
from s3prl_stream.shards.selection import Selection, compile_selection
from s3prl_stream.shards.shardset import ShardSet, as_shard_set, open_shards
from s3prl_stream.shards.subset_shard import write_shard
from s3prl_stream.shards.workers import Progress, Workers, check_num_workers, tell_nobody
from s3prl_stream.shards.write_index import write_parts
from s3prl_stream.stores.store import open_store

_BYTES_PER_MB = 1_000_000
_KEPT = ("packing", "corpus", "licence", "libraries")
"""What the new manifest takes over from the old one."""


def subset(
    shards: str | Path | ShardSet | ShardFolder,
    out: str | Path,
    subset: str | None = None,
    *,
    where: Any = None,
    name: str | None = None,
    shard_mb: float | None = None,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> ShardSet:
    """Write a part of a packed set as a set of its own, and open it.

    Args:
        shards: folder or URL of the set, or an opened one. Nothing in it is changed.
        out: folder or URL for the new set; new or empty, or left by a `subset` that was killed.
        subset: "10h", "30min", "90s", "10%", or "10h by speaker", as of a `ShardStream`.
        where: rows to keep, as of a `ShardStream`.
        name: of the new set; None: that of the old one. Two sets of one name cannot be opened together.
        shard_mb: wanted size of a shard (10**6 bytes); None: as the set was packed.
        num_workers: processes; 0: this one. Memory grows by 48 bytes a selected sample.
        progress: called after each shard.

    A selected sample whose bytes are not what the index says is not in the new set; its `left_out.jsonl` lists it.

    Raises:
        UsageError: neither `subset` nor `where`, nothing selected, several sets, tars made elsewhere, or `out` holds
            something.
        ShardError: not one of the selected samples is sound.
    """
    check_num_workers(num_workers)
    if subset is None and where is None:
        raise UsageError('say what of the set: an amount (subset="10h") or a condition (where="split == \'train\'").')
    whole = as_shard_set(shards)
    folder = _packed(whole)
    packing = {name: value for name, value in (folder.manifest.get("packing") or {}).items() if _is_number(value)}
    if shard_mb is None:
        shard_mb = packing.get("shard_mb") or 512
    shard_bytes = fitted("subset: shard_mb", shard_mb, float) * _BYTES_PER_MB
    if not shard_bytes > 0:
        raise UsageError(f"shard_mb is {shard_mb}, expected more than 0.")
    name = folder.name if name is None else set_name(name, name)
    selection = compile_selection(whole, where=where, subset=subset)
    new_shards = list(_arranged(folder, selection, shard_bytes, int(packing.get("seed") or 0)))
    tell = progress or tell_nobody
    with begun(open_store(out), name) as (target, scratch), Workers(num_workers) as workers:
        tasks = ((shard_name(name, number), *places) for number, places in enumerate(new_shards))
        kept, damaged = [], []
        written = workers.map(functools.partial(write_shard, folder, target, scratch), tasks)
        for done, (description, damaged_here) in enumerate(written, start=1):
            kept += [] if description is None else [description]
            damaged += damaged_here
            tell("writing", done, len(new_shards))
        if not kept:
            raise ShardError(f"{folder.store.url}: not one selected sample is sound. {damaged[0].message}")
        parts = write_parts(target, [shard["name"] for shard in kept], workers)
        target.write(LEFT_OUT, b"".join(one.line() for one in damaged))
        origin = {"name": folder.name, "fingerprint": folder.fingerprint, "subset": subset,
                  "where": None if where is None else str(where)}  # fmt: skip
        files, _ = copy_extra_files(folder.store, target, folder.manifest)
        about = {name: value for name, value in folder.manifest.items() if name in _KEPT}
        counts = counts_of(kept, len(damaged), {})
        write_manifest(target, {"name": name, "subset_of": origin, **about}, counts, parts, kept, files)
    return open_shards(out)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _packed(whole: ShardSet) -> ShardFolder:
    member = whole.members[0]
    if len(whole.members) != 1 or not isinstance(member, ShardFolder):
        raise UsageError(f"{whole.name}: a subset is of one packed set; take several one after the other.")
    if "indexed" in member.manifest:
        raise UsageError(
            f"{member.store.url}: tars made elsewhere, indexed where they lie; a subset is of a packed set. "
            "A stream takes a part of them with subset= and where=."
        )
    return member


def _arranged(folder: ShardFolder, selection: Selection, shard_bytes: float, seed: int) -> Iterator[tuple[I64, I64]]:
    """(old shard numbers, rows) of each new shard: in the order that packing gives to these samples."""
    shards, rows, sizes, seconds, hashes = [], [], [], [], []
    for shard in np.flatnonzero(selection.counts):
        index, mask = folder.rows(int(shard)), selection.mask(int(shard))
        chosen = np.arange(len(index.size)) if mask is None else np.flatnonzero(mask)
        shards.append(np.full(len(chosen), shard, dtype=np.int64))
        rows.append(chosen.astype(np.int64))
        sizes.append(index.size[chosen].astype(np.float64))
        seconds.append(index.frames[chosen] / index.sample_rate[chosen])
        hashes.append(index.key_hash[chosen])
    shard_of, row_of = np.concatenate(shards), np.concatenate(rows)
    of_new_shards = arrange(np.concatenate(hashes), np.concatenate(seconds), np.concatenate(sizes), shard_bytes, seed)
    for order in of_new_shards:
        yield shard_of[order], row_of[order]
