"""`verify`: is a set what its manifest says? Quick: by sizes, index files and a few headers. Full: every byte.

Nothing is believed on one file's word. The index part, the row sidecar and the bytes of a shard are compared, and what
two of the three say against the third is the truth; so a finding names the file that is wrong.
"""

from __future__ import annotations

import copy
import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from s3prl_stream.checking.duplicates import duplicates
from s3prl_stream.checking.examine import (
    Examined,
    content_findings,
    examined,
    header_findings,
    index_findings,
    read_index,
    read_shard,
)
from s3prl_stream.checking.examine_indexed import examine_tars
from s3prl_stream.checking.findings import Finding, of_file, of_sample
from s3prl_stream.checking.inventory import Entry, Inventory, check_left_out, take_inventory
from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import U64
from s3prl_stream.shards.extra_files import problems_with
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.index_files import IndexPart
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.workers import Progress, Workers, check_num_workers, tell_nobody
from s3prl_stream.stores.store import Store, open_store


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
    hashes: list[U64] = []
    num_bytes, tell = 0, progress or tell_nobody
    with Workers(num_workers) as workers:
        for one in _examined(store, inventory, workers, full):
            findings += one.findings
            hashes.append(one.key_hashes)
            num_bytes += one.num_bytes
            tell("checking", len(hashes), len(inventory.entries))
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


def _examined(store: Store, inventory: Inventory, workers: Workers, full: bool) -> Iterator[Examined]:
    """Every shard in the order of the set: a task is one that is read, or those of an index part."""
    of_parts = inventory.groups()
    tasks = ((len(part), some) for part in of_parts for some in ([[one] for one in part] if full else [part]))
    if inventory.is_indexed:
        found = workers.map(functools.partial(examine_tars, ShardFolder(store), full), (some for _, some in tasks))
    else:
        size_of = store.size if inventory.files is None else inventory.files.get
        sized = ((num_in_part, [(one, size_of(one.name)) for one in some]) for num_in_part, some in tasks)
        found = workers.map(functools.partial(_examine_some, store, full), sized)
    return itertools.chain.from_iterable(found)


def _examine_some(store: Store, full: bool, task: tuple[int, list[tuple[Entry, int | None]]]) -> list[Examined]:
    """Shards with the sizes of their files (None: missing), of an index part that should know so many."""
    num_in_part, entries = task
    part = IndexPart(store, entries[0][0].part)
    found = [_examine(store, entry, size, part, full) for entry, size in entries]
    if entries[0][0].row_group == 0:
        found[0] = found[0]._replace(findings=_part_findings(part, num_in_part) + found[0].findings)
    return found


def _examine(store: Store, entry: Entry, size: int | None, part: IndexPart, full: bool) -> Examined:
    index = read_index(store, entry, part)
    rows = next(iter(index.candidates()), None)
    if size is None:
        return examined(index_findings(entry, index, rows, size), size, rows)
    if full:
        content = read_shard(store, entry, index)
        rows = None if content is None else content.table
        findings = content_findings(entry, content)
    else:
        findings = [] if rows is None else header_findings(store, entry, rows)
    return examined(index_findings(entry, index, rows, size) + findings, size, rows)


def _part_findings(part: IndexPart, expected: int) -> list[Finding]:
    """Row groups that no shard of the manifest has."""
    found = part.num_row_groups
    if found is None or found <= expected:  # too few are found shard by shard
        return []
    return [of_file(part.name, "index", f"has {found} row groups, expected {expected}", "rebuilt by repair")]
