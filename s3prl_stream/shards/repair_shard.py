"""One shard of a set under repair: taken over as it is, or written anew from its sound samples. Runs in a worker."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from s3prl_stream.hashing import U64
from s3prl_stream.shards.content import Content, Place, Sink, no_sink
from s3prl_stream.shards.examine import ShardIndex, read_index, read_shard
from s3prl_stream.shards.index_files import IndexPart
from s3prl_stream.shards.inventory import Entry
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.rows import index_table
from s3prl_stream.shards.store import LocalStore, Store
from s3prl_stream.shards.tar import END_OF_TAR
from s3prl_stream.shards.write_index import placed, publish_shard
from s3prl_stream.shards.writer import ShardWriter


class Outcome(NamedTuple):
    """What became of a shard."""

    description: dict[str, Any] | None
    """What the new manifest says of it; None: no sample is left."""
    as_it_was: bool
    key_hashes: U64
    """Of the samples that are left."""
    lost: list[LeftOut]
    num_lost: int
    """Samples: where even the index of a shard is lost, `lost` has one line for all of them."""


def repair_shard(
    store: Store, out: Store, scratch: Path, columns: Mapping[str, str], task: tuple[Entry, Collection[Place]]
) -> Outcome:
    """Read one shard of `store`, and write what is sound of it to `out`, with its sidecars.

    Args:
        store, out: the old set and the new one.
        scratch: a local folder; on the disk of `out`, if that has one.
        columns: metadata columns of the whole set.
        task: the shard, and samples of it whose key another one has.
    """
    entry, leave_out = task
    name = entry.name
    index = read_index(store, entry, IndexPart(store, entry.part))
    size = store.size(name)
    if size is None:
        return _all_lost(entry, index, "missing", "the shard is not there")

    def read(new_sink: Callable[[], Sink]) -> Content | None:
        return read_shard(store, entry, index, new_sink, columns=columns, leave_out=leave_out).content

    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(dir=scratch)))
        new: list[ShardWriter] = []

        def begin() -> Sink:
            new.append(stack.enter_context(ShardWriter(folder, name)))
            return lambda _, sample: new[-1].append(sample)

        # what comes over a network is kept as it comes; a disk is read again if the shard is not sound
        content = read(begin if store.is_remote else lambda: no_sink)
        as_it_was = content is not None and _is_sound(content, size)
        if not as_it_was and not store.is_remote:
            content = read(begin)
        if content is None:
            message = "its index rows are lost, and its SHA-256 is not the one in the manifest"
            return _all_lost(entry, index, "index_lost", message)
        lost = [
            LeftOut(bad.key or "", name, "damaged", bad.reason, f"byte {bad.offset}: {bad.message}")
            for bad in content.bad
        ]
        if not content.rows:
            return Outcome(None, False, np.zeros(0, dtype=np.uint64), lost, len(lost))
        if as_it_was and isinstance(store, LocalStore):
            path, sha256 = store.path(name), content.sha256
        else:
            path, sha256 = new[-1].path, new[-1].finish()
        table = placed(index_table(content.rows, columns), name)
        description = publish_shard(path, sha256, table, out, name)
    return Outcome(description, as_it_was, table.column("key_hash").to_numpy(), lost, len(lost))


def _is_sound(content: Content, size: int) -> bool:
    """Every byte of the file is one that a packer would write."""
    expected = sum(row.size for row in content.rows) + len(END_OF_TAR)
    return not content.bad and content.end is None and content.sha256 is not None and size == expected


def _all_lost(entry: Entry, index: ShardIndex, reason: str, message: str) -> Outcome:
    nothing = np.zeros(0, dtype=np.uint64)
    for table in index.candidates()[:1]:
        lost = [LeftOut(key, entry.name, "damaged", reason, message) for key in table.column("key").to_pylist()]
        return Outcome(None, False, nothing, lost, len(lost))
    held = "an unknown number of" if entry.samples is None else f"{entry.samples}"
    message = f"{message}; it held {held} samples, whose keys are not known any more"
    return Outcome(None, False, nothing, [LeftOut("", entry.name, "damaged", reason, message)], entry.samples or 1)
