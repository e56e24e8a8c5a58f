"""`repair`: a set without its damaged samples, written to another place; the damaged set stays as it is.

Every byte is read. A shard that is sound is linked, copied or uploaded as it is; one that is not is written anew from
its sound samples, byte for byte and in their order, under its old name. Index, offsets and manifest are always made
anew, from what the bytes say.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from s3prl_stream.checking.content import Place, metadata_columns_of
from s3prl_stream.checking.duplicates import duplicates
from s3prl_stream.checking.examine import read_index, read_shard
from s3prl_stream.checking.inventory import Entry, Inventory, entry_of, take_inventory
from s3prl_stream.checking.repair_shard import Outcome, repair_shard
from s3prl_stream.checking.verify import store_of
from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.shards.extra_files import copy_extra_files
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.index_files import IndexPart
from s3prl_stream.shards.layout import LEFT_OUT, offsets_name, rows_name
from s3prl_stream.shards.left_out import LeftOut, counted, read_left_out
from s3prl_stream.shards.manifest import counts_of, write_manifest
from s3prl_stream.shards.new_set import begun
from s3prl_stream.shards.rows import columns_of, metadata_kinds
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.workers import Progress, Workers, check_num_workers, tell_nobody
from s3prl_stream.shards.write_index import write_parts
from s3prl_stream.stores.store import Store, open_store

_MOST_SHOWN = 20


class RepairReport(NamedTuple):
    """What was kept, and what was lost."""

    url: str
    out: str
    samples: int
    shards_as_they_were: int
    shards_rewritten: int
    shards_lost: list[str]
    """Of which no sample is left."""
    lost: dict[str, int]
    """Reason -> samples; `left_out.jsonl` of the new set lists them."""
    first_lost: list[LeftOut]
    """At most 20 of them."""
    files_lost: list[str]
    """Extra files that are missing or damaged."""

    @property
    def num_lost(self) -> int:
        """Samples of the old set that are not in the new one."""
        return sum(self.lost.values())

    def as_json(self) -> dict[str, Any]:
        """Name -> value."""
        return {**self._asdict(), "first_lost": [one._asdict() for one in self.first_lost]}


def repair(
    shards: str | Path | ShardSet | ShardFolder,
    out: str | Path,
    *,
    num_workers: int = 0,
    progress: Progress | None = None,
) -> RepairReport:
    """Write a packed set without its damaged samples; what `verify(full=True)` finds in the old one decides.

    Sound samples keep their bytes and their order, shards their names. `left_out.jsonl` gets a line for each sample
    that is lost. Where nothing is (a damaged index or manifest alone), the new set has the fingerprint of the old one,
    and a stream's state goes on with it.

    Args:
        shards: folder or URL of the set, or an opened one. Nothing in it is changed.
        out: folder or URL for the new set; new or empty, or left by a `repair` that was killed. On the disk of the old
            set, sound shards become hard links, which take no space.
        num_workers: processes; 0: this one. Each needs space for a shard where it writes one, and for the old one where
            that is in a store. Memory grows by 8 bytes a sample in this process.
        progress: called after each shard.

    Raises:
        UsageError: no finished set, one that was made by `index_shards`, or `out` holds something.
        ShardError: not one sound sample, or the manifest is damaged and nothing else tells what the set was.
    """
    check_num_workers(num_workers)
    store = store_of(shards)
    inventory = take_inventory(store)
    if inventory.is_indexed:
        raise UsageError(
            f"{store.url}: tars made elsewhere, indexed where they lie; repair is for packed sets. Restore damaged "
            "tars from copies and run `s3prl-stream index` again, which leaves out what it cannot read."
        )
    with begun(open_store(out), inventory.name) as (target, scratch), Workers(num_workers) as workers:
        return _Repair(store, target, scratch, inventory, workers, progress or tell_nobody).run()


class _Repair:
    def __init__(
        self, store: Store, out: Store, scratch: Path, inventory: Inventory, workers: Workers, progress: Progress
    ) -> None:
        self.store, self.out, self.scratch = store, out, scratch
        self.inventory, self.workers, self.progress = inventory, workers, progress
        self.left_out = scratch / LEFT_OUT
        self.lost: Counter[str] = Counter()
        self.num_lines_lost = 0
        self.first_lost: list[LeftOut] = []

    def run(self) -> RepairReport:
        """Shards, then what needs to know all of them: keys that stand twice, index, manifest."""
        entries = self.inventory.entries
        columns = self._columns()
        outcomes = []
        before, _ = read_left_out(self.store)
        with self.left_out.open("wb") as listing:
            listing.writelines(one.line() for one in before)
            repaired = functools.partial(repair_shard, self.store, self.out, self.scratch, columns)
            for outcome in self.workers.map(repaired, ((entry, ()) for entry in entries)):
                outcomes.append(self._noted(outcome, listing))
                self.progress("repairing", len(outcomes), len(entries))
            if all(one.description is None for one in outcomes):
                first = self.first_lost[0]
                raise ShardError(f"{self.store.url}: not one sound sample is left. {first.audio}: {first.message}")
            outcomes = self._without_duplicates(outcomes, columns, listing)
        kept = [one.description for one in outcomes if one.description is not None]
        parts = write_parts(self.out, [shard["name"] for shard in kept], self.workers, self.progress)
        self.out.upload(self.left_out, LEFT_OUT)
        files, files_lost = copy_extra_files(self.store, self.out, self.inventory.manifest)
        num_damaged, skipped = counted(before)
        counts = counts_of(kept, num_damaged + self.num_lines_lost, skipped)
        changed = {"counts", "parts", "files", *(("corpus_hash",) if self.lost else ())}  # of the utterances packed
        about = {name: value for name, value in self.inventory.manifest.items() if name not in changed}
        write_manifest(self.out, {"name": self.inventory.name, **about}, counts, parts, kept, files)
        return RepairReport(
            url=self.store.url,
            out=self.out.url,
            samples=sum(shard["samples"] for shard in kept),
            shards_as_they_were=sum(one.as_it_was for one in outcomes),
            shards_rewritten=sum(one.description is not None and not one.as_it_was for one in outcomes),
            shards_lost=[entry.name for entry, one in zip(entries, outcomes, strict=True) if one.description is None],
            lost=dict(sorted(self.lost.items())),
            first_lost=self.first_lost,
            files_lost=files_lost,
        )

    def _columns(self) -> dict[str, str]:
        """Metadata columns of the whole set: those of its index, or what all its JSON holds where that is lost."""
        tasks = [(self.store, group) for group in self.inventory.groups()]
        found = [kinds for kinds in self.workers.map(_indexed_kinds, tasks) if kinds is not None]
        if not found:
            found = list(self.workers.map(_kinds_in_shard, [(self.store, entry) for entry in self.inventory.entries]))
        return columns_of(found)

    def _noted(self, outcome: Outcome, listing: BinaryIO) -> Outcome:
        """List what is lost; the outcome without it, so that memory does not grow with the damage."""
        for one in outcome.lost:
            listing.write(one.line())
            self.lost[one.reason] += 1
        self.num_lines_lost += len(outcome.lost)
        if outcome.lost:
            self.lost[outcome.lost[-1].reason] += outcome.num_lost - len(outcome.lost)
            self.first_lost += outcome.lost[: _MOST_SHOWN - len(self.first_lost)]
        return outcome._replace(lost=[])

    def _without_duplicates(
        self, outcomes: list[Outcome], columns: Mapping[str, str], listing: BinaryIO
    ) -> list[Outcome]:
        """Of samples of one key the first stays. A mixture of sets has such; the new shards are then written again."""
        kept = {number: one.description for number, one in enumerate(outcomes) if one.description is not None}
        entries = [entry_of(one["name"], position, one) for position, one in enumerate(kept.values())]
        hashes = [outcomes[number].key_hashes for number in kept]
        places: dict[str, set[Place]] = {}
        for _, (shard, key, offset, _) in duplicates(self.out, entries, hashes):
            places.setdefault(shard, set()).add((key, offset))
        again = [(number, entry) for number, entry in zip(kept, entries, strict=True) if entry.name in places]
        repaired = functools.partial(repair_shard, self.out, self.out, self.scratch, columns)
        tasks = [(entry, places[entry.name]) for _, entry in again]
        result = list(outcomes)
        for (number, entry), outcome in zip(again, self.workers.map(repaired, tasks), strict=True):
            result[number] = self._noted(outcome, listing)
            if outcome.description is None:
                for name in (entry.name, rows_name(entry.name), offsets_name(entry.name)):
                    self.out.delete(name)
        return result


def _indexed_kinds(task: tuple[Store, list[Entry]]) -> dict[str, set[str]] | None:
    """Metadata column -> its types, over the shards of an index part; None: none of their rows can be read."""
    store, entries = task
    part = IndexPart(store, entries[0].part)
    tables = [table for entry in entries for table in read_index(store, entry, part).candidates()]
    kinds: dict[str, set[str]] = {}
    for table in tables:
        for name, kind in metadata_columns_of(table).items():
            kinds.setdefault(name, set()).add(kind)
    return kinds if tables else None


def _kinds_in_shard(task: tuple[Store, Entry]) -> dict[str, set[str]]:
    """The same from the JSON of a shard whose rows are lost."""
    store, entry = task
    content = read_shard(store, entry, read_index(store, entry))
    return {} if content is None else metadata_kinds(row.metadata for row in content.rows)
