"""Batches decoded in place: what a stage does to its row afterwards never shows in the batch."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from streams import RATE, clips

import s3prl_stream as ss
from s3prl_stream.batch_memory import BatchMemory
from s3prl_stream.collate import collate
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample


class Slice(Stage):
    """Any view of the waveform."""

    functional_name = "slice"

    def __init__(self, source: Any = None, *, begin: int, stop: int, step: int) -> None:
        self.begin, self.stop, self.step = begin, stop, step
        super().__init__(source)

    def emit(self, sample: Sample) -> Any:
        yield {**sample, "wav": sample["wav"][self.begin : len(sample["wav"]) - self.stop : self.step]}


@given(
    st.lists(st.floats(0.3, 2.0), min_size=1, max_size=6),
    st.sampled_from(["int16", "float32"]),
    st.integers(0, 5),
    st.integers(0, 200),
    st.integers(1, 3),
)
@hypothesis_settings(max_examples=40, deadline=None)
def test_a_stage_may_return_any_view_of_its_row(
    seconds: list[float], dtype: str, begin: int, stop: int, step: int
) -> None:
    data = clips(seconds)
    stream = ss.ShardStream(data, epochs=1).load_audio(sample_rate=RATE, dtype=dtype)
    (batch,) = ss.Loader(Slice(begin=begin, stop=stop, step=step)(stream))
    for key, row, length in zip(batch["key"], batch["wav"], batch["wav_len"].tolist(), strict=True):
        wav = data[key]["wav"]
        expected = wav[begin : len(wav) - stop : step]
        got = row[:length].numpy() if dtype == "int16" else (row[:length].numpy() * 32768).astype(np.int16)
        assert np.array_equal(got, expected)
        assert not row[length:].any()


@pytest.mark.parametrize("sample_rate", [8_000, 12_000, 16_000, 24_000])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_resampled_batches_are_padded_with_zeros(sample_rate: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    data = {}
    for number, length in enumerate((5000, 4900, 4100)):
        wav = rng.integers(5000, 9000, length, dtype=np.int16)
        flac = io.BytesIO()
        soundfile.write(flac, wav, 16_000, format="FLAC")
        data[str(number)] = {"wav": wav, "audio": flac.getvalue(), "codec": "flac", "sample_rate": 16_000}
    stream = ss.ShardStream(data, epochs=1).load_audio(sample_rate=sample_rate, dtype=dtype)
    alone = {sample["key"]: sample["wav"].clone() for sample in stream}
    (batch,) = ss.Loader(stream)
    for key, row, length in zip(batch["key"], batch["wav"], batch["wav_len"].tolist(), strict=True):
        assert torch.equal(row[:length], alone[key])
        assert not row[length:].any()


def test_a_batch_of_rows_decoded_in_place_is_not_copied() -> None:
    memory = BatchMemory()
    rows = memory.rows([8, 5], "float32")
    rows[0].array[:], rows[1].array[:] = 1, 2
    batch = collate([{"wav": row.tensor, "clean": row.tensor} for row in rows], memory=memory)
    assert batch["wav"].data_ptr() == rows[0].tensor.data_ptr()
    assert batch["wav_len"].tolist() == [8, 5]
    batch["wav"] += 1
    assert batch["clean"].tolist() == [[1.0] * 8, [2.0] * 5 + [0.0] * 3], "another key of the same rows is a copy"


def test_rows_that_lie_in_the_memory_otherwise_are_copied() -> None:
    """Pieces that overlap, and a dimension more."""
    memory = BatchMemory()
    (row,) = memory.rows([10], "float32")
    row.array[:] = np.arange(10)
    batch = collate([{"wav": row.tensor[:8]}, {"wav": row.tensor[5:]}], memory=memory)
    assert batch["wav"].tolist() == [[0, 1, 2, 3, 4, 5, 6, 7], [5, 6, 7, 8, 9, 0, 0, 0]]
    assert collate([{"wav": row.tensor[:, None]}], memory=memory)["wav"].shape == (1, 10, 1)


def test_what_is_done_to_a_batch_does_not_show_in_the_samples() -> None:
    """One sample fills its memory as a row of a batch does."""
    target = torch.arange(5)
    loader = ss.Loader(ss.ShardStream({"a": {"wav": np.ones(9, np.float32), "target": target}}, epochs=2))
    for batch in loader:
        assert batch["target"].tolist() == [[0, 1, 2, 3, 4]]
        batch["target"] += 1
    assert target.tolist() == [0, 1, 2, 3, 4]


def test_metadata_may_be_called_row() -> None:
    stream = ss.ShardStream({"a": {"wav": np.zeros(9, np.int16), "row": 3}}, epochs=1)
    (batch,) = ss.Loader(stream.load_audio(sample_rate=None))
    assert batch["row"].tolist() == [3]


def test_integers_beyond_int64_stay_a_list() -> None:
    assert collate([{"id": 10**30}, {"id": 1}])["id"] == [10**30, 1]
