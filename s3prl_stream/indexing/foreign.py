"""`index_shards`: WebDataset tars made elsewhere become a set where they lie; no audio is copied.

The tars' headers and the audio's headers are read, in pieces of a few kilobytes, bodies are skipped. Nothing of a tar
is unpacked, unpickled or run, and no name in it becomes a path.
"""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.indexing.durations import read_table
from s3prl_stream.indexing.foreign_index import index_rows, metadata_schema, write_foreign_index
from s3prl_stream.indexing.index_folder import IndexFolder
from s3prl_stream.indexing.join_table import join_table
from s3prl_stream.indexing.known_layouts import Layout, find_layout
from s3prl_stream.indexing.scan import NotATar, Scan, ScanTask, scan_tar, scanned_rows
from s3prl_stream.indexing.table_lengths import write_lengths
from s3prl_stream.settings import fitted
from s3prl_stream.shards.layout import set_name
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.manifest import origin_of
from s3prl_stream.shards.workers import Progress, Workers, check_num_workers, tell_nobody
from s3prl_stream.stores.braces import find_tars
from s3prl_stream.stores.store import is_remote, local_path, paths_in

if TYPE_CHECKING:
    from s3prl_stream.shards.shardset import ShardSet

_MOST_GLUED_NAMED = 10
_COMPRESSED_NAMES = (".gz", ".tgz", ".bz2", ".xz", ".zst", ".zip")


class IndexReport(NamedTuple):
    """What an index holds and what was left out of it."""

    url: str
    manifest: dict[str, Any]
    left_out: list[LeftOut]
    table: dict[str, Any] | None
    """How the table fits; None: there is none. Keys: rows, samples_without_row, rows_without_sample, rows_twice,
    durations_differ, first_difference; lengths_believed, lengths_measured (clips whose length is the table's, and those
    that were measured to check it), tars_that_differ, first_wrong_length."""
    layout: Layout | None
    """What the folder is known as, with the tables that were read; None: nothing but tars."""

    @property
    def problems(self) -> list[LeftOut]:
        """What is damaged or refused; not what simply holds no audio."""
        return [one for one in self.left_out if one.kind != "skipped"]


def index_shards(
    tars: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    name: str | None = None,
    durations: str | Path | Sequence[str | Path] | None = None,
    full: bool = False,
    prefix_keys: bool = False,
    num_workers: int = 0,
    corpus_name: str | None = None,
    licence: str | None = None,
) -> ShardSet:
    """Index WebDataset tars made elsewhere, where they lie, and open them as a set.

    Samples, keys and metadata follow `shards/foreign_sample.py`; what is not in the set is listed in `left_out.jsonl`.
    An index that is there already is made anew.

    Args:
        tars: paths or URLs, with braces ("train-{000000..000123}.tar"), stars, or a folder; one or several. All in
            one store. A folder as NeMo, Energon or Lhotse lay it out (`known_layouts.py`) is read as such: its tars
            alone, its manifests or cuts as `durations`, its splits as the column `split`.
        out: where index and manifest go; None: beside the tars.
        name: of the set; None: that of the folder.
        durations: a table of the samples: NeMo's manifest, Lhotse's cuts, or CSV, TSV or JSON lines with a column of
            keys. Its text, speakers and so on become metadata, before those of the tar. Its durations are compared
            with what the audio says of itself, which is exact and what counts.
        full: read every byte, for a CRC-32C of each sample and a SHA-256 of each tar, and for FLACs that were glued.
        prefix_keys: put the tar's name before each key, where each tar counts from 0.
        num_workers: processes that read tars; 0: this one.
        corpus_name, licence: free text for the manifest.

    Raises:
        UsageError: no tars, nothing readable in them for lack of unpacking, a folder that holds something else.
        ShardError: not one sample.
    """
    report = index_tars(
        tars, out, name=name, durations=durations, full=full, prefix_keys=prefix_keys, num_workers=num_workers,
        corpus_name=corpus_name, licence=licence,
    )  # fmt: skip
    from s3prl_stream.shards.shardset import open_shards

    return open_shards(report.url)


