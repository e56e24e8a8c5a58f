"""One shard of a set under repair: taken over as it is, or written anew from its sound samples. Runs in a worker."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from s3prl_stream.checking.content import Content, Place
from s3prl_stream.checking.examine import ShardIndex, read_index, read_shard
from s3prl_stream.checking.inventory import Entry
from s3prl_stream.errors import SampleError, ShardError
from s3prl_stream.hashing import U64
from s3prl_stream.shards.bytes import check_bytes
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.rows import IndexRow, index_table
from s3prl_stream.shards.scratch import download
from s3prl_stream.shards.tar import END_OF_TAR
from s3prl_stream.shards.write_index import placed, publish_shard
from s3prl_stream.shards.writer import ShardWriter
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stores.store import Store


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
    index = read_index(store, entry)
    size = store.size(name)
    if size is None:
        return _all_lost(entry, index, "missing", "the shard is not there")

    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        disk = store if isinstance(store, LocalStore) else LocalStore(folder)
        if disk is not store:  # which is asked for every byte once
            download(store, name, Path(folder, name))
        content = read_shard(disk, entry, index, columns=columns, leave_out=leave_out)
        if content is None:
            message = "its index rows are lost, and its SHA-256 is not the one in the manifest"
            return _all_lost(entry, index, "index_lost", message)
        lost = [
            LeftOut(bad.key or "", name, "damaged", bad.reason, f"byte {bad.offset}: {bad.message}")
            for bad in content.bad
        ]
        if not content.rows:
            return Outcome(None, False, np.zeros(0, dtype=np.uint64), lost, len(lost))
        path, sha256, as_it_was = disk.path(name), content.sha256, _is_sound(content, size)
        if not as_it_was:
            path, sha256 = _written_anew(disk, content.rows, Path(folder, "new"), name)
        table = placed(index_table(content.rows, columns), name)
        description = publish_shard(path, sha256, table, out, name)
    return Outcome(description, as_it_was, table.column("key_hash").to_numpy(), lost, len(lost))


def _written_anew(disk: LocalStore, rows: Sequence[IndexRow], folder: Path, name: str) -> tuple[Path, str]:
    """(path, SHA-256) of a shard of these samples of another one."""
    folder.mkdir()
    with ShardWriter(folder, name) as new:
        for row in rows:
            sample = disk.read(name, row.offset, row.size)
            try:
                check_bytes(sample, size=row.size, crc32c=row.crc32c, where=f"{disk.url}/{name}")
            except SampleError as error:
                raise ShardError(f"{error}; a moment ago it was sound. Give the same command again.") from None
            new.append(sample)
        return new.path, new.finish()


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
