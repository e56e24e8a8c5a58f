"""Batches in the shapes of NeMo and Lhotse: dtypes, padding, order, and what is missing. `tools/bench interop` compares
them with Lhotse's own, value for value."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from s3prl_stream.batch_shapes import lhotse_batch, nemo_batch
from s3prl_stream.collate import collate
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import Batch

LENGTHS = [3, 5, 2]


def batch_of(dtype: Any = np.float32, **more: Any) -> Batch:
    samples = [
        {
            "key": f"k{n}",
            "wav": (np.arange(1, length + 1) * (1000 if dtype == np.int16 else 0.1)).astype(dtype),
            "feat": np.full((length, 4), n, np.float32),
            "tokens": np.arange(1, n + 2),
            "text": f"text {n}",
            **more,
        }
        for n, length in enumerate(LENGTHS)
    ]
    return collate(samples)


@pytest.mark.parametrize("dtype", [np.float32, np.int16])
def test_nemo(dtype: Any) -> None:
    batch = batch_of(dtype)
    signal, signal_len, transcripts, transcript_len = nemo_batch(batch, pad_id=9)
    assert [one.dtype for one in (signal, signal_len, transcripts, transcript_len)] == [
        torch.float32, torch.int64, torch.int64, torch.int64
    ]  # fmt: skip
    assert (signal.shape, signal_len.tolist(), transcript_len.tolist()) == ((3, 5), LENGTHS, [1, 2, 3])
    assert transcripts.tolist() == [[1, 9, 9], [1, 2, 9], [1, 2, 3]]
    scale = 1000 / 32768 if dtype == np.int16 else 0.1
    torch.testing.assert_close(signal[0], torch.tensor([1.0, 2.0, 3.0, 0.0, 0.0]) * scale, atol=0, rtol=1e-6)
    assert batch["tokens"][0].tolist() == [1, 0, 0]  # the batch itself stays as it is
    encoded = nemo_batch(batch, encode=lambda text: [7] * int(text[-1]), pad_id=9)[2:]
    assert [one.tolist() for one in encoded] == [[[9, 9], [7, 9], [7, 7]], [0, 1, 2]]


@pytest.mark.parametrize(("inputs", "unit", "shape"), [("feat", "frame", (3, 5, 4)), ("wav", "sample", (3, 5))])
def test_lhotse(inputs: str, unit: str, shape: tuple[int, ...]) -> None:
    found = lhotse_batch(batch_of(), inputs=inputs)
    told = found["supervisions"]
    assert (found["inputs"].shape, found["inputs"].dtype) == (shape, torch.float32)
    assert list(told) == ["text", "sequence_idx", f"start_{unit}", f"num_{unit}s", "key"]
    assert (told["text"], told["key"]) == (["text 1", "text 0", "text 2"], ["k1", "k0", "k2"])  # the longest first
    numbers = [told[name] for name in ("sequence_idx", f"start_{unit}", f"num_{unit}s")]
    assert [one.dtype for one in numbers] == [torch.int32] * 3
    assert [one.tolist() for one in numbers] == [[0, 1, 2], [0, 0, 0], [5, 3, 2]]
    if inputs == "wav":
        assert found["inputs"].count_nonzero(dim=1).tolist() == [5, 3, 2]
    else:
        assert found["inputs"][:, 0, 0].tolist() == [1.0, 0.0, 2.0]


def test_an_empty_batch_keeps_its_shapes() -> None:
    kinds = {"wav": "float32 [T]", "tokens": "int64 [L]", "feat": "float32 [F, D]", "text": "str"}
    empty = collate([], known_keys=kinds)
    assert [tuple(one.shape) for one in nemo_batch(empty)] == [(0, 0), (0,), (0, 0), (0,)]
    assert [tuple(one.shape) for one in nemo_batch(empty, encode=lambda _: [1])[2:]] == [(0, 0), (0,)]
    assert lhotse_batch(empty)["inputs"].shape == (0, 0, 0)


def test_what_is_missing_is_said() -> None:
    batch = batch_of()
    with pytest.raises(UsageError, match=r"no 'tokens' in the batch, .* Add .tokenize\(\) to the stream"):
        nemo_batch({name: value for name, value in batch.items() if name != "tokens"})
    with pytest.raises(UsageError, match=r"no 'feat' .* Add .features\(\)"):
        lhotse_batch({name: value for name, value in batch.items() if name != "feat"})
    with pytest.raises(UsageError, match="k1: no text"):
        lhotse_batch({**batch, "text": ["a", None, "b"]})
