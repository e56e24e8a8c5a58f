"""Rows of a table that describes audio: CSV, TSV, JSON lines, or JSON of the form {file: {...}}."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Literal, NamedTuple

from s3prl_stream.errors import UsageError
from s3prl_stream.sample import RESERVED_KEYS
from s3prl_stream.text_lines import MAX_LINE_LENGTH, TextLine, text_lines

FILE_COLUMNS = ("audio_filepath", "audio", "audio_path", "wav_path", "path", "wav", "file", "filename", "file_name")
TAKEN_NAMES = RESERVED_KEYS | {"start_seconds", "end_seconds"}
"""What no metadata may be called: names of the stream and of an utterance."""

TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence")
_HEADERLESS_COLUMNS = ("id", "text", "normalized_text")

_LINES, _JSONS, _CELLS = (".jsonl", ".ndjson"), (".json",), (".csv", ".tsv", ".txt")
_MAX_JSON_LENGTH = 1 << 30
"""Of a line of .json, which may be all of it."""


class Row(NamedTuple):
    """One row of a table."""

    where: str
    """File and line, for messages."""
    values: dict[str, Any]
    """Column -> value; empty cells are left out."""
    columns: tuple[str, ...]
    """All columns of the table, or of JSON all names in this row."""


def read_rows(path: Path, *, header: bool | None = None) -> Iterator[Row]:
    """Rows in the order of the file; it may be compressed by gzip.

    Cells of CSV and TSV are text; quotation marks quote between commas only. Values of JSON keep their types. A CSV
    whose cells are divided by | and whose first line names no file column has no header, as in LJSpeech: its columns
    are id, text, normalized_text.

    Args:
        path: the table.
        header: whether a file with | in it has one; None: as said above.

    Raises:
        UsageError: no such file, an unknown suffix, a row that cannot be read, named by its line, or two columns of one
            name.
    """
    if not path.is_file():
        raise UsageError(f"{path}: {'is a folder; give the table itself' if path.is_dir() else 'no such file'}.")
    if _suffix(path.name) not in (*_LINES, *_JSONS, *_CELLS):
        raise UsageError(f"{path}: tables are .csv, .tsv, .jsonl or .json, not {path.suffix!r}.")
    return rows_of(str(path), header=header)


def rows_of(
    name: str, opened: Callable[[], io.BufferedReader] | None = None, *, header: bool | None = None
) -> Iterator[Row]:
    """The same; where the name has no suffix of a table, its first character tells. `opened` as of `text_lines`."""
    suffix = _suffix(name)
    lines = text_lines(name, opened, at_most=_MAX_JSON_LENGTH if suffix in _JSONS else MAX_LINE_LENGTH)
    first = next((line for line in lines if line.text.strip()), None)
    if first is None:
        return
    lines = itertools.chain([first], lines)
    if suffix in _CELLS or not (suffix in (*_LINES, *_JSONS) or first.text.lstrip()[0] in "{["):
        yield from _delimited(lines, first, "\t" if suffix == ".tsv" else ",", header)
    else:
        yield from _json(name, lines, always_lines=suffix in _LINES)


def _suffix(name: str) -> str:
    return PurePosixPath(name.removesuffix(".gz")).suffix


def needed(row: Row, column: str) -> str:
    """The cell of a column that must be there and filled, as text.

    Raises:
        UsageError: the table has no such column, or the cell is empty.
    """
    if column in row.values:
        return str(row.values[column])
    if column not in row.columns:
        raise UsageError(f"{row.where}: no column {column!r} in the table. It has: {', '.join(row.columns)}.")
    raise UsageError(f"{row.where}: nothing in column {column!r}.")


def whole_number(row: Row, column: str) -> int:
    """The same as an integer.

    Raises:
        UsageError: also if it is none.
    """
    cell = needed(row, column)
    try:
        return int(cell)
    except ValueError:
        raise UsageError(f"{row.where}: {column} is {cell[:40]!r}, expected a whole number.") from None


def seconds(value: Any, where: str, name: str) -> float:
    """A duration or a point in time that somebody wrote down, as a number of seconds.

    Raises:
        UsageError: it is no number from 0 on.
    """
    is_none = isinstance(value, bool) or (isinstance(value, str) and "_" in value)  # which Python takes for numbers
    try:
        found = math.nan if is_none else float(value)
    except (TypeError, ValueError, OverflowError):  # no float is as large as a whole number may be
        found = math.nan
    if not 0.0 <= found < math.inf:
        raise UsageError(f"{where}: {name} is {value!r:.60}, expected 0 or more seconds.")
    return found


def without_file(row: Row, what: str) -> UsageError:
    """The error of a row in which no column names a file; `what` the file is."""
    there = find_column(row.columns, FILE_COLUMNS)
    if there is not None:
        return UsageError(f"{row.where}: nothing in column {there!r}, which names {what}.")
    names = ", ".join(row.columns)
    divided = len(row.columns) == 1 and (";" in names or "\t" in names)
    hint = " Divide the cells of a .csv by commas, those of a .tsv by tabs." if divided else ""
    return UsageError(
        f"{row.where}: no column names {what}. It is called one of {', '.join(FILE_COLUMNS)}; there are: {names[:200]}."
        f"{hint}"
    )


def renamed(row: Row, names: Mapping[str, str]) -> dict[str, Any]:
    """The filled cells of some columns under other names: {column: name}; a column that is not there is left out."""
    return {name: row.values[column] for column, name in names.items() if column in row.values}


def unfolded(values: Mapping[str, Any], nested: Sequence[str], where: str) -> dict[str, Any]:
    """The values with each object under a name of `nested` replaced by its own values, as NAME_KEY.

    Raises:
        UsageError: it is no object, or a name comes twice.
    """
    result = {name: value for name, value in values.items() if name not in nested}
    for name in nested:
        inner = values.get(name, {})
        if not isinstance(inner, Mapping):
            raise UsageError(f"{where}: {name!r} holds no object, but a {type(inner).__name__}: {str(inner)[:40]!r}.")
        for key, value in inner.items():
            column = f"{name}_{key}"
            if column in result:
                raise UsageError(f"{where}: {name!r} would give a second column {column!r}. Rename one of the two.")
            result[column] = value
    return result


def find_column(columns: Collection[str], names: Sequence[str]) -> str | None:
    """The first of `names` that is a column."""
    return next((name for name in names if name in columns), None)


def text_named(metadata: dict[str, Any]) -> dict[str, Any]:
    """The same metadata with its transcription under "text", whatever column it stood in."""
    column = find_column(metadata, TEXT_COLUMNS)
    if column is None:
        return metadata
    return {"text" if name == column else name: value for name, value in metadata.items()}


def check_metadata_names(names: Collection[str], where: str) -> None:
    """Raises UsageError if a name is one that the stream or an utterance gives to its own values."""
    taken = sorted(TAKEN_NAMES.intersection(names))
    if taken:
        raise UsageError(f"{where}: the stream uses the name {taken[0]!r} itself. Rename that column, or drop it.")


def _delimited(lines: Iterator[TextLine], first: TextLine, divider: str, header: bool | None) -> Iterator[Row]:
    where = first.where

    def texts() -> Iterator[str]:
        nonlocal where
        for line in lines:
            where = line.where
            yield line.text

    divider = next((mark for mark in "\t|" if mark in first.text), divider)
    # Only between commas do quotation marks quote; elsewhere they are part of the text.
    quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if divider == "," else csv.QUOTE_NONE
    columns: list[str] | None = None
    try:
        for values in csv.reader(texts(), delimiter=divider, quoting=quoting, strict=True):
            if columns is None:
                columns = [value.strip() for value in values]
                if header is None:
                    header = divider != "|" or find_column(columns, (*FILE_COLUMNS, "id", "key")) is not None
                if header:
                    _refuse_twins(columns, where)
                    continue
                columns = list(_HEADERLESS_COLUMNS[: len(columns)])
            if len(values) > len(columns):
                raise UsageError(
                    f"{where}: {len(values)} cells for {len(columns)} columns, divided by {divider!r}. The first line "
                    "names the columns"
                    + ("; a text with a comma in it stands in quotation marks." if divider == "," else ".")
                )
            if values:
                filled = {name: cell for name, cell in zip(columns, values, strict=False) if cell != ""}
                yield Row(where, filled, tuple(columns))
    except csv.Error as error:
        raise UsageError(f"{where}: not readable as a table: {error}.") from None


def _refuse_twins(columns: Sequence[str], where: str) -> None:
    counts = Counter(columns)
    twice = [name for name in counts if name and counts[name] > 1]
    if twice:
        raise UsageError(f"{where}: two columns are called {twice[0]!r}. Rename one of them.")


def _json(name: str, lines: Iterator[TextLine], *, always_lines: bool) -> Iterator[Row]:
    """JSON lines, also under the name .json, as NeMo writes them; else one list of objects or {file: {...}}."""
    filled = (line for line in lines if line.text.strip())
    head = list(itertools.islice(filled, 2))
    lines = itertools.chain(head, filled)
    if always_lines or _are_rows(head):
        for where, text in lines:
            yield _json_row(where, _parsed(text, where))
        return
    content = _parsed("".join(line.text for line in lines), name)
    if isinstance(content, list):
        for number, values in enumerate(content):
            yield _json_row(f"{name}, item {number}", values)
        return
    if not isinstance(content, dict):
        raise UsageError(f"{name}: expected a list of objects or {{file: {{...}}}}.")
    for file, values in content.items():
        row = _json_row(f"{name}, {file!r}", values)
        yield row._replace(values={"file": file, **row.values}, columns=("file", *row.columns))


def _are_rows(head: Sequence[TextLine]) -> bool:
    """Whether a file that begins with these lines, one or two, has an object a line."""
    try:
        first = json.loads(head[0].text) if head else None
    except (ValueError, RecursionError):
        return False
    return isinstance(first, dict) and (len(head) > 1 or not all(isinstance(value, dict) for value in first.values()))


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise UsageError(f"two values are called {twice!r}. Rename one of them.")
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_without_twins)
"""Made once: `json.loads` with a hook makes one for each line, which doubles the time."""


def _parsed(text: str, where: str) -> Any:
    try:
        return _JSON.decode(text)
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}.") from None


def _json_row(where: str, values: Any) -> Row:
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected an object, found {values!r:.40}.")
    return Row(where, {name: value for name, value in values.items() if value is not None}, tuple(values))
