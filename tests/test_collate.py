"""Collation: lengths, padding, what becomes a tensor and what a list."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from s3prl_stream.collate import collate
from s3prl_stream.errors import UsageError


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
