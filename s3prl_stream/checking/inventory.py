"""What a set should hold: by its manifest, or, where that is damaged, by the files that are there."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from s3prl_stream.checking.findings import Finding, of_file
from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.shards.extra_files import entries_of, files_there
from s3prl_stream.shards.index_files import IndexPart
from s3prl_stream.shards.layout import INDEX_FOLDER, LEFT_OUT, MANIFEST, SHARDS_PER_PART, part_name
from s3prl_stream.shards.left_out import counted, read_left_out
from s3prl_stream.shards.manifest import is_unfinished, manifest_as_it_is, read_manifest
from s3prl_stream.shards.workers import chunks
from s3prl_stream.stores.store import Store

_SHARD = re.compile(r"[A-Za-z0-9_-]{1,64}-[0-9]{6,12}\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")
SECONDS_TOLERANCE = 1e-9
"""Relative; of two sums of the same numbers."""


class Entry(NamedTuple):
    """What the manifest says of one shard; None where it can no longer be read."""

    name: str
    samples: int | None
    seconds: float | None
    num_bytes: int | None
    sha256: str | None
    number: int
    """Its place in the set."""
    rows_hash: str | None = None
    """Of the index rows of a tar made elsewhere; None: a packed shard."""
    has_own_offsets: bool = False
    """The `.tar.idx` beside it is that of whoever made the tar, and no business of ours."""

    @property
    def part(self) -> str:
        """The index part that holds its rows ..."""
        return part_name(self.number // SHARDS_PER_PART)

    @property
    def row_group(self) -> int:
        """... and where in it."""
        return self.number % SHARDS_PER_PART


class Inventory(NamedTuple):
    """What a set should hold."""

    name: str
    entries: list[Entry]
    manifest: dict[str, Any]
    """Its other values, as far as they can be read."""
    findings: list[Finding]
    """What is wrong with the manifest."""
    files: dict[str, int] | None = None
    """Name -> bytes of each file of a packed set; None: the store cannot tell."""

    @property
    def is_indexed(self) -> bool:
        """Of tars made elsewhere."""
        return "indexed" in self.manifest

    def groups(self) -> list[list[Entry]]:
        """The entries of each index part."""
        return list(chunks(self.entries, SHARDS_PER_PART))


def take_inventory(store: Store) -> Inventory:
    """Read the manifest, or make up for it.

    Raises:
        UsageError: there is no set, or none that was ever finished.
        ShardError: another format version, or a damaged manifest and too little else to tell what the set was.
    """
    manifest, damage = manifest_as_it_is(store)
    if damage == "missing" and is_unfinished(store):
        raise UsageError(f"{store.url}: this set was never finished: give the command that makes it again.")
    problems = [] if damage is None else [damage]
    if not problems and "indexed" in manifest:
        manifest = read_manifest(store)  # raises what is wrong with it: nobody makes up for this one
        return Inventory(str(manifest["name"]), _indexed(manifest["shards"]), manifest, [])
    try:
        files: dict[str, int] | None = dict(store.list())
    except UsageError:  # a web server
        files = None
    described, problem = _described(store, manifest.get("shards"), files)
    names = list(described)
    if problem is not None:
        problems.append(problem)
        names = _names_of_files(store, files, manifest.get("name"), problems[0])
    entries = [entry_of(name, position, described.get(name, {})) for position, name in enumerate(names)]
    name = _set_of(names[0])
    if manifest.get("name") != name:
        problems.append(f"its name is {manifest.get('name')!r}, the shards are called {names[0]}")
    if not problems:
        problems += _contradictions(manifest, entries)
    findings = [of_file(MANIFEST, "manifest", problem, "rebuilt by repair") for problem in problems]
    others = {field: value for field, value in manifest.items() if field not in ("shards", "name", "format_version")}
    if problems and "files" not in others:  # taken as they are: nothing says what they were
        others["files"] = entries_of(files_there(store, files or ()))
    return Inventory(name, entries, others, findings, files)


def _indexed(shards: Sequence[Mapping[str, Any]]) -> list[Entry]:
    return [
        entry_of(one["name"], position, one)._replace(
            rows_hash=str(one.get("rows_hash")), has_own_offsets=one.get("offsets") == "found"
        )
        for position, one in enumerate(shards)
    ]


def check_left_out(store: Store, inventory: Inventory) -> list[Finding]:
    """Whether the list of what is not in the set can be read and agrees with the counts of the manifest."""
    lines, problem = read_left_out(store)
    if problem is not None:
        return [of_file(LEFT_OUT, "left_out", problem, "rebuilt by repair")]
    counts = inventory.manifest.get("counts")
    if not isinstance(counts, dict):
        return []
    found = dict(zip(("damaged", "skipped"), counted(lines), strict=True))
    said = {name: counts.get(name) for name in found}
    if found == said:
        return []
    lists = f"lists {found['damaged']} damaged, {found['skipped']} skipped"
    message = f"{lists}; the manifest says {said}: one of the two files is damaged"
    return [of_file(LEFT_OUT, "left_out", message, "rebuilt by repair")]


def _described(
    store: Store, shards: Any, there: Mapping[str, int] | None
) -> tuple[dict[str, dict[str, Any]], str | None]:
    """What the manifest says of each shard by its name, and why these are not the names of the set's shards.

    A damaged name must not pass for a missing shard: a shard that is not there is looked up in the index.
    """
    if not isinstance(shards, list) or not shards or not all(isinstance(one, dict) for one in shards):
        return {}, "it does not name the shards"
    names = [one.get("name") for one in shards]
    counts = Counter(map(str, names))
    described = {str(name): one for name, one in zip(names, shards, strict=True) if counts[str(name)] == 1}
    order: list[tuple[str, int]] = []
    for name in names:
        if not isinstance(name, str) or not _SHARD.fullmatch(name):
            return described, f"{name!r:.100} is no name of a shard"
        order.append((_set_of(name), _number(name)))
        if len(order) > 1 and (order[-1][0] != order[0][0] or order[-1] <= order[-2]):
            return described, f"{name} does not follow {names[len(order) - 2]}"
    part: IndexPart | None = None
    for position, name in enumerate(names):
        if there is None or name in there:
            continue
        in_part = part_name(position // SHARDS_PER_PART)
        if part is None or part.name != in_part:
            part = IndexPart(store, in_part)
        listed = part.shards_in(position % SHARDS_PER_PART)
        if listed and name not in listed:
            return described, f"names {name}, which is not there, where the index has {listed[0]}"
    return described, None


def _set_of(shard: str) -> str:
    return shard.rpartition("-")[0]


def _number(shard: str) -> int:
    return int(shard.rpartition("-")[2].removesuffix(".tar"))


def _names_of_files(store: Store, files: Mapping[str, int] | None, name: Any, problem: str) -> list[str]:
    """Shards that are there, and those that the index knows of.

    Args:
        store, files: the set.
        name: of the set, by its manifest.
        problem: of the manifest.

    Raises:
        UsageError, ShardError: there are none, those of several sets, or no way to list them.
    """
    if files is None:
        raise ShardError(
            f"{store.url}: {MANIFEST} is damaged ({problem}), and a web server does not list the shards. Restore it "
            "from a copy, or give the set by a path or a bucket."
        )
    found = {file.removesuffix(".idx").removesuffix(".parquet") for file in files}
    for file in files:
        if file.startswith(f"{INDEX_FOLDER}/"):
            part = IndexPart(store, file)
            found.update(shard for row_group in range(part.num_row_groups or 0) for shard in part.shards_in(row_group))
    shards = {shard for shard in found if _SHARD.fullmatch(shard)}
    sets = {_set_of(shard) for shard in shards}
    if isinstance(name, str) and name in sets:
        sets = {name}
    if not sets and MANIFEST not in files:
        read_manifest(store)  # says so
    if not sets:
        raise ShardError(
            f"{store.url}: {MANIFEST} is damaged ({problem}), and no shards of a packed set are there. Restore it from "
            "a copy, or, for tars made elsewhere, run `s3prl-stream index` again."
        )
    if len(sets) > 1:
        raise ShardError(
            f"{store.url}: the manifest is damaged, and there are shards of {len(sets)} sets "
            f"({', '.join(sorted(sets))}). Move those of the others away, or restore manifest.json from a copy."
        )
    return sorted((shard for shard in shards if _set_of(shard) in sets), key=_number)


def entry_of(name: str, position: int, one: Mapping[str, Any]) -> Entry:
    """Shard number `position` of a set, by what a manifest says of it."""

    def number(field: str, *kinds: type) -> Any:
        value: Any = one.get(field)
        return value if type(value) in kinds and 0 < value < math.inf else None

    sha256 = one.get("sha256")
    return Entry(
        name,
        number("samples", int),
        number("seconds", int, float),
        number("bytes", int),
        sha256 if isinstance(sha256, str) and _SHA256.fullmatch(sha256) else None,
        position,
    )


def _contradictions(manifest: dict[str, Any], entries: list[Entry]) -> list[str]:
    """What the manifest says against itself."""
    lacking = next((entry for entry in entries if None in entry[:5]), None)
    if lacking is not None:
        fields = zip(("samples", "seconds", "bytes", "sha256"), lacking[1:5], strict=True)
        return [f"{next(field for field, value in fields if value is None)} of {lacking.name} is missing or damaged"]
    problems = []
    parts = [part_name(number) for number in range(-(-len(entries) // SHARDS_PER_PART))]
    if manifest.get("parts") != parts:
        problems.append(f"its parts are {manifest.get('parts')!r:.200}, expected {parts[0]} to {parts[-1]}")
    counts = manifest.get("counts")
    samples = sum(entry.samples or 0 for entry in entries)
    seconds = math.fsum(entry.seconds or 0.0 for entry in entries)
    if not isinstance(counts, dict) or not isinstance(counts.get("seconds"), int | float):
        problems.append("its counts are missing")
    elif counts.get("samples") != samples or not math.isclose(counts["seconds"], seconds, rel_tol=SECONDS_TOLERANCE):
        problems.append(
            f"its counts are {counts.get('samples')} samples and {counts['seconds']} s, its shards hold {samples} and "
            f"{seconds}"
        )
    return problems
