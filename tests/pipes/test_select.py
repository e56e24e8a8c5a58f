from __future__ import annotations

from typing import Any

import pytest
import torch

import s3prl_stream as ss
from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes import EncodeCategory, NormWav, SetOutputKeys

DATA = [{"wav": torch.ones(3), "label": "a", "text": "A"}]
TAGS = {"key", "set", "epoch", "identity"}


@pytest.mark.parametrize(
    "pipe",
    [
        SetOutputKeys(output_keys={"x": "wav", "y": "class_id"}),
        SetOutputKeys({"x": "wav", "x_len": "wav_len", "y": "class_id"}),  # type: ignore[dict-item]
    ],
)
def test_keys_under_other_names(pipe: SetOutputKeys) -> None:
    chain = pipe(EncodeCategory()(DATA))
    (sample,) = chain
    assert set(sample) == {*TAGS, "x", "y"} == set(chain.known_keys() or ())
    assert (sample["x"].tolist(), sample["y"]) == ([1.0, 1.0, 1.0], 0)
    assert "gives x, y only" in str(chain)


def test_a_list_of_keys() -> None:
    chain = NormWav()(DATA).select(["text"])
    assert set(next(iter(chain))) == {*TAGS, "text"}
    with pytest.raises(ChainError, match=r"NormWav takes 'wav'.*SetOutputKeys gives: .*text"):
        chain.norm_wav()


def test_a_key_that_no_sample_has_is_refused() -> None:
    with pytest.raises(ChainError, match="takes 'label2'"):
        SetOutputKeys(output_keys=["label2"])(DATA)


def test_who_a_sample_is_gets_no_other_value() -> None:
    with pytest.raises(UsageError, match="'set' says who a sample is and stays"):
        SetOutputKeys(output_keys={"set": "text"})
    assert next(iter(NormWav()(DATA).select(["key", "text"])))["key"] == next(iter(NormWav()(DATA)))["key"]


def test_behind_a_device_lengths_go_with_their_tensors() -> None:
    data = {str(n): {"wav": torch.ones(8000 + 1000 * n), "text": "A"} for n in range(4)}

    def batches(device: bool) -> list[dict[str, Any]]:
        stream: Any = ss.ShardStream(data, epochs=1, max_batch_seconds=1.5).load_audio()
        chain = (stream.on("cpu") if device else stream).features("logmel80").select({"x": "feat", "words": "text"})
        return [*ss.Loader(chain, rank=0, world_size=3)]

    plain, moved = batches(False), batches(True)
    assert len(plain) == len(moved) == 1
    for a, b in zip(plain, moved, strict=True):
        assert set(a) == set(b) == {"batch_index", "weight", "key", "set", "epoch", "x", "x_len", "words"}
        assert torch.equal(a["x_len"], b["x_len"])
        torch.testing.assert_close(a["x"], b["x"], atol=1e-4, rtol=0)
