"""What a table beside the tars says of their samples: durations, text, speakers.

Three kinds are known by their fields: NeMo's manifest (`audio_filepath`, `duration`, `text`), Lhotse's cuts (`id`,
`duration`, `supervisions`), and any CSV, TSV or JSON lines with a column of keys. All may be compressed by gzip; they
are read front to back with bounded memory for a line and for what gzip claims.
"""

from __future__ import annotations

import functools
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.audio.lengths import ReadAtFile
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import with_free_names
from s3prl_stream.shards.foreign_sample import key_and_suffix
from s3prl_stream.shards.rows import storable
from s3prl_stream.stores.braces import existing_or_expanded
from s3prl_stream.stores.store import is_remote, open_store, paths_in
from s3prl_stream.tables import Row, find_column, rows_of, seconds

_PIECE_BYTES = 1 << 20

_KEY_COLUMNS = ("key", "id", "utterance_id", "utt_id", "audio_filepath", "audio", "path", "file", "file_name")
_SECONDS_COLUMNS = ("seconds", "duration")
_RATE_COLUMNS = ("sampling_rate", "sample_rate")
"""In the absence of seconds, `num_samples` and one of these."""

_PARTS = {"audio_filepath": "offset", "supervisions": "start"}
"""What tells a row of a part of a recording, in NeMo's manifests and in Lhotse's cuts."""

_NOT_METADATA = frozenset({*_KEY_COLUMNS, *_SECONDS_COLUMNS, "offset", "shard_id", "num_samples", "recording"})
_FROM_SUPERVISIONS = ("text", "speaker", "language", "gender")


class Table:
    """Rows by the key of their sample.

    Args:
        whole_names: the names are keys as they are; nothing is cut off them.

    Attributes:
        num_rows: how many there are.
        twice: keys that several rows claim (pieces of one recording, as a rule): none of those rows is used.
    """

    def __init__(self, whole_names: bool = False) -> None:
        self._whole_names = whole_names
        self.num_rows = 0
        self.twice: set[str] = set()
        self._rows: dict[str, bytes] = {}  # as JSON: a quarter of the memory of dicts
        self._full_names: dict[str, str | None] = {}

    @property
    def num_keys(self) -> int:
        """Different keys."""
        return len(self._rows)

    def add(self, name: str, seconds: float | None, metadata: Mapping[str, Any]) -> None:
        """One row.

        Args:
            name: key or path of the sample; what follows the first dot of its last part is cut off (but see the class).
            seconds: its duration, where the row has one.
            metadata: scalars.
        """
        self.num_rows += 1
        split = None if self._whole_names else key_and_suffix(name)
        key = (name if split is None else split[0]).removeprefix("./")
        if key in self._rows:
            self.twice.add(key)
        self._rows[key] = json.dumps([seconds, with_free_names(metadata)]).encode()
        base = key.rpartition("/")[2]
        self._full_names[base] = key if self._full_names.get(base, key) == key else None

    def durations(self) -> Iterator[tuple[str, float]]:
        """(name, seconds) under every name that `lookup_names` may ask for; NaN: the table does not say."""
        for key, row in self._rows.items():
            seconds = None if key in self.twice else json.loads(row)[0]
            duration = math.nan if seconds is None else seconds
            full_name, base_name = lookup_names(key)
            yield full_name, duration
            if self._full_names[key.rpartition("/")[2]] == key:
                yield base_name, duration

    def find(self, key: str) -> tuple[str, float | None, dict[str, Any]] | None:
        """(key of the row, seconds, metadata) for the sample of this key (as WebDataset cuts it); None: no row.

        A row whose path ends like the key counts too, if it is the only one: tars often hold names without folders.
        """
        plain = key.removeprefix("./")
        found = plain if plain in self._rows else self._full_names.get(plain.rpartition("/")[2])
        if found is None or found in self.twice:
            return None
        seconds, metadata = json.loads(self._rows[found])
        return found, seconds, metadata


def lookup_names(key: str) -> tuple[str, str]:
    """Under what a duration is looked for, as `Table.find` does: the key, then its last part alone (marked as such)."""
    plain = key.removeprefix("./")
    return plain, "\n" + plain.rpartition("/")[2]


