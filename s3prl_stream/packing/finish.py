"""The end of a pack: sidecars, index, report, list of what was left out, manifest, from what is known of the shards.

Only rows are read, no audio. All of it follows from the shards, so a kill costs nothing but the time: the manifest is
written last, and what is there already is written again with the same bytes.
"""

from __future__ import annotations

import functools
import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from s3prl_stream.errors import ShardError
from s3prl_stream.hashing import U64, repeated
from s3prl_stream.packing.packplan import PackPlan
from s3prl_stream.packing.quality import FINDINGS, report_json, with_duplicates
from s3prl_stream.packing.settings import ORIGINAL
from s3prl_stream.packing.workfolder import FinishedShard, left_out_before, read_finished
from s3prl_stream.shards.extra_files import entries_of
from s3prl_stream.shards.index_files import Offsets, offsets_of
from s3prl_stream.shards.layout import EXTRA_FOLDER, LEFT_OUT, REPORT
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.manifest import counts_of, write_manifest
from s3prl_stream.shards.workers import Progress
from s3prl_stream.shards.write_index import write_index
from s3prl_stream.stores.at_once import at_once
from s3prl_stream.stores.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

_FIRST_KEYS = 20


class NothingPacked(ShardError):
    """Not one file was sound."""


def finish(
    store: Store, plan: PackPlan, about: dict[str, Any], extra: Mapping[str, bytes], scratch: Path, progress: Progress
) -> dict[str, Any]:
    """Write everything that is not a tar; the manifest.

    Args:
        store: the set; all its shards are finished.
        plan: of the set.
        about: corpus and licence.
        extra: small files that the corpus sends along.
        scratch: a local folder.
        progress: called after each shard, twice: "comparing", "index".

    Raises:
        NothingPacked: nothing was left.
        ShardError: a tar is not there as it was packed.
    """
    num_shards = len(plan.clips)
    first_of = _duplicates(store, plan, progress)
    shards: list[dict[str, Any]] = []
    damaged: list[tuple[int, LeftOut]] = []
    reencoded, size_of = 0, dict(store.list())
    findings: dict[str, dict[str, Any]] = {}

    def tables() -> Iterator[tuple[str, pa.Table, Offsets | None]]:
        nonlocal reencoded
        for done, (table, shard) in enumerate(_finished(store, plan), start=1):
            damaged.extend(shard.left_out)
            reencoded += shard.reencoded
            if shard.description is not None:
                _check_tar(store, shard.description, size_of)
                table = _with_duplicates(table, first_of)
                _count_findings(table, findings)
                shards.append(shard.description)
                yield shard.description["name"], table, offsets_of(table)
            progress("index", done, num_shards)

    parts = write_index(store, tables())
    if not shards:
        raise NothingPacked(nothing_packed(plan, damaged))
    counts = Counter[tuple[str, str]]()
    listing = scratch / LEFT_OUT
    with listing.open("wb") as file:
        for _, one in heapq.merge(
            left_out_before(store, plan), sorted(damaged), key=lambda pair: (pair[0], pair[1].key)
        ):
            counts[one.kind, one.reason] += 1
            file.write(one.line())
    store.upload(listing, LEFT_OUT)
    total = counts_of(
        shards,
        sum(count for (kind, _), count in counts.items() if kind == "damaged"),
        {reason: count for (kind, reason), count in sorted(counts.items()) if kind != "damaged"},
    )
    store.write(REPORT, report_json(total["samples"], plan.packing["thresholds"], findings))
    for name, content in extra.items():
        store.write(f"{EXTRA_FOLDER}/{name}", content)
    total["findings"] = {name: findings[name]["samples"] for name in FINDINGS if name in findings}
    if plan.packing["codec"] == ORIGINAL:
        total["reencoded"] = reencoded
    about = {**plan.identity, **about, "libraries": plan.libraries}
    return write_manifest(store, about, total, parts, shards, entries_of(extra))


def _count_findings(table: pa.Table, found: dict[str, dict[str, Any]]) -> None:
    """Add those of one more shard to finding -> samples, seconds, first_keys."""
    import pyarrow.compute

    some = table.filter(pyarrow.compute.not_equal(table.column("findings"), ""))
    for row in some.select(["key", "seconds", "findings"]).to_pylist():
        for name in row["findings"].split():
            one = found.setdefault(name, {"samples": 0, "seconds": 0.0, "first_keys": []})
            one["samples"] += 1
            one["seconds"] += row["seconds"]
            if len(one["first_keys"]) < _FIRST_KEYS:
                one["first_keys"].append(row["key"])


def _finished(store: Store, plan: PackPlan) -> Iterator[tuple[pa.Table, FinishedShard]]:
    """What is known of each shard, in their order."""
    read = functools.partial(read_finished, store, plan.digest)
    return at_once(read, range(len(plan.clips)), is_remote=store.is_remote)


def _duplicates(store: Store, plan: PackPlan, progress: Progress) -> dict[str, str]:
    """Hash of samples that several clips have -> the first of their keys. Holds 8 bytes a clip, while it sorts 16."""
    of_shards = []
    for done, (table, _) in enumerate(_finished(store, plan), start=1):
        of_shards.append(_hashes(table))
        progress("comparing", done, len(plan.clips))
    hashes = np.concatenate([np.zeros(0, np.uint64), *of_shards])
    del of_shards
    several = repeated(hashes)
    del hashes
    several = several[several != 0]
    first_of: dict[str, str] = {}
    if not len(several):
        return first_of
    for table, _ in _finished(store, plan):
        for row in np.flatnonzero(np.isin(_hashes(table), several)).tolist():
            key, of_samples = table.column("key")[row].as_py(), table.column("pcm_hash")[row].as_py()
            first_of[of_samples] = min(key, first_of.get(of_samples, key))
    return first_of


def _hashes(table: pa.Table) -> U64:
    """0 where there is none."""
    return np.array([int(one or "0", 16) for one in table.column("pcm_hash").to_pylist()], dtype=np.uint64)


def _with_duplicates(table: pa.Table, first_of: dict[str, str]) -> pa.Table:
    """The columns `duplicate_of` and `findings` as they are now that all shards are known."""
    import pyarrow

    if not first_of:
        return table
    keys, hashes, findings = (table.column(name).to_pylist() for name in ("key", "pcm_hash", "findings"))
    first = [first_of.get(one) for one in hashes]
    of = [None if one == key else one for one, key in zip(first, keys, strict=True)]
    said = [found if one is None else with_duplicates(found) for found, one in zip(findings, of, strict=True)]
    for name, values in (("duplicate_of", of), ("findings", said)):
        table = table.set_column(table.schema.get_field_index(name), name, pyarrow.array(values, pyarrow.string()))
    return table


def _check_tar(store: Store, shard: Mapping[str, Any], size_of: Mapping[str, int]) -> None:
    size = size_of.get(shard["name"])
    if size != shard["bytes"]:
        raise ShardError(
            f"{store.url}/{shard['name']}: {size} bytes, {shard['bytes']} were written. Remove it, and the same "
            "command packs it again."
        )


def nothing_packed(plan: PackPlan, damaged: Sequence[tuple[int, LeftOut]]) -> str:
    """The message of `NothingPacked`."""
    path, message, reason = plan.first_left_out or attrgetter("audio", "message", "reason")(damaged[0][1])
    hint = " Do paths begin where they should (of a manifest: --audio-root)?" if reason == "missing" else ""
    return f"none of {plan.utterances} utterances could be packed. The first is {path}: {message} ({reason}).{hint}"
