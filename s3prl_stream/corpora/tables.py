"""Rows of a table that describes audio: CSV, TSV, JSON lines, or JSON of the form {file: {...}}."""

from __future__ import annotations

import contextlib
import csv
import gzip
import io
import json
import zlib
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple, cast

from s3prl_stream.errors import UsageError
from s3prl_stream.sample import RESERVED_KEYS

FILE_COLUMNS = ("audio_filepath", "audio", "audio_path", "wav_path", "path", "wav", "file", "filename", "file_name")
TAKEN_NAMES = RESERVED_KEYS | {"start_seconds", "end_seconds"}
"""What no metadata may be called: names of the stream and of an utterance."""

TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence")
_HEADERLESS_COLUMNS = ("id", "text", "normalized_text")


class Row(NamedTuple):
    """One row of a table."""

    where: str
    """File and line, for messages."""
    values: dict[str, Any]
    """Column -> value; empty cells are left out."""
    columns: tuple[str, ...]
    """All columns of the table, or of JSON all names in this row."""


def read_rows(path: Path, *, header: bool | None = None) -> Iterator[Row]:
    """Rows in the order of the file; .gz behind the name of a CSV, TSV or JSON-lines file is understood.

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
    suffix = Path(path.stem).suffix if path.suffix == ".gz" else path.suffix
    if suffix in (".jsonl", ".ndjson"):
        return _json_lines(path)
    if path.suffix == ".json":
        return _json_object(path) if _is_whole_json(path) else _json_lines(path)
    if suffix in (".csv", ".tsv", ".txt"):
        return _delimited(path, header)
    raise UsageError(f"{path}: tables are .csv, .tsv, .jsonl or .json, not {path.suffix!r}.")


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


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if path.suffix != ".gz":
        with path.open("rb") as file:
            yield file
        return
    try:
        with gzip.open(path) as compressed:
            yield cast(BinaryIO, compressed)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise UsageError(f"{path}: a damaged gzip file: {error}. Fetch it again.") from None


def _delimited(path: Path, header: bool | None) -> Iterator[Row]:
    # What is not UTF-8 is read as surrogates, and found in its line; decoding is pages ahead of the lines.
    utf8: dict[str, Any] = {"encoding": "utf-8-sig", "errors": "surrogateescape"}
    with _opened(path) as raw, io.TextIOWrapper(raw, newline="", **utf8) as file:
        first = file.readline()
        _refuse_other_encodings(first, f"{path}, line 1")  # of UTF-16 the csv of Python 3.10 would say: contains NUL
        file.seek(0)
        divider = next((mark for mark in "\t|" if mark in first), "\t" if ".tsv" in path.suffixes else ",")
        # Only between commas do quotation marks quote; elsewhere they are part of the text.
        quoting: Literal[0, 3] = csv.QUOTE_MINIMAL if divider == "," else csv.QUOTE_NONE
        cells = csv.reader(file, delimiter=divider, quoting=quoting, strict=True)
        columns: list[str] | None = None
        try:
            for values in cells:
                where = f"{path}, line {cells.line_num}"
                _refuse_other_encodings("".join(values), where)
                if columns is None:
                    columns = [value.strip() for value in values]
                    if header is None:
                        header = divider != "|" or find_column(columns, (*FILE_COLUMNS, "id", "key")) is not None
                    if header:
                        _refuse_twins(columns, where)
                        continue
                    columns = list(_HEADERLESS_COLUMNS[: len(columns)])
                if len(values) > len(columns):
                    raise UsageError(f"{where}: {len(values)} cells for {len(columns)} columns.")
                if values:
                    filled = {name: cell for name, cell in zip(columns, values, strict=False) if cell != ""}
                    yield Row(where, filled, tuple(columns))
        except csv.Error as error:
            raise UsageError(f"{path}, line {cells.line_num}: not readable as a table: {error}.") from None


def _refuse_other_encodings(text: str, where: str) -> None:
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError:
        raise UsageError(f"{where}: not UTF-8 text. Save the table as UTF-8.") from None


def _refuse_twins(columns: Sequence[str], where: str) -> None:
    counts = Counter(columns)
    twice = [name for name in counts if name and counts[name] > 1]
    if twice:
        raise UsageError(f"{where}: two columns are called {twice[0]!r}. Rename one of them.")


def _json_lines(path: Path) -> Iterator[Row]:
    with _opened(path) as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield _json_row(f"{path}, line {number}", _parsed(line, f"{path}, line {number}"))


def _json_object(path: Path) -> Iterator[Row]:
    content = _parsed(path.read_bytes(), str(path))
    if isinstance(content, list):
        for number, values in enumerate(content):
            yield _json_row(f"{path}, item {number}", values)
        return
    if not isinstance(content, dict):
        raise UsageError(f"{path}: expected a list of objects or {{file: {{...}}}}.")
    for name, values in content.items():
        row = _json_row(f"{path}, {name!r}", values)
        yield row._replace(values={"file": name, **row.values}, columns=("file", *row.columns))


def _is_whole_json(path: Path) -> bool:
    """False for JSON lines under the name .json, as NeMo writes them."""
    with path.open("rb") as file:
        first = file.readline().strip()
    try:
        return not isinstance(json.loads(first), dict) or path.read_bytes().strip() == first
    except (ValueError, RecursionError):
        return True


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise UsageError(f"two values are called {twice!r}. Rename one of them.")
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_without_twins)
"""Made once: `json.loads` with a hook makes one for each line, which doubles the time."""


def _parsed(data: bytes, where: str) -> Any:
    try:
        return _JSON.decode(data.decode(json.detect_encoding(data), "surrogatepass"))
    except UsageError as error:
        raise UsageError(f"{where}: {error}") from None
    except (ValueError, RecursionError) as error:
        raise UsageError(f"{where}: not JSON: {error}.") from None


def _json_row(where: str, values: Any) -> Row:
    if not isinstance(values, dict):
        raise UsageError(f"{where}: expected an object, found {values!r:.40}.")
    return Row(where, {name: value for name, value in values.items() if value is not None}, tuple(values))