def read_table(sources: str | Path | Sequence[str | Path], whole_names: bool = False) -> Table:
    """One table, or several as one (braces as in WebDataset); `whole_names` as of `Table`.

    Raises:
        UsageError: a row without key or of a part of a file, not JSON, a line or an inflation without bound, nothing
            in it.
    """
    table = Table(whole_names)
    names = [name for source in paths_in(sources) for name in existing_or_expanded(str(source))]
    for name in names:
        for row in rows_of(name, functools.partial(_opened, name), header=True):
            _add(table, row)
    if not table.num_rows:
        raise UsageError(f"{', '.join(names)}: no rows in it.")
    return table


def _add(table: Table, row: Row) -> None:
    where, values, _ = row
    column = find_column(values, _KEY_COLUMNS)
    if column is None:
        raise UsageError(f"{where}: no column names the sample. It is called one of {', '.join(_KEY_COLUMNS)}.")
    _refuse_parts(values, where)
    metadata = {name: value for name, value in values.items() if name not in _NOT_METADATA}
    if isinstance(values.get("supervisions"), list):
        metadata = {**_cut_metadata(values["supervisions"], where), **_scalars(values.get("custom"))}
    elif column == "audio_filepath" and isinstance(values.get("text"), str):
        metadata["text"] = values["text"]
    table.add(str(values[column]), _seconds(values, where), _scalars(metadata))


def _refuse_parts(values: Mapping[str, Any], where: str) -> None:
    for told_by, column in _PARTS.items():
        start = values.get(column) if told_by in values else None
        if isinstance(start, int | float) and start > 0:
            raise UsageError(
                f"{where}: {column} is {start}, so it is a part of a recording, with the text of that part. A sample "
                "here is a whole file: cut the files when they are written (NeMo: --slice_with_offset; Lhotse: Shar), "
                "pack what they were written from (`s3prl-stream pack manifest`, `pack lhotse`), or index without the "
                "table."
            )


def _cut_metadata(supervisions: Sequence[Any], where: str) -> dict[str, Any]:
    """Texts joined in the order of time; what all supervisions of a cut agree on."""
    if not all(isinstance(one, Mapping) for one in supervisions):
        raise UsageError(f"{where}: supervisions are objects.")
    try:
        ordered = sorted(supervisions, key=lambda one: float(one.get("start") or 0.0))
    except (TypeError, ValueError, OverflowError):
        raise UsageError(f"{where}: a supervision's start is no number of seconds.") from None
    found: dict[str, Any] = {}
    for name in _FROM_SUPERVISIONS:
        values = [one[name] for one in ordered if one.get(name) is not None]
        if name == "text" and values and len(values) == len(ordered):
            found[name] = " ".join(map(str, values))
        elif name != "text" and len({str(value) for value in values}) == 1:
            found[name] = values[0]
    if len(ordered) == 1:
        found = {**_scalars(ordered[0].get("custom")), **found}
    return found


def _scalars(values: Any) -> dict[str, Any]:
    items = values.items() if isinstance(values, Mapping) else ()
    return {str(name): storable(value) for name, value in items if isinstance(value, str | int | float) and name}


def _seconds(values: Mapping[str, Any], where: str) -> float | None:
    column = _first_given(values, _SECONDS_COLUMNS)
    if column is not None:
        return seconds(values[column], where, column)
    number, rate = _first_given(values, ["num_samples"]), _first_given(values, _RATE_COLUMNS)
    if number is None or rate is None:
        return None
    try:
        length = float(values[number]) / float(values[rate])
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        length = math.nan
    return seconds(length, where, f"{number} / {rate}")


def _first_given(values: Mapping[str, Any], names: Sequence[str]) -> str | None:
    return next((name for name in names if values.get(name) not in (None, "")), None)


def _opened(name: str) -> io.BufferedReader:
    folder, _, base = name.rpartition("/") if is_remote(name) else (str(Path(name).parent), "/", Path(name).name)
    store = open_store(folder)
    size = store.size(base)
    if size is None:
        raise UsageError(f"{name}: no such file.")
    return io.BufferedReader(
        ReadAtFile(lambda position, wanted: store.read(base, position, wanted), size), _PIECE_BYTES
    )
