"""Masks: what is altered is what is selected, and the distributions are S3PRL's.

Figures "of S3PRL" are measured ones: 2000 utterances of 500 frames and 80 bins through its own masking function
(S3PRL 0.4.18, seed 0).
"""

from __future__ import annotations

import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from s3prl_stream.pipes.mask import MaskedReconstruction, MaskSettings, altered, draw_mask, selected

LEGACY = MaskSettings(0.0, legacy=True)


def features(num_frames: int, num_bins: int = 80) -> Tensor:
    """Every element differs from every other, and none is 0."""
    return (torch.arange(num_frames * num_bins, dtype=torch.float32) + 1).view(num_frames, num_bins)


def reconstruction_mask(feat: Tensor, rng: np.random.Generator, settings: MaskSettings) -> tuple[Tensor, Tensor]:
    """(masked features, what is to be reconstructed) of one draw."""
    drawn = draw_mask(*feat.shape, rng, settings)
    return torch.from_numpy(altered(feat.numpy(), drawn)), torch.from_numpy(selected(drawn, feat.shape[1]))


def dice_of(feat: Tensor, masked: Tensor, selected: Tensor) -> set[str]:
    """What became of the frames chosen in time."""
    feat_FD, masked_FD, selected_FD = feat.numpy(), masked.numpy(), selected.numpy()
    chosen_F = selected_FD.all(axis=1)
    before, after = feat_FD[chosen_F], masked_FD[chosen_F]
    zero, same = (after == 0).all(1), (after == before).all(1)
    names = {"zero": zero, "keep": same, "replace": ~zero & ~same}
    return {name for name, rows in names.items() if rows.any()}


def run_lengths(chosen_F: np.ndarray) -> list[int]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], chosen_F.astype(int), [0]])))
    return [int(stop - start) for start, stop in zip(edges[::2], edges[1::2], strict=True)]


def expected_share(num_frames: int, span: int, num_spans: int, places: int) -> float:
    """Mean share of frames in at least one of `num_spans` spans which begin at distinct ones of `places` frames.

    A frame is in a span that begins at one of the places up to span - 1 before it; hypergeometric.
    """
    frames = np.arange(num_frames)
    covering = np.minimum(frames, places - 1) - np.maximum(frames - span + 1, 0) + 1
    missed = [math.comb(places - int(n), num_spans) / math.comb(places, num_spans) for n in covering]
    return 1.0 - float(np.mean(missed))


DRAWS = 4_000


@pytest.mark.parametrize(
    ("num_frames", "options"),
    [
        (500, {}),
        (500, {"legacy": True}),
        (100, {}),
        (1500, {}),
        (24, {}),
        (20, {}),
        (5, {}),
        (500, {"time_share": 0.4}),
    ],
)
def test_share_of_masked_frames_is_the_formulas(num_frames: int, options: dict[str, Any]) -> None:
    rng, mask = np.random.default_rng(1), MaskSettings(0.2, **options)
    span = min(7, num_frames)
    places = num_frames - span + (0 if mask.legacy else 1)
    num_spans = max(round(mask.time_share * num_frames / 7), 1)
    shares, widths, lengths = np.zeros(DRAWS), Counter[int](), Counter[int]()
    last_frame, behind_band, last_taken = False, 0, 0
    for number in range(DRAWS):
        drawn = draw_mask(num_frames, 80, rng, mask)
        shares[number] = drawn.chosen.mean()
        widths[drawn.width] += 1
        if number < 2000:
            lengths.update(run_lengths(drawn.chosen))
        assert drawn.chosen.any(), "never empty"
        last_frame |= bool(drawn.chosen[-1])
        behind_band = max(behind_band, drawn.lowest + drawn.width)
        last_taken = max(last_taken, int(drawn.origin[:-1].max()))
    expected = expected_share(num_frames, span, min(num_spans, places), places)
    assert shares.mean() == pytest.approx(expected, abs=4 * shares.std() / DRAWS**0.5 + 1e-9)
    assert set(widths) == set(range(17))
    assert float(sum((n - DRAWS / 17) ** 2 / (DRAWS / 17) for n in widths.values())) < 16 + 5 * (2 * 16) ** 0.5
    assert min(lengths) == span, "spans are whole"
    # every place is a place, also to take another span from; S3PRL leaves out the last one
    assert (last_frame, behind_band) == ((False, 79) if mask.legacy else (True, 80))
    assert last_taken == num_frames - (2 if mask.legacy or places == 1 else 1)


