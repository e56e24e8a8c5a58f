"""Collation: lengths, padding, what becomes a tensor and what a list; and what is decoded in place."""

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
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample


def test_rows_are_padded_with_zeros_and_their_lengths_kept() -> None:
    samples = [
        {"key": "a", "wav": torch.tensor([1, 2, 3], dtype=torch.int16), "feat": torch.ones(2, 4)},
        {"key": "b", "wav": torch.tensor([4], dtype=torch.int16), "feat": torch.ones(3, 4)},
    ]
    batch = collate(samples, 7)
    assert batch["batch_index"] == 7
    assert batch["weight"] == 1.0
    assert batch["key"] == ["a", "b"]
    assert batch["wav"].tolist() == [[1, 2, 3], [4, 0, 0]]
    assert batch["wav"].dtype == torch.int16
    assert batch["wav_len"].tolist() == [3, 1]
    assert batch["feat"].shape == (2, 3, 4)
    assert batch["feat"][0, 2].abs().sum() == 0
    assert batch["feat_len"].tolist() == [2, 3]


def test_scalars_become_tensors_and_the_rest_lists() -> None:
    batch = collate(
        [
            {"n": 1, "x": 0.5, "ok": True, "text": "A", "np": np.int64(3)},
            {"n": 2, "x": 1, "ok": False, "text": "B", "np": 4},
        ]
    )
    assert batch["n"].tolist() == [1, 2]
    assert batch["n"].dtype == torch.int64
    assert batch["x"].tolist() == [0.5, 1.0]
    assert batch["x"].dtype == torch.float32
    assert batch["ok"].dtype == torch.bool
    assert batch["text"] == ["A", "B"]
    assert batch["np"].tolist() == [3, 4]


def test_a_key_that_only_some_have_is_a_list_with_none() -> None:
    batch = collate([{"label": 1, "snr_db": 0.5}, {}])
    assert (batch["label"], batch["snr_db"]) == ([1, None], [0.5, None])


def test_arrays_that_cannot_be_stacked_are_an_error() -> None:
    with pytest.raises(UsageError, match="feat"):
        collate([{"feat": torch.ones(2, 4)}, {"feat": torch.ones(2, 5)}])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64, torch.complex64, torch.uint8])
def test_tensors_keep_their_type_and_leave_their_gradient(dtype: torch.dtype) -> None:
    rows = [torch.tensor([[1, 2], [3, 4]], dtype=dtype), torch.tensor([[5, 6]], dtype=dtype)]
    if dtype.is_floating_point:
        rows = [row.requires_grad_() * 1 for row in rows]
    batch = collate([{"feat": row, "mean": row.abs().float().mean()} for row in rows])
    assert batch["feat"].dtype == dtype
    assert batch["feat"].tolist() == [[[1, 2], [3, 4]], [[5, 6], [0, 0]]]
    assert not batch["feat"].requires_grad
    assert batch["mean"].tolist() == [2.5, 5.5]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_an_empty_batch_has_the_keys_of_a_full_one(dtype: str) -> None:
    batch = collate([], 3, {"feat": f"{dtype} [F, D]", "text": "any"})
    assert batch["weight"] == 0.0
    assert (batch["feat"].shape, batch["feat"].dtype) == ((0, 0, 0), getattr(torch, dtype))
    assert batch["feat_len"].shape == (0,)
    assert batch["epoch"].dtype == torch.int64


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
@hypothesis_settings(max_examples=40)
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