def index_tars(
    tars: str | Path | Sequence[str | Path],
    out: str | Path | None = None,
    *,
    name: str | None = None,
    durations: str | Path | Sequence[str | Path] | None = None,
    full: bool = False,
    prefix_keys: bool = False,
    num_workers: int = 0,
    corpus_name: str | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
) -> IndexReport:
    """`index_shards`, with a report in place of the opened set, and with progress; all else is the same."""
    check_num_workers(num_workers)
    full, prefix_keys = fitted("index: full", full, bool), fitted("index: prefix_keys", prefix_keys, bool)
    given = paths_in(tars)
    paths_in([] if out is None else [out])
    layout = find_layout(given[0]) if len(given) == 1 else None
    if layout is None:
        found = find_tars(given)
        _refuse_names(found)
        base, names = _base_and_names(found)
    else:
        base, names = layout.base, layout.tars
        _refuse_names(names)
        durations = durations or layout.tables or None
    splits = {} if layout is None else layout.splits
    last_dot = layout is not None and layout.last_dot
    url = base if out is None else str(out)
    target = IndexFolder(url, base, names)
    table = None if durations is None else read_table(durations, whole_names=last_dot)
    name = set_name((Path(urlsplit(url).path) if is_remote(url) else local_path(url).resolve()).name, name)
    origin = origin_of(name, corpus_name, licence)
    with target.scratch() as scratch:
        lengths = None
        if table is not None and not full:  # which reads everything anyway
            write_lengths(table, scratch / "lengths.npy")
            lengths = str(scratch / "lengths.npy")
        tasks = [
            ScanTask(base, tar, full, str(scratch / f"{number}.jsonl"), lengths, splits.get(tar), last_dot)
            for number, tar in enumerate(names)
        ]
        scans, left_out = _scan_all(tasks, num_workers, progress or tell_nobody)
        fit, in_table = (None, set[str]()) if table is None else join_table(scans, table)
        twice = _duplicates(scans, prefix_keys)
        left_out += _listed_twice(scans, twice)
        columns, num_without = metadata_schema(scans)
        glued = [key for scan in scans for key in scan.glued]
        from_table = (in_table & set(columns)) | ({"split"} if splits else set())
        if all(len(scan.hashes) == len(scan.doubtful | without) for scan, without in zip(scans, twice, strict=True)):
            raise ShardError(f"not one of {len(names)} tars holds a sample. {_first(left_out)}")
        facts = {
            "name": name,
            **origin,
            "indexed": {
                "tars": "." if target.is_beside else base,
                "layout": None if layout is None else layout.maker,
                "prefix_keys": prefix_keys,
                "last_dot": last_dot,
                "full": full,
                "files": dict(sorted(sum((Counter(scan.suffixes) for scan in scans), Counter()).items())),
                "decoded_for_their_length": sum(scan.num_decoded for scan in scans),
                "lengths_of_table": sum(scan.num_believed for scan in scans),
                "metadata_without_column": num_without,
                "wrong_offsets": [scan.name for scan in scans if scan.offsets == "wrong"],
                "glued": {"samples": len(glued), "first_keys": glued[:_MOST_GLUED_NAMED]},
                "from_table": sorted(from_table),
            },
        }
        found_rows = (
            index_rows(scan, prefix_keys, scan.doubtful | without, columns)
            for scan, without in zip(scans, twice, strict=True)
        )
        tars_with_rows = zip(scans, found_rows, map(target.writes_offsets, scans), strict=True)
        with target.being_written(scans):
            manifest = write_foreign_index(target.out, tars_with_rows, columns, left_out, facts)
    return IndexReport(url, manifest, left_out, fit, layout)


def _refuse_names(found: Sequence[str]) -> None:
    for tar in found:
        if not tar.isprintable():  # bytes that are not UTF-8 among them, which no manifest could hold
            raise UsageError(f"{tar!a}: the name of the tar cannot be written down. Rename it.")
        if tar.lower().endswith(_COMPRESSED_NAMES):
            raise UsageError(f"{tar}: compressed; a sample in it has no place of its own. Unpack it to a .tar first.")


