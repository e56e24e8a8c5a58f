"""A manifest: a table with one utterance a row, such as NeMo's JSON lines."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.corpora.corpus import Corpus, Option, options_checked
from s3prl_stream.corpora.splits import as_path, root_folder
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.tables import (
    FILE_COLUMNS,
    Row,
    check_metadata_names,
    find_column,
    read_rows,
    seconds,
    text_named,
    unfolded,
    without_file,
)

_KEY_COLUMNS = ("key", "id", "utterance_id", "utt_id")
_START_COLUMNS = ("start_seconds", "start", "offset")
_END_COLUMNS = ("end_seconds", "end")


@options_checked
def manifest(
    path: str | Path, *, audio_root: str | Path | None = None, columns_from: str | Sequence[str] = ()
) -> Iterator[Utterance]:
    """Utterances of a CSV, TSV or JSON-lines manifest, in its order.

    Columns understood: the audio (audio_filepath, audio, path, file ...); key or id (else the path without its suffix,
    with the stretch if there is one); start_seconds, start or offset; end_seconds, end or duration (s); text,
    transcription, transcript or sentence (becomes text). All others are metadata under their own names.

    Args:
        path: the manifest; .gz behind its name is understood.
        audio_root: where relative paths start; None: at the manifest's folder.
        columns_from: columns that hold objects, such as `slots`: each of their values becomes a column of its own,
            `slots_NAME`. Without this they stand in the JSON of a sample and not in the index.

    Raises:
        UsageError: no such file, a row without audio, a stretch that is no number, a column with a reserved name, or
            one of `columns_from` that no row has.
    """
    path = as_path(path, "FILE is the manifest")
    rows = read_rows(path)
    nested = [columns_from] if isinstance(columns_from, str) else list(columns_from)
    folder = path.parent if audio_root is None else root_folder(audio_root, "the manifest's audio")
    return _utterances(path, rows, folder, nested)


def _utterances(path: Path, rows: Iterator[Row], folder: Path, nested: Sequence[str]) -> Iterator[Utterance]:
    unseen, columns = set(nested), tuple[str, ...]()
    for row in rows:
        unseen.difference_update(row.columns)
        columns = row.columns
        yield _utterance(row, folder, nested)
    if unseen:
        raise UsageError(
            f"{path}: no row has a column {min(unseen)!r} (columns_from); there are: {', '.join(columns)}."
        )


def _utterance(row: Row, folder: Path, nested: Sequence[str]) -> Utterance:
    values = dict(row.values)
    file_column = find_column(values, FILE_COLUMNS)
    if file_column is None:
        raise without_file(row, "the audio")
    name = values.pop(file_column)
    if not isinstance(name, str) or Path(name).name in ("", ".."):
        raise UsageError(f"{row.where}: {file_column} is {name!r:.60}, expected the path of a file.")
    key_column = find_column(values, _KEY_COLUMNS)
    key = None if key_column is None else str(values.pop(key_column))
    start = _taken_seconds(values, _START_COLUMNS, row.where)
    end = _taken_seconds(values, _END_COLUMNS, row.where)
    duration = _taken_seconds(values, ("duration",), row.where)
    if end is None and duration is not None:
        end = (start or 0.0) + duration
    if key is None:
        stretch = "" if start is None else f"-{start:.3f}" + ("" if end is None else f"-{end:.3f}")
        key = Path(name).with_suffix("").as_posix().lstrip("/") + stretch
    metadata = text_named(unfolded(values, nested, row.where))
    check_metadata_names(metadata, row.where)
    utterance = Utterance(key, folder / name, start, end, **metadata)
    utterance.where = row.where
    return utterance


def _taken_seconds(values: dict[str, Any], columns: tuple[str, ...], where: str) -> float | None:
    column = find_column(values, columns)
    if column is None:
        return None
    return seconds(values.pop(column), where, column)


MANIFEST = Corpus(
    manifest,
    "CSV, TSV or JSON lines with one utterance a row",
    "the manifest",
    (
        Option("audio_root", "where relative paths start (default: the manifest's folder)", metavar="FOLDER"),
        Option("columns_from", "columns with objects in them, whose values become columns", "names", metavar="COLUMN"),
    ),
    root="FILE",
)
