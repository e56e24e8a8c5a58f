"""Index rows as Arrow tables: the fixed columns of `layout.INDEX_COLUMNS`, then the metadata that are scalars."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from s3prl_stream.hashing import key_hash
from s3prl_stream.shards.layout import INDEX_COLUMNS

if TYPE_CHECKING:
    import pyarrow as pa

_LARGEST_INT64 = 2**63 - 1


class IndexRow(NamedTuple):
    """One sample of a shard."""

    key: str
    shard: str
    offset: int
    size: int
    crc32c: int
    codec: str
    sample_rate: int
    frames: int
    metadata: Mapping[str, Any]


def metadata_kinds(all_metadata: Iterable[Mapping[str, Any]]) -> dict[str, set[str]]:
    """Name -> the kinds of values it has ("bool", "int64", "double", "string", "nested"), nulls not counted."""
    kinds: dict[str, set[str]] = {}
    for metadata in all_metadata:
        for name, value in metadata.items():
            if value is not None:
                kinds.setdefault(name, set()).add(_kind(value))
    return kinds


def columns_of(some_kinds: Iterable[Mapping[str, set[str]]]) -> dict[str, str]:
    """Column -> Arrow type ("bool", "int64", "double", "string") for a set whose parts have these `metadata_kinds`.

    Sorted by name. Integers and floats together become doubles, any other mixture strings (what is no string in it is
    written as JSON). Names that hold only lists and objects, or nothing, are no columns.
    """
    kinds: dict[str, set[str]] = {}
    for some in some_kinds:
        for name, found in some.items():
            kinds.setdefault(name, set()).update(found)
    return {name: _joint(kinds[name]) for name in sorted(kinds) if kinds[name] != {"nested"}}


def index_cells(row: IndexRow, columns: Mapping[str, str]) -> dict[str, Any]:
    """One sample's row as `index_table` writes it: column -> value."""
    return {name: values[0] for name, values in _by_column([row], columns).items()}


def index_table(rows: Sequence[IndexRow], columns: Mapping[str, str]) -> pa.Table:
    """[rows] of one shard as a table.

    Args:
        rows: in the order of the shard.
        columns: of the whole set, from `columns_of`.
    """
    import pyarrow

    kinds = {**INDEX_COLUMNS, **columns}
    values = _by_column(rows, columns)
    arrays = [pyarrow.array(values[name], type=pyarrow.type_for_alias(kind)) for name, kind in kinds.items()]
    return pyarrow.Table.from_arrays(arrays, names=list(kinds))


def rows_hash(rows: Sequence[IndexRow]) -> str:
    """32 hexadecimal digits that change when a sample's key, place, length or checksum changes."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(f"{row.key} {row.offset} {row.size} {row.frames} {row.sample_rate} {row.crc32c}\n".encode())
    return digest.hexdigest()


def table_hash(rows: Sequence[IndexRow], columns: Sequence[str]) -> str:
    """32 hexadecimal digits that change when one of these metadata of a sample does: no tar holds them."""
    digest = hashlib.blake2b(digest_size=16)
    for row in rows:
        digest.update(f"{json.dumps([row.metadata.get(name) for name in columns])}\n".encode())
    return digest.hexdigest()


def storable(value: Any) -> Any:
    """A value as Arrow can hold it: text that is not Unicode (lone surrogates from JSON) is written with \\udcXX."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _by_column(rows: Sequence[IndexRow], columns: Mapping[str, str]) -> dict[str, list[Any]]:
    fixed = {name: [getattr(row, name) for row in rows] for name in IndexRow._fields if name in INDEX_COLUMNS}
    return {
        **fixed,
        "key_hash": [key_hash(row.key) for row in rows],
        "seconds": [row.frames / row.sample_rate for row in rows],
        **{name: [_cell(row.metadata.get(name), kind) for row in rows] for name, kind in columns.items()},
    }


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64" if -_LARGEST_INT64 - 1 <= value <= _LARGEST_INT64 else "string"
    if isinstance(value, float):
        return "double"
    return "string" if isinstance(value, str) else "nested"


def _joint(kinds: set[str]) -> str:
    if len(kinds) == 1:
        return next(iter(kinds))
    return "double" if kinds == {"int64", "double"} else "string"


def _cell(value: Any, kind: str) -> Any:
    if value is None or isinstance(value, str):
        return value
    if kind == "string":
        return json.dumps(value, ensure_ascii=False, sort_keys=True)
    return float(value) if kind == "double" else value