def test_draws_of_s3prl_are_within_its_measured_ones() -> None:
    """2 000 utterances of 500 frames through its own function, and 2 standard deviations on either side."""
    feat_FD, rng, mask = features(500, 80), np.random.default_rng(5), MaskSettings(0.2, legacy=True)
    shares, elements, runs = [], [], []
    dice, widths = Counter[str](), Counter[int]()
    for _ in range(2000):
        drawn = draw_mask(500, 80, rng, mask)
        selected_FD = selected(drawn, 80)
        shares.append(drawn.chosen.mean())
        elements.append(selected_FD.mean())
        runs.append(run_lengths(drawn.chosen))
        widths[drawn.width] += 1
        zero, other = drawn.origin < 0, drawn.origin != np.arange(500)
        dice["zero" if zero.any() else "replace" if other.any() else "keep"] += 1
        assert not zero.any() or (zero == drawn.chosen).all(), "one dice for all spans"
    assert np.mean(shares) == pytest.approx(0.1449, abs=0.0005)
    assert (min(shares) >= 0.09, max(shares)) == (True, 77 / 500)
    assert np.mean(elements) == pytest.approx(0.2289, abs=0.003)
    assert np.mean([len(lengths) for lengths in runs]) == pytest.approx(9.54, abs=0.1)
    lengths = Counter(length for found in runs for length in found)
    assert lengths[7] / lengths.total() == pytest.approx(0.864, abs=0.01)
    assert dice["zero"] == pytest.approx(1600, abs=36)
    assert dice["replace"] == pytest.approx(200, abs=27)
    assert dice["keep"] == pytest.approx(200, abs=27)
    assert np.mean([abs(widths[width] - 2000 / 17) <= 21 for width in range(17)]) >= 0.88
    assert torch.equal(features(500, 80), feat_FD)


def test_each_span_throws_its_own_dice_by_default() -> None:
    feat_FD, rng = features(500, 4), np.random.default_rng(3)
    zeroed = chosen = mixed = 0
    for _ in range(1000):
        masked_FD, selected_FD = reconstruction_mask(feat_FD, rng, MaskSettings(0.0))
        chosen_F = selected_FD.all(dim=1)
        chosen += int(chosen_F.sum())
        zeroed += int((masked_FD[chosen_F] == 0).all(1).sum())
        mixed += len(dice_of(feat_FD, masked_FD, selected_FD)) > 1
    assert zeroed / chosen == pytest.approx(0.8, abs=0.015)
    # 1 - (0.8^11 + 2 * 0.1^11): 11 spans that do not all fall the same way
    assert mixed / 1000 == pytest.approx(0.914, abs=0.03)


@pytest.mark.parametrize("legacy", [True, False])
def test_spans_that_do_not_overlap(legacy: bool) -> None:
    """S3PRL: always 15.4 % and 11 runs of 500 frames."""
    rng, mask = np.random.default_rng(6), MaskSettings(0.0, legacy=legacy, overlap=False)
    offsets = Counter[int]()
    for _ in range(2000):
        chosen_F = draw_mask(500, 80, rng, mask).chosen
        assert run_lengths(chosen_F) == [7] * 11
        assert chosen_F.mean() == 77 / 500
        starts = np.flatnonzero(np.diff(chosen_F.astype(int), prepend=0) == 1)
        offset = set((starts % 10).tolist())  # round(1.5 * 7)
        assert len(offset) == 1
        offsets.update(offset)
    assert set(offsets) == set(range(8))
    assert draw_mask(3, 80, rng, mask).chosen.any() is not legacy


