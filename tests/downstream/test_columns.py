"""What an index says about labels: which rows are trained on and judged, and the values of a column."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import s3prl_stream as ss
from s3prl_stream.downstream.columns import rows_with, values_of
from s3prl_stream.shards.shardset import as_shard_set
from s3prl_stream.shards.where import without

ROWS: dict[str, dict[str, Any]] = {
    "a": {"rate": 1.0, "word": "p", "part": "train"},
    "b": {"rate": None, "word": "p", "part": "test"},
    "c": {"rate": 3.0, "word": "r", "part": None},
    "d": {"rate": float("nan"), "word": "q", "part": "train"},
    "e": {"rate": 2.0, "word": None, "part": "train"},
}
SHARDS = as_shard_set(
    ss.MemoryShards(
        {key: {"wav": np.zeros(1600 * place, np.int16), **row} for place, (key, row) in enumerate(ROWS.items(), 1)}
    )
)


def keys(where: Any) -> str:
    return "".join(sample["key"] for sample in ss.ShardStream(SHARDS, epochs=1, shuffle=False, where=where))


def test_rows_that_say_something_in_every_column() -> None:
    assert keys(rows_with(SHARDS, None, ["rate", "word"])) == "acd"
    assert keys(rows_with(SHARDS, "part == 'test' or word == 'q'", ["rate"])) == "d"
    assert keys(rows_with(SHARDS, None, ["word"], min_seconds=0.25)) == "cd"


def test_rows_that_are_not_judged() -> None:
    """Of a row that says nothing of the condition it is not known that it is judged."""
    columns = SHARDS.columns()
    assert keys(without(None, "part == 'test'", columns)) == "acde"
    assert keys(without("word == 'p'", "part == 'test'", columns)) == "a"
    assert without("word == 'p'", None, columns) == "word == 'p'"


def test_what_selects_nothing_is_told_in_the_words_that_were_given() -> None:
    left = without("word == 'r'", "rate == 3", SHARDS.columns())
    told = """(word == 'r') and not (rate == 3)"""
    with pytest.raises(ss.UsageError, match=re.escape(f'where="{told}" selects none of the 5')):
        keys(left)
    with pytest.raises(ss.UsageError, match=re.escape(f'where="({told}) and (part is not None)" selects none')):
        keys(rows_with(SHARDS, left, ["part"]))


def test_values_are_of_selected_rows_that_have_one() -> None:
    assert list(values_of(SHARDS, "word")) == ["p", "p", "r", "q"]
    assert list(values_of(SHARDS, "word", "part == 'train'")) == ["p", "q"]
    assert list(map(float, values_of(SHARDS, "rate"))) == [1.0, 3.0, 2.0]
