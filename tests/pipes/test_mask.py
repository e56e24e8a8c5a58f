"""Masks: what is altered is what is selected, and the distributions are S3PRL's.

Figures "of S3PRL" are measured ones: 2000 utterances of 500 frames and 80 bins through its own masking function
(S3PRL 0.4.18, seed 0).
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.mask import MaskedReconstruction, reconstruction_mask


def features(num_frames: int, num_bins: int = 80) -> Tensor:
    """Every element differs from every other, and none is 0."""
    return (torch.arange(num_frames * num_bins, dtype=torch.float32) + 1).view(num_frames, num_bins)


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


@pytest.mark.parametrize("legacy", [True, False])
def test_share_of_masked_frames(legacy: bool) -> None:
    """S3PRL: 14.49 % (time and frequency); 22.89 % of all elements are in the loss; 9.54 runs, 86.4 % of length 7."""
    feat_FD, rng = features(500), np.random.default_rng(1)
    shares, elements, runs, widths = [], [], [], Counter[int]()
    for _ in range(2000):
        _, selected_FD = reconstruction_mask(feat_FD, rng, band_share=0.2, legacy=legacy)
        width = int(selected_FD.numpy().all(axis=0).sum())
        chosen_F = selected_FD.numpy().sum(axis=1) > width
        shares.append(chosen_F.mean())
        elements.append(selected_FD.numpy().mean())
        runs.append(run_lengths(chosen_F))
        widths[width] += 1
    assert np.mean(shares) == pytest.approx(0.1449, abs=0.0006)
    assert min(shares) >= 0.09
    assert max(shares) == pytest.approx(77 / 500)
    assert np.mean(elements) == pytest.approx(0.2289, abs=0.004)
    assert np.mean([len(lengths) for lengths in runs]) == pytest.approx(9.54, abs=0.1)
    lengths = Counter(length for found in runs for length in found)
    assert min(lengths) == 7
    assert lengths[7] / lengths.total() == pytest.approx(0.864, abs=0.01)
    assert set(widths) == set(range(17))
    assert max(abs(count - 2000 / 17) for count in widths.values()) < 4 * (2000 / 17) ** 0.5


def test_legacy_throws_one_dice_per_utterance() -> None:
    """S3PRL: 1582 zero, 221 replace, 197 keep of 2000; expected 80, 10 and 10 %."""
    feat_FD, rng, counts = features(500, 4), np.random.default_rng(2), Counter[str]()
    for _ in range(2000):
        masked_FD, selected_FD = reconstruction_mask(feat_FD, rng, band_share=0.0, legacy=True)
        found = dice_of(feat_FD, masked_FD, selected_FD)
        # a span may be replaced by itself
        counts["replace" if found == {"replace", "keep"} else found.pop()] += 1
    assert counts["zero"] == pytest.approx(1600, abs=3 * 18)
    assert counts["replace"] == pytest.approx(200, abs=3 * 13.5)
    assert counts["keep"] == pytest.approx(200, abs=3 * 13.5)


def test_each_span_throws_its_own_dice_by_default() -> None:
    feat_FD, rng = features(500, 4), np.random.default_rng(3)
    zeroed = chosen = mixed = 0
    for _ in range(1000):
        masked_FD, selected_FD = reconstruction_mask(feat_FD, rng, band_share=0.0)
        chosen_F = selected_FD.all(dim=1)
        chosen += int(chosen_F.sum())
        zeroed += int((masked_FD[chosen_F] == 0).all(1).sum())
        mixed += len(dice_of(feat_FD, masked_FD, selected_FD)) > 1
    assert zeroed / chosen == pytest.approx(0.8, abs=0.015)
    # 1 - (0.8^11 + 2 * 0.1^11): 11 spans that do not all fall the same way
    assert mixed / 1000 == pytest.approx(0.914, abs=0.03)


@settings(max_examples=200, deadline=None)
@given(num_frames=st.integers(1, 120), seed=st.integers(0, 10_000), kind=st.sampled_from([0.2, 0.0]))
def test_never_empty_and_unselected_elements_stay(num_frames: int, seed: int, kind: float) -> None:
    feat_FD = features(num_frames)
    masked_FD, selected_FD = reconstruction_mask(feat_FD, np.random.default_rng(seed), band_share=kind)
    assert bool(selected_FD.any())
    assert torch.equal(masked_FD[~selected_FD], feat_FD[~selected_FD])
    assert torch.equal(feat_FD, features(num_frames))
    assert masked_FD.shape == selected_FD.shape == feat_FD.shape


def test_replaced_frames_are_a_run_of_the_utterance() -> None:
    feat_FD, rng = features(100, 80), np.random.default_rng(4)
    seen = 0
    for _ in range(300):
        masked_FD, selected_FD = reconstruction_mask(feat_FD, rng, band_share=0.0, legacy=True)
        if dice_of(feat_FD, masked_FD, selected_FD) == {"replace"}:
            seen += 1
            origin_F = ((masked_FD[:, 0] - 1) / 80).long()
            assert torch.equal(masked_FD, feat_FD[origin_F])
    assert seen > 10


def test_legacy_has_no_span_below_24_frames() -> None:
    rng = np.random.default_rng(5)
    for _ in range(50):
        assert not reconstruction_mask(features(23), rng, band_share=0.0, legacy=True)[1].any()
        assert int(reconstruction_mask(features(24), rng, band_share=0.0, legacy=True)[1].all(1).sum()) == 7


def test_the_stage_draws_by_identity_and_keeps_feat() -> None:
    data = [{"key": key, "feat": features(200)} for key in ("a", "b")]
    chain = MaskedReconstruction(kind="tera")(data)
    chain.set_epoch(0)
    first = {sample["key"]: sample for sample in chain}
    again = {sample["key"]: sample for sample in MaskedReconstruction(kind="tera")(data[::-1])}
    assert torch.equal(first["a"]["masked_feat"], again["a"]["masked_feat"])
    assert not torch.equal(first["a"]["loss_mask"], first["b"]["loss_mask"])
    assert torch.equal(first["a"]["feat"], features(200))
    chain.set_epoch(1)
    assert not torch.equal(next(iter(chain))["loss_mask"], first["a"]["loss_mask"])


@pytest.mark.parametrize("kind", ["mockingjay", "audio_albert"])
def test_only_tera_masks_a_band(kind: str) -> None:
    for sample in MaskedReconstruction(kind=kind)([{"key": str(n), "feat": features(300)} for n in range(50)]):
        assert not sample["loss_mask"].all(dim=0).any()


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(UsageError, match="tera, mockingjay, audio_albert"):
        MaskedReconstruction(kind="terra")
