"""Rows of a table that describes audio: CSV, TSV, JSON lines, or JSON of the form {file: {...}}."""

from __future__ import annotations

import csv
import json
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from s3prl_stream.errors import UsageError
from s3prl_stream.sample import RESERVED_KEYS

FILE_COLUMNS = ("audio_filepath", "audio", "audio_path", "wav_path", "path", "wav", "file", "filename", "file_name")
TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence")
_HEADERLESS_COLUMNS = ("id", "text", "normalized_text")


class Row(NamedTuple):
    """One row of a table."""

    where: str
    """File and line, for messages."""
    values: dict[str, Any]
    """Column -> value; empty cells are left out."""


def read_rows(path: Path) -> Iterator[Row]:
    """Rows in the order of the file.

    Cells of CSV and TSV are text; quotation marks quote between commas only. Values of JSON keep their types. A CSV
    whose cells are divided by | and whose first line names no file column has no header, as in LJSpeech: its columns
    are id, text, normalized_text.

    Raises:
        UsageError: no such file, an unknown suffix, or a row that cannot be read, named by its line.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file.")
    if path.suffix in (".jsonl", ".ndjson"):
        return _json_lines(path)
    if path.suffix == ".json":
        return _json_object(path) if _is_whole_json(path) else _json_lines(path)
    if path.suffix in (".csv", ".tsv", ".txt"):
        return _delimited(path)
    raise UsageError(f"{path}: tables are .csv, .tsv, .jsonl or .json, not {path.suffix!r}.")


def find_column(columns: Collection[str], names: Sequence[str]) -> str | None:
    """The first of `names` that is a column."""
    return next((name for name in names if name in columns), None)


def text_named(metadata: dict[str, Any]) -> dict[str, Any]:
    """The same metadata with its transcription under "text", whatever column it stood in."""
    column = find_column(metadata, TEXT_COLUMNS)
    if column in (None, "text"):
        return metadata
    return {"text" if name == column else name: value for name, value in metadata.items()}


def check_metadata_names(names: Collection[str], where: str) -> None:
    """Raises UsageError if a name is one that the stream or an utterance gives to its own values."""
    taken = sorted((RESERVED_KEYS | {"start_seconds", "end_seconds"}).intersection(names))
    if taken:
        raise UsageError(f"{where}: the stream uses the name {taken[0]!r} itself. Rename that column, or drop it.")


def _delimited(path: Path) -> Iterator[Row]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        first = file.readline()
        file.seek(0)
        divider = "\t" if path.suffix == ".tsv" or "\t" in first else "|" if "|" in first else ","
        # Only between commas do quotation marks quote; elsewhere they are part of the text.
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if divider == "," else csv.QUOTE_NONE
        cells = csv.reader(file, delimiter=divider, quoting=quoting, strict=True)
        columns: list[str] | None = None
        try:
            for values in cells:
                if columns is None:
                    columns = [value.strip() for value in values]
                    if divider != "|" or find_column(columns, (*FILE_COLUMNS, "id", "key")):
                        continue
                    columns = list(_HEADERLESS_COLUMNS[: len(columns)])
                where = f"{path}, line {cells.line_num}"
                if len(values) > len(columns):
                    raise UsageError(f"{where}: {len(values)} cells for {len(columns)} columns.")
                if values:
                    yield Row(where, {name: cell for name, cell in zip(columns, values, strict=False) if cell != ""})
        except (csv.Error, UnicodeDecodeError) as error:
            raise UsageError(f"{path}, line {cells.line_num}: not readable as a table: {error}.") from None


def _json_lines(path: Path) -> Iterator[Row]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                where = f"{path}, line {number}"
                yield Row(where, _without_nulls(_parsed(line, where), where))


def _json_object(path: Path) -> Iterator[Row]:
    content = _parsed(path.read_bytes(), str(path))
    if isinstance(content, list):
        for number, values in enumerate(content):
            yield Row(f"{path}, item {number}", _without_nulls(values, f"{path}, item {number}"))
        return
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a list of objects or {{file: {{...}}}}.")
    for name, values in content.items():
        where = f"{path}, {name!r}"
        yield Row(where, {"file": name, **_without_nulls(values, where)})


def _is_whole_json(path: Path) -> bool:
    """False for JSON lines under the name .json, as NeMo writes them."""
    with path.open("rb") as file:
        first = file.readline().strip()
    try:
        return not isinstance(json.loads(first), dict) or path.read_bytes().strip() == first
    except ValueError:
        return True


def _parsed(data: bytes, where: str) -> Any:
    try:
        return json.loads(data)
    except ValueError as error:
        raise UsageError(f"{where}: not JSON: {error}.") from None


def _without_nulls(values: Any, where: str) -> dict[str, Any]:
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected an object, found a {type(values).__name__}.")
    return {name: value for name, value in values.items() if value is not None}
