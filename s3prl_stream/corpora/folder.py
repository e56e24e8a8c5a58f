"""A folder of audio, with metadata from the files' names, from the folders they lie in, or from a table."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from s3prl_stream.corpora.audio_files import AUDIO_SUFFIXES, audio_below
from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.names import NamePattern
from s3prl_stream.corpora.splits import root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import FILE_COLUMNS, check_metadata_names, find_column, read_rows, text_named, without_file


@options_checked
def folder(
    root: str | Path,
    pattern: str | None = None,
    table: str | Path | None = None,
    *,
    label_from: Literal["folder"] | None = None,
) -> Iterator[Utterance]:
    """Every audio file below a folder, sorted by path; names that begin with a dot are left out.

    The key is the path below the root, without its suffix.

    Args:
        root: the folder; links to folders are followed.
        pattern: such as "{digit}_{speaker}_{take}": metadata (str) from the names; see `NamePattern`.
        table: CSV, TSV, JSON lines or {file: {...}} (relative to the root, or to where you are) with a column that
            names the file (path below the root or bare name, suffix optional) and metadata in the others. A
            transcription becomes "text". LJSpeech's `id|text` without a header is understood. A row whose file is
            missing becomes an utterance that packing reports as damaged.
        label_from: "folder": the first folder of the path below the root becomes "label".

    Raises:
        UsageError: no such folder, no audio in it, or files that the pattern, the table or `label_from` does not fit.
    """
    root = root_folder(root, "the audio")
    paths = [PurePosixPath(path) for path in audio_below(root)]
    if not paths:
        raise UsageError(f"{root}: no audio found in this folder ({' '.join(AUDIO_SUFFIXES)}).")
    metadata: list[dict[str, Any]] = [{} for _ in paths]
    if label_from is not None:
        demand = f"{root}: label_from='folder' needs every file to lie in a folder below the root"
        _describe(paths, metadata, lambda path: {"label": path.parts[0]} if len(path.parts) > 1 else None, demand)
    if pattern is not None:
        names = NamePattern(pattern)
        check_metadata_names(names.fields, f"pattern {pattern!r}")
        demand = f"{root}: pattern {pattern!r} must fit every file"
        _describe(paths, metadata, lambda path: names.match(str(path.with_suffix(""))), demand)
    rows: dict[str, dict[str, Any]] = {}
    taken: set[str] = set()
    if table is not None:
        file = root / table if (root / table).exists() else Path(table)
        rows = _rows_by_file(file)
        demand = f"{file} must have a row for every file (the corpus `manifest` takes what has one)"
        _describe(paths, metadata, lambda path: _row_of(path, rows, taken), demand)
    there = (
        Utterance(str(path.with_suffix("")), root / path, **found) for path, found in zip(paths, metadata, strict=True)
    )
    missing = (Utterance(name, root / name, **values) for name, values in rows.items() if name not in taken)
    return itertools.chain(there, missing)


def _describe(
    paths: list[PurePosixPath],
    metadata: list[dict[str, Any]],
    describe: Callable[[PurePosixPath], dict[str, Any] | None],
    demand: str,
) -> None:
    """Add what `describe` knows of each file; files of which it knows nothing are counted and one is shown."""
    strangers = []
    for path, known in zip(paths, metadata, strict=True):
        found = describe(path)
        if found is None:
            strangers.append(path)
            continue
        twice = known.keys() & found.keys()
        if twice:
            raise UsageError(f"{demand}, but {sorted(twice)[0]!r} of {path} is given twice. Rename one of the two.")
        known.update(found)
    if strangers:
        raise UsageError(f"{demand}; {len(strangers)} of {len(paths)} do not fit, the first is {strangers[0]}.")


def _rows_by_file(table: Path) -> dict[str, dict[str, Any]]:
    """What the table says of each file, by the name it uses for the file."""
    rows: dict[str, dict[str, Any]] = {}
    found_in: dict[str, str] = {}
    for row in read_rows(table):
        column = find_column(row.values, (*FILE_COLUMNS, "id", "key"))
        if column is None:
            raise without_file(row, "the file")
        values = dict(row.values)
        name = str(values.pop(column)).removeprefix("./")
        check_metadata_names(values, row.where)
        if name in rows:
            raise UsageError(f"{row.where}: {name!r} has a row already: {found_in[name]}. Take one of the two out.")
        found_in[name] = row.where
        rows[name] = text_named(values)
    if not rows:
        raise UsageError(f"{table}: the table has no rows.")
    return rows


def _row_of(path: PurePosixPath, rows: dict[str, dict[str, Any]], taken: set[str]) -> dict[str, Any] | None:
    """The row of a file: by its path below the root, then by its bare name; each with, then without suffix."""
    for name in (str(path), str(path.with_suffix("")), path.name, path.stem):
        if name not in rows:
            continue
        if name in taken:
            raise UsageError(f"the table's row {name!r} fits several files, one is {path}. Use paths below the root.")
        taken.add(name)
        return rows[name]
    return None


FOLDER = Corpus(
    folder,
    "every audio file below a folder",
    "the folder",
    (
        Option("pattern", "metadata from names, such as {digit}_{speaker}_{take}"),
        Option("table", "CSV, TSV or JSON lines with a column that names the file", metavar="FILE"),
        Option("label_from", "the first folder of a path becomes its label", choices=("folder",)),
    ),
)
