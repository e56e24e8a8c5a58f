from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from s3prl_stream.pipes.record_draws import RecordDraws
from s3prl_stream.pipes.spec_augment import SpecAugment, _warped_rows, warped
from s3prl_stream.sample import Sample

FRAMES, BINS = 300, 120


def augmented(count: int, frames: int = FRAMES, **settings: Any) -> np.ndarray:
    """bool [count, F, D]: what is masked of features without a zero."""
    ones = torch.ones(frames, BINS)
    chain = SpecAugment(**settings)([{"feat": ones} for _ in range(count)])
    return np.stack([sample["feat"].numpy() == 0 for sample in chain])


def covered_by_masks(size: int, count: int, least: int, most: int) -> float:
    """The share of places that masks of `least` to `most` cover, all widths and then all places equally likely."""
    at = np.arange(size)
    missed = np.zeros(size)
    widths = range(least, most + 1)
    for width in widths:
        places = size - width + 1
        covering = np.minimum.reduce([np.full(size, width), at + 1, size - at, np.full(size, places)])
        missed += (1 - covering / places) / len(widths)
    return float(1 - np.mean(missed**count))


def test_coverage_is_that_of_the_formula() -> None:
    count = 1_000
    masked = augmented(count, warp_frames=0)
    bins, frames = masked.all(axis=1), masked.all(axis=2)
    assert np.array_equal(masked, bins[:, None] | frames[:, :, None])
    for shares, size, masks, most in ((bins.mean(axis=1), BINS, 4, 50), (frames.mean(axis=1), FRAMES, 2, 40)):
        expected = covered_by_masks(size, masks, 0, most)
        assert shares.mean() == pytest.approx(expected, abs=4 * shares.std() / np.sqrt(count))
    assert not masked.all(axis=(1, 2)).any()


def rows_of(count: int) -> list[Sample]:
    return list(RecordDraws()([{"feat": torch.zeros(FRAMES, BINS)} for _ in range(count)]))


def test_widths_and_places_are_uniform() -> None:
    rows = rows_of(2_000)
    stage = SpecAugment(freq_masks=1, time_masks=1, freq_width=(3, 7), time_width=(0, 40))
    drawn = [stage.draw(row, stage.rng(row)) for row in rows]
    widths = np.array([one["freq"][0, 1] - one["freq"][0, 0] for one in drawn])
    assert [int((widths == width).sum()) for width in range(3, 8)] == pytest.approx([400] * 5, abs=5 * np.sqrt(320))
    firsts = np.array([one["time"][0, 0] for one in drawn]) / (
        FRAMES - np.array([np.diff(one["time"])[0, 0] for one in drawn])
    )
    assert firsts.mean() == pytest.approx(0.5, abs=5 / np.sqrt(12 * 2_000))
    shifts = np.array([one["warp_to"] - one["warp_from"] for one in drawn])
    assert set(shifts) == set(range(-5, 6))
    assert shifts.mean() == pytest.approx(0, abs=5 * np.sqrt(10 / 2_000))
    for frames, moves in ((12, False), (13, True)):  # more than twice five and two
        short = [stage.draw({**row, "feat": torch.zeros(frames, BINS)}, stage.rng(row)) for row in rows_of(20)]
        assert any(one["warp_from"] != one["warp_to"] for one in short) is moves


def test_masks_are_no_longer_than_their_share_and_no_wider_than_the_features() -> None:
    masked = augmented(
        200, frames=50, time_width=(40, 40), time_masks=1, freq_masks=0, max_time_share=0.2, warp_frames=0
    )
    assert set(masked.all(axis=2).sum(axis=1)) == {10}
    assert augmented(3, frames=5, freq_width=(500, 500), warp_frames=0).all()


def test_the_warped_frame_is_where_it_should_be_and_the_ends_stay() -> None:
    ramp = np.linspace(0, 1, FRAMES, dtype=np.float32)[:, None].repeat(2, axis=1)
    moved = warped(ramp, 100, 105)
    assert moved[105] == pytest.approx(ramp[100], abs=1e-6)
    assert (moved[0], moved[-1]) == (pytest.approx(ramp[0]), pytest.approx(ramp[-1]))
    assert (np.diff(moved[:, 0]) > 0).all()
    assert moved[50] == pytest.approx(ramp[50] * 100 / 105, abs=1e-6)
    assert np.array_equal(warped(ramp, 7, 7), ramp)


def test_rows_of_a_batch_are_warped_as_each_alone() -> None:
    rng = np.random.default_rng(0)
    rows = [rng.standard_normal((frames, 4)).astype(np.float32) for frames in (60, 13, 2, 31)]
    warps = ((20, 25), (7, 2), (1, 1), (9, 9))
    padded = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(row) for row in rows], batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    found = _warped_rows(padded, lengths, *torch.tensor(warps).T)
    for row, (alone, warp) in enumerate(zip(rows, warps, strict=True)):
        assert np.abs(found[row, : len(alone)].numpy() - warped(alone, *warp)).max() <= 1e-5
        assert not found[row, len(alone) :].any()


def test_fill_mean_keeps_the_mean() -> None:
    feat = torch.arange(FRAMES * BINS, dtype=torch.float32).reshape(FRAMES, BINS)
    (sample,) = SpecAugment(fill="mean", warp_frames=0)([{"feat": feat}])
    changed = sample["feat"] != feat
    assert bool(changed.any())
    assert sample["feat"][changed].unique().tolist() == pytest.approx([float(feat.double().mean())])


def test_share_of_features_that_are_changed() -> None:
    masked = augmented(500, prob=0.3, warp_frames=0, freq_width=(1, 2))
    assert masked.any(axis=(1, 2)).mean() == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / 500))


@pytest.mark.parametrize("frames", [0, 1, 2, 3, 12, 13])
def test_short_features_come_back_in_their_shape(frames: int) -> None:
    (sample,) = SpecAugment(time_width=(0, 1))([{"feat": torch.ones(frames, 3)}])
    assert sample["feat"].shape == (frames, 3)
    assert bool(torch.isfinite(sample["feat"]).all())
