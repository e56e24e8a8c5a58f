"""`verify`: is a set what its manifest says? Quick: by sizes, index files and a few headers. Full: every byte.

Nothing is believed on one file's word. The index part, the row sidecar and the bytes of a shard are compared, and what
two of the three say against the third is the truth; so a finding names the file that is wrong.

From here down: `inventory` reads the manifest or makes up for it, `examine` compares what is known of one shard, from
`index_files` and `content` (its bytes); `examine_indexed` is for tars made elsewhere; `findings` has the words.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import U64
from s3prl_stream.shards.content import no_sink
from s3prl_stream.shards.duplicates import duplicates
from s3prl_stream.shards.examine import content_findings, header_findings, index_findings, read_index, read_shard
from s3prl_stream.shards.examine_indexed import IndexedTask, examine_tars, tars_of
from s3prl_stream.shards.extra_files import problems_with
from s3prl_stream.shards.findings import Examined, Finding, of_file, of_sample
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.index_files import IndexPart
from s3prl_stream.shards.inventory import Entry, Inventory, check_left_out, listed_files, take_inventory
from s3prl_stream.shards.layout import SHARDS_PER_PART
from s3prl_stream.shards.progress import Progress, tell_nobody
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.store import Store, open_store
from s3prl_stream.shards.workers import Workers, check_num_workers


class VerifyReport(NamedTuple):
    """What was looked at, and all that is wrong with it."""

    url: str
    full: bool
    """Every byte was read; otherwise sizes, index files and the first and last header of each shard."""
    shards: int
    samples: int
    """Of the shards that are there and whose index can be read."""
    num_bytes: int
    findings: list[Finding]
    """In the order of the shards."""

    @property
    def is_sound(self) -> bool:
        """Nothing was found."""
        return not self.findings

    def as_json(self) -> dict[str, Any]:
        """Name -> value, the findings as objects."""
        return {
            "set": self.url,
            "full": self.full,
            "shards": self.shards,
            "samples": self.samples,
            "bytes": self.num_bytes,
            "findings": [finding._asdict() for finding in self.findings],
        }


class Examination(NamedTuple):
    """What a worker is asked: shards of one index part."""

    store: Store
    entries: list[tuple[Entry, int | None]]
    """With the sizes of their files; None: missing."""
    num_in_part: int
    """Shards that the part should know."""
    full: bool


def verify(
    shards: str | Path | ShardSet | ShardFolder,
    full: bool = False,
    *,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> VerifyReport:
    """Look for damage in a set; nothing is changed.

    Quick: the manifest can be read, every shard is there in its size, index parts and sidecars agree with each other
    and the manifest, the first and the last sample of each shard begin where they should, no key stands twice. Full: in
    addition every byte is read; the SHA-256 of each shard, the CRC-32C, tar headers, JSON and audio of each sample, and
    all that the index says of them, are as they were when the set was packed.

    Of tars made elsewhere and indexed where they lie, quick reads the first and the last sample of each, full all of
    them, as a stream does, and decodes them. A checksum is compared where the index has one.

    Args:
        shards: folder or URL of a set, or an opened one.
        full: read everything.
        num_workers: processes; 0: this one. The findings and their order do not depend on it. Memory grows by 8 bytes
            a sample (hashes of keys) in this process, whatever the size of the shards.
        progress: called after each shard.

    Raises:
        UsageError: there is no finished set.
        ShardError: the set is of another format version, or its manifest is damaged and nothing else tells what it was.
    """
    check_num_workers(num_workers)
    store = store_of(shards)
    inventory = take_inventory(store)
    findings = inventory.findings + check_left_out(store, inventory)
    extra = problems_with(store, inventory.manifest)
    findings += [of_file(name, "extra", message, "file left out") for name, message in extra]
    examine = _examine_indexed if inventory.is_indexed else _examine_packed
    hashes: list[U64] = []
    num_bytes, tell = 0, progress or tell_nobody
    with Workers(num_workers) as workers:
        for examined in examine(store, inventory, workers, full):
            findings += examined.findings
            hashes.append(examined.key_hashes)
            num_bytes += examined.num_bytes
            tell("checking", len(hashes), inventory.num_shards)
    # an index of tars made elsewhere never had any
    twice = () if inventory.is_indexed else duplicates(store, inventory.entries, hashes)
    for place, (shard, key, offset, size) in twice:
        findings.append(of_sample(shard, key, offset, size, "duplicate_key", f"{place} has this key, too"))
    samples = sum(map(len, hashes))
    return VerifyReport(store.url, full, len(hashes), samples, num_bytes, list(dict.fromkeys(findings)))


def store_of(shards: str | Path | ShardSet | ShardFolder) -> Store:
    """The folder of one packed set, as if seen for the first time.

    Raises:
        UsageError: several sets at once, or samples in memory.
    """
    if isinstance(shards, str | Path):
        return open_store(shards)
    members = shards.members if isinstance(shards, ShardSet) else [shards]
    if len(members) != 1 or not isinstance(members[0], ShardFolder):
        raise UsageError(f"{shards!r:.200}: expected one packed set; check several one after the other.")
    return copy.copy(members[0].store)  # a copy has forgotten which file it saw under a name


def _examine_packed(store: Store, inventory: Inventory, workers: Workers, full: bool) -> Iterator[Examined]:
    """Every shard in the order of the set."""
    for some in workers.map(_examine_some, _tasks(store, inventory, full)):
        yield from some


def _examine_indexed(store: Store, inventory: Inventory, workers: Workers, full: bool) -> Iterator[Examined]:
    folder = ShardFolder(store)
    tars = tars_of(inventory.manifest["shards"])
    step = 1 if full else SHARDS_PER_PART
    tasks = (IndexedTask(folder, tars[first : first + step], full) for first in range(0, len(tars), step))
    for some in workers.map(examine_tars, tasks):
        yield from some


def _tasks(store: Store, inventory: Inventory, full: bool) -> Iterator[Examination]:
    """One shard a task where it is read, one index part a task where it is not."""
    listed = listed_files(store)
    for group in inventory.groups():
        entries = [(entry, store.size(entry.name) if listed is None else listed.get(entry.name)) for entry in group]
        if full:
            yield from (Examination(store, [one], len(group), full) for one in entries)
        else:
            yield Examination(store, entries, len(group), full)


def _examine_some(task: Examination) -> list[Examined]:
    part = IndexPart(task.store, task.entries[0][0].part)
    found = [_examine(task.store, entry, size, part, task.full) for entry, size in task.entries]
    if task.entries[0][0].row_group == 0:
        found[0] = found[0]._replace(findings=_part_findings(part, task.num_in_part) + found[0].findings)
    return found


def _examine(store: Store, entry: Entry, size: int | None, part: IndexPart, full: bool) -> Examined:
    index = read_index(store, entry, part)
    rows = next(iter(index.candidates()), None)
    if size is None:
        samples = "" if entry.samples is None else f"; it held {entry.samples} samples"
        missing = of_file(entry.name, "missing", f"not there{samples}", "shard left out")
        findings = [missing, *index_findings(entry, index, rows, None)]
    elif full:
        reading = read_shard(store, entry, index, lambda: no_sink)
        rows = reading.table
        findings = index_findings(entry, index, rows, size) + content_findings(entry, reading)
    else:
        findings = index_findings(entry, index, rows, size)
        if rows is not None:
            findings += header_findings(store, entry, rows)
    hashes = np.zeros(0, dtype=np.uint64) if rows is None else rows.column("key_hash").to_numpy()
    return Examined(findings, size or 0, hashes)


def _part_findings(part: IndexPart, expected: int) -> list[Finding]:
    """Row groups that no shard of the manifest has."""
    found = part.num_row_groups
    if found is None or found <= expected:  # too few are found shard by shard
        return []
    return [of_file(part.name, "index", f"has {found} row groups, expected {expected}", "rebuilt by repair")]
