from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import s3prl_stream as ss
from s3prl_stream.errors import SampleError
from s3prl_stream.pipes import SpanMask
from s3prl_stream.pipes.mask_spans import span_mask
from tests.pipes.test_mask import expected_share, run_lengths

DRAWS = 4_000


@pytest.mark.parametrize(("prob", "num_frames"), [(0.65, 749), (0.8, 749), (0.65, 100), (0.65, 30), (0.8, 12)])
def test_share_of_hidden_frames_is_the_formulas(prob: float, num_frames: int) -> None:
    rng = np.random.default_rng(0)
    shares, runs = np.zeros(DRAWS), []
    for number in range(DRAWS):
        hidden_F = span_mask(num_frames, rng, prob=prob)
        shares[number] = hidden_F.mean()
        if number < 500:
            runs += run_lengths(hidden_F)
    span = min(10, num_frames // 2)
    spans = prob * num_frames / 10
    places = num_frames - span + 1
    fewer = math.floor(spans)
    few, many = (expected_share(num_frames, span, max(number, 2), places) for number in (fewer, fewer + 1))
    expected = few + (many - few) * (spans - fewer)
    assert shares.mean() == pytest.approx(expected, abs=4 * shares.std() / DRAWS**0.5)
    assert min(runs) >= span
    if (prob, num_frames) == (0.65, 749):  # the paper: 49 % of the frames, 14.7 in a run, for 15 s
        assert shares.mean() == pytest.approx(0.49, abs=0.005)
        assert np.mean(runs) == pytest.approx(14.7, abs=0.3)


@given(num_frames=st.integers(1, 400), prob=st.floats(0, 1), span=st.integers(1, 30), seed=st.integers(0, 2**32))
def test_never_empty_and_spans_are_whole(num_frames: int, prob: float, span: int, seed: int) -> None:
    hidden_F = span_mask(num_frames, np.random.default_rng(seed), prob=prob, span_frames=span)
    assert (len(hidden_F), hidden_F.dtype) == (num_frames, np.bool_)
    assert hidden_F.any()
    assert min(run_lengths(hidden_F)) >= min(span, max(num_frames // 2, 1))


def test_frames_are_those_of_the_convolutions_or_of_a_key() -> None:
    for num_samples, frames in ((400, 1), (719, 1), (720, 2), (16_000, 49), (240_000, 749)):
        (sample,) = SpanMask()([{"wav": torch.zeros(num_samples)}])
        assert sample["frame_mask"].shape == (frames,)
        convolved = num_samples
        for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):
            convolved = (convolved - kernel) // stride + 1
        assert convolved == frames
    (sample,) = SpanMask(like="feat")([{"feat": torch.zeros(37, 80)}])
    assert sample["frame_mask"].shape == (37,)
    with pytest.raises(SampleError, match="too short"):
        list(SpanMask()([{"wav": torch.zeros(399)}]))


@pytest.mark.parametrize(
    ("settings", "used"),
    [
        ({}, {"prob": 0.65}),
        ({"kind": "hubert"}, {"prob": 0.8}),
        ({"prob": 0.1, "span_frames": 3}, {"prob": 0.1, "span_frames": 3}),
        ({"prob": 0.0, "min_spans": 7}, {"prob": 0.0, "min_spans": 7}),
    ],
)
def test_a_stage_draws_by_its_settings(settings: dict[str, Any], used: dict[str, Any]) -> None:
    stage = SpanMask(**settings)
    (sample,) = stage([{"wav": torch.zeros(240_000)}])
    assert np.array_equal(sample["frame_mask"].numpy(), span_mask(749, stage.rng(sample), **used))


def test_a_batch_has_the_masks_padded_with_frames_that_are_seen() -> None:
    data = {str(n): {"wav": torch.zeros(n * 1000 + 800)} for n in range(6)}

    def batch(source: Any) -> dict[str, Any]:
        (only,) = ss.Loader(source.mask_spans("hubert"))
        return only

    def stream() -> Any:
        return ss.ShardStream(data, max_batch_size=6, epochs=1).load_audio()

    plain, moved = batch(stream()), batch(stream().on("cpu"))
    assert torch.equal(plain["frame_mask"], moved["frame_mask"])
    assert torch.equal(plain["frame_mask_len"], moved["frame_mask_len"])
    assert plain["frame_mask_len"].tolist() == ((plain["wav_len"] - 400) // 320 + 1).tolist()
    for row, length in zip(plain["frame_mask"], plain["frame_mask_len"].tolist(), strict=True):
        assert not row[length:].any()
        assert row.any()
