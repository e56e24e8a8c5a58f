"""Samples in memory: what is no sample is said, and text that is no Unicode harms nobody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import s3prl_stream as ss
from s3prl_stream.errors import UsageError
from s3prl_stream.shards.memory import MemoryShards

WAV = np.zeros(16_000, dtype=np.int16)


@pytest.mark.parametrize(
    ("samples", "complaint"),
    [
        ([], "no samples"),
        ([{"wav": WAV}, 5], "5 is no dict"),
        ({"a": WAV}, "is no dict"),
        ([{"key": "a", "wav": WAV}, {"key": "a", "wav": WAV}], "the key 'a' stands twice"),
        ({"half \ud83d": {"wav": WAV}}, r"the key 'half \\ud83d' holds half a character"),
    ],
)
def test_what_is_no_sample_is_refused(samples: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        MemoryShards(samples)


def test_half_characters_in_metadata_are_delivered_and_can_be_selected_by() -> None:
    """JSON can hold them, Arrow cannot."""
    shards = MemoryShards([{"wav": WAV, "text": "half \ud83d", "\ud83d": 1}, {"wav": WAV, "text": "whole"}])
    assert shards.columns()["text"] == "string"
    for where, expected in ((None, ["half \ud83d", "whole"]), ("text != 'whole'", ["half \ud83d"])):
        stream = ss.ShardStream(shards, shuffle=False, epochs=1, where=where)
        assert sorted(sample["text"] for sample in stream) == expected