@pytest.mark.parametrize("legacy", [True, False])
def test_magnitude_alteration(legacy: bool) -> None:
    data = [{"key": str(number), "feat": features(200)} for number in range(400)]
    noisy = 0
    for sample in MaskedReconstruction(kind="tera", legacy=legacy, noise_prob=0.15)(data):
        difference_FD = (sample["masked_feat"] - sample["feat"])[~sample["loss_mask"]]
        assert sample["loss_mask"].shape == sample["feat"].shape
        if bool((difference_FD != 0).any()):
            noisy += 1
            assert float(difference_FD.double().std()) == pytest.approx(0.2, abs=0.01)
            band = sample["loss_mask"].all(dim=0)
            assert bool((sample["masked_feat"][:, band] == 0).all()) is (not legacy or not bool(band.any()))
    assert noisy == pytest.approx(60, abs=4 * (400 * 0.15 * 0.85) ** 0.5)
    plain = MaskedReconstruction(legacy=legacy)(data[:20])
    for before, after in zip(plain, MaskedReconstruction(legacy=legacy, noise_prob=1.0)(data[:20]), strict=True):
        assert torch.equal(before["loss_mask"], after["loss_mask"]), "noise never changes what is to be reconstructed"


def test_a_band_alone() -> None:
    widths = Counter(
        int(sample["loss_mask"].all(dim=0).sum())
        for sample in MaskedReconstruction(time_share=0)([{"key": str(n), "feat": features(30)} for n in range(300)])
    )
    assert set(widths) == set(range(1, 17)), "never empty"


@settings(max_examples=200)
@given(num_frames=st.integers(1, 120), seed=st.integers(0, 10_000), kind=st.sampled_from([0.2, 0.0]))
def test_never_empty_and_unselected_elements_stay(num_frames: int, seed: int, kind: float) -> None:
    feat_FD = features(num_frames)
    masked_FD, selected_FD = reconstruction_mask(feat_FD, np.random.default_rng(seed), MaskSettings(kind))
    assert bool(selected_FD.any())
    assert torch.equal(masked_FD[~selected_FD], feat_FD[~selected_FD])
    assert torch.equal(feat_FD, features(num_frames))
    assert masked_FD.shape == selected_FD.shape == feat_FD.shape


def test_replaced_frames_are_a_run_of_the_utterance() -> None:
    feat_FD, rng = features(100, 80), np.random.default_rng(4)
    seen = 0
    for _ in range(300):
        masked_FD, selected_FD = reconstruction_mask(feat_FD, rng, LEGACY)
        if dice_of(feat_FD, masked_FD, selected_FD) == {"replace"}:
            seen += 1
            origin_F = ((masked_FD[:, 0] - 1) / 80).long()
            assert torch.equal(masked_FD, feat_FD[origin_F])
            chosen_F = selected_FD.all(dim=1).numpy()
            if run_lengths(chosen_F) == [7, 7]:  # spans that neither touch nor overlap
                assert np.all(np.diff(origin_F.numpy()[chosen_F].reshape(2, 7), axis=1) == 1)
    assert seen > 10


def test_legacy_has_no_span_below_24_frames() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        assert not reconstruction_mask(features(23), rng, LEGACY)[1].any()
        assert int(reconstruction_mask(features(24), rng, LEGACY)[1].all(1).sum()) == 7


@pytest.mark.parametrize("kind", ["mockingjay", "audio_albert"])
def test_only_tera_masks_a_band(kind: str) -> None:
    for sample in MaskedReconstruction(kind=kind)([{"key": str(n), "feat": features(300)} for n in range(50)]):
        assert not sample["loss_mask"].all(dim=0).any()
