"""One schema for a whole set, whatever the utterances' metadata hold."""

from __future__ import annotations

import pyarrow as pa

from s3prl_stream.hashing import key_hash
from s3prl_stream.shards.layout import INDEX_COLUMNS
from s3prl_stream.shards.rows import IndexRow, columns_of, index_table, metadata_kinds

METADATA = [
    {"text": "a", "level": 1, "score": 1, "clean": True, "mixed": 1, "segments": [], "huge": 2**63, "low": -(2**63),
     "tags": [{"b": 1, "a": 2}]},
    {"text": "b", "score": 0.5, "clean": False, "mixed": "one", "zero": None, "huge": 1, "low": 2**63 - 1, "tags": "y",
     "level": None},
]  # fmt: skip


def test_columns_take_the_narrowest_type_that_holds_all_values() -> None:
    assert list(columns_of([metadata_kinds(METADATA)]).items()) == [
        ("clean", "bool"),
        ("huge", "string"),
        ("level", "int64"),
        ("low", "int64"),
        ("mixed", "string"),
        ("score", "double"),
        ("tags", "string"),
        ("text", "string"),
    ]


def test_tables_have_the_fixed_columns_first_and_say_what_the_rows_say() -> None:
    rows = [
        IndexRow(f"k{n}", "s-000000.tar", 2048 * n, 2048, 2**32 - 1, "flac", 8000, 4000, m)
        for n, m in enumerate(METADATA)
    ]
    columns = columns_of([metadata_kinds(METADATA)])
    table = index_table(rows, columns)
    assert table.column_names == [*INDEX_COLUMNS, *columns]
    assert {name: str(table.schema.field(name).type) for name in INDEX_COLUMNS} == INDEX_COLUMNS
    first, second = table.to_pylist()
    assert first["key_hash"] == key_hash("k0")
    assert (first["seconds"], first["crc32c"], second["offset"]) == (0.5, 2**32 - 1, 2048)
    assert (first["mixed"], second["mixed"], first["huge"], first["tags"]) == (
        "1",
        "one",
        str(2**63),
        '[{"a": 2, "b": 1}]',
    )
    assert (first["score"], second["level"]) == (1.0, None)


def test_a_shard_without_some_metadata_has_their_columns_all_the_same() -> None:
    row = IndexRow("k", "s-000000.tar", 0, 1, 0, "wav", 8000, 1, {})
    table = index_table([row], {"text": "string", "level": "int64"})
    assert table.schema.field("level").type == pa.int64()
    assert table.column("text").null_count == 1
