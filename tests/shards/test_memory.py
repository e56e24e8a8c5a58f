"""Samples in memory: what is no sample is said, and text that is no Unicode harms nobody."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from streams import RATE, clips

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
        ([{"wav": WAV, "sample_rate": float("inf")}], "sample_rate inf; expected"),
        ([{"wav": WAV, "sample_rate": 2**31}], "sample_rate 2147483648; expected"),
        ({"half \ud83d": {"wav": WAV}}, r"the key 'half \\ud83d' holds half a character"),
    ],
)
def test_what_is_no_sample_is_refused(samples: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        MemoryShards(samples)


@pytest.mark.parametrize("wrong", [{"name": 5}, *({"samples_per_shard": n} for n in (0, -1, 2.5, "3", None))])
def test_a_name_or_number_that_is_none_is_refused(wrong: dict[str, Any]) -> None:
    """With -1, all samples would be gone."""
    [(name, value)] = wrong.items()
    with pytest.raises(UsageError, match=f"MemoryShards: {name}={value!r} is no"):
        MemoryShards([{"wav": WAV}], **wrong)


def test_half_characters_in_metadata_are_delivered_and_can_be_selected_by() -> None:
    """JSON can hold them, Arrow cannot."""
    shards = MemoryShards([{"wav": WAV, "text": "half \ud83d", "\ud83d": 1}, {"wav": WAV, "text": "whole"}])
    assert shards.columns()["text"] == "string"
    for where, expected in ((None, ["half \ud83d", "whole"]), ("text != 'whole'", ["half \ud83d"])):
        stream = ss.ShardStream(shards, shuffle=False, epochs=1, where=where)
        assert sorted(sample["text"] for sample in stream) == expected


def test_what_changes_the_plan_of_samples_in_memory_changes_their_fingerprint() -> None:
    data = clips([1.0] * 9)
    faster = {key: {**sample, "sample_rate": 2 * RATE} for key, sample in data.items()}
    sets = [MemoryShards(data), MemoryShards(data, samples_per_shard=3), MemoryShards(faster)]
    assert len({one.fingerprint for one in sets}) == 3
    assert MemoryShards(data).fingerprint == sets[0].fingerprint


@pytest.mark.parametrize(
    "sample", [{"wav": 5}, {"wav": np.zeros(9), "sample_rate": 0}, {"wav": [], "sample_rate": None}]
)
def test_a_sample_in_memory_without_a_length_is_named(sample: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"'a' has a wav of type \w+ and sample_rate"):
        MemoryShards({"a": sample})


def test_metadata_of_several_kinds_become_text_in_memory() -> None:
    data = {"a": {"wav": np.zeros(9), "label": 1}, "b": {"wav": np.zeros(9), "label": "x"}}
    assert len(ss.ShardStream(data, where="label == 'x'").selection) == 1