def _base_and_names(found: Sequence[str]) -> tuple[str, list[str]]:
    """(the folder that holds all tars, their names in it)."""
    if any(map(is_remote, found)):
        if not all(map(is_remote, found)):
            raise UsageError("tars of a disk and of a store in one index: index each, and open both as a list.")
        stores = {urlsplit(tar)[:2] for tar in found}
        if len(stores) > 1:
            raise UsageError("tars of several stores in one index: index each, and open them as a list.")
        folders = [tar.rpartition("/")[0].split("/") for tar in found]
        same = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
        base = "/".join(parts[0] for parts in same)
        return base, [tar[len(base) + 1 :] for tar in found]
    paths = [str(local_path(tar).absolute()) for tar in found]
    base = os.path.commonpath([os.path.dirname(path) for path in paths])
    return base, [os.path.relpath(path, base).replace(os.sep, "/") for path in paths]


def _scan_all(tasks: Sequence[ScanTask], num_workers: int, tell: Progress) -> tuple[list[Scan], list[LeftOut]]:
    """The tars that can be read, and what is left out of them or instead of them.

    Raises:
        UsageError: all are compressed, or not there.
        ShardError: none can be read.
    """
    scans: list[Scan] = []
    left_out: list[LeftOut] = []
    with Workers(num_workers) as workers:
        for done, scan in enumerate(workers.map(scan_tar, tasks), start=1):
            if isinstance(scan, NotATar):
                left_out.append(LeftOut("", tasks[done - 1].name, scan.kind, scan.reason, str(scan)))
            else:
                scans.append(scan)
                left_out += scan.left_out
            tell("indexing", done, len(tasks))
    if not scans:
        message = f"none of {len(tasks)} tars can be indexed. {_first(left_out)}"
        raise (UsageError if all(one.reason in ("compressed", "missing") for one in left_out) else ShardError)(message)
    return scans, left_out


def _first(left_out: Sequence[LeftOut]) -> str:
    return f"The first: {left_out[0].audio}: {left_out[0].message}" if left_out else "They are empty."


def _duplicates(scans: Sequence[Scan], prefix_keys: bool) -> list[frozenset[int]]:
    """Of each tar, the numbers of rows whose key came before: in this tar, or in any without prefixes.

    Raises:
        UsageError: most of them did.
    """
    if prefix_keys:
        return [_repeated([scan])[0] for scan in scans]
    twice = _repeated(scans)
    num_twice, num_rows = sum(map(len, twice)), sum(len(scan.hashes) for scan in scans)
    if len(scans) > 1 and num_twice > num_rows / 2:
        raise UsageError(
            f"{num_twice} of {num_rows} samples have a key that another one has, as if each tar counted from 0. "
            "prefix_keys=True (--prefix-keys) puts the tar's name before each key."
        )
    return twice


def _repeated(scans: Sequence[Scan]) -> list[frozenset[int]]:
    kept = []
    for scan in scans:
        keep = np.ones(len(scan.hashes), dtype=np.bool_)
        keep[list(scan.doubtful)] = False
        kept.append(keep)
    hashes = np.concatenate([scan.hashes for scan in scans])
    on = np.flatnonzero(np.concatenate(kept))
    _, first = np.unique(hashes[on], return_index=True)
    again = np.ones(len(on), dtype=np.bool_)
    again[first] = False
    rows = on[again]
    first_rows = np.cumsum([0, *(len(scan.hashes) for scan in scans)])[:-1]
    of_scans = np.split(rows, np.searchsorted(rows, first_rows[1:]))
    return [frozenset((some - start).tolist()) for some, start in zip(of_scans, first_rows, strict=True)]


def _listed_twice(scans: Sequence[Scan], twice: Sequence[frozenset[int]]) -> list[LeftOut]:
    found = []
    for scan, numbers in zip(scans, twice, strict=True):
        if not numbers:
            continue
        for number, row in enumerate(scanned_rows(scan)):
            if number in numbers:
                message = f"byte {row['offset']}: another sample before it has this key; prefix_keys tells tars apart"
                found.append(LeftOut(row["key"], scan.name, "refused", "duplicate_key", message))
    return found
