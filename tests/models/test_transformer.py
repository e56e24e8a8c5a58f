"""The encoder: S3PRL's numbers, the published parameter counts, padding, and what a mistake says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import s3prl_stream as ss
from s3prl_stream.errors import UsageError
from s3prl_stream.models.transformer import ReconstructionHead, sinusoids
from s3prl_stream.objectives.masked_reconstruction import MaskedReconstructionObjective, masked_l1
from s3prl_stream.pipes.features import cmvn, log_mel
from s3prl_stream.pipes.norm_wav import scale_to_db
from s3prl_stream.recipes.s3prl_import import load_s3prl

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tera_tiny.npz"


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts() -> None:
    assert count(ss.build_encoder("tera")) == 21_327_360
    assert count(ReconstructionHead(768, 80)) == 653_648
    assert count(ss.build_encoder("mockingjay")) == 21_450_240
    assert count(ReconstructionHead(768, 240)) == 776_688
    assert count(ss.build_encoder("audio_albert")) == 7_151_616


@pytest.mark.parametrize("number", [0, 1, 2])
def test_from_the_waveform_alone(reference: Path, number: int) -> None:
    """A batch of one. The FFT's rounding shows in nearly silent bins (6e-5 on another CPU): the bound is 2e-4."""
    wav = np.load(reference / "common" / "wavs.npz")[f"wav{number}"].astype(np.float32) / 32768
    given = np.load(reference / "tera" / "extract.npz")
    feat_FD = cmvn(log_mel(torch.as_tensor(scale_to_db(wav, -25.0))))
    difference_FD = (feat_FD - torch.from_numpy(given[f"single{number}_feat"])).abs()
    assert difference_FD.median() < 1e-6
    assert difference_FD.max() < 2e-4
    encoder: Any = load_s3prl(reference / "tera" / "weights_only.ckpt")[1].encoder
    with torch.no_grad():
        last_FH = encoder(feat_FD[None], torch.tensor([len(feat_FD)]))[-1][0]
    torch.testing.assert_close(last_FH, torch.from_numpy(given[f"single{number}_last"]), atol=2e-4, rtol=0)


def test_golden_file() -> None:
    """The same checks without the reference: weights, input, hidden states, loss and a gradient kept in the tests."""
    given: Any = np.load(GOLDEN)
    weights = {name.removeprefix("w/"): torch.from_numpy(given[name]) for name in given.files if name.startswith("w/")}
    encoder = ss.build_encoder("tera", feat_dim=12, hidden_size=16, num_layers=2, num_heads=2, ffn_size=24)
    head = ReconstructionHead(16, 12)
    objective = MaskedReconstructionObjective(encoder, head).eval()
    objective.load_state_dict(weights)
    feat_BFD, lengths_B = torch.from_numpy(given["feat"]), torch.from_numpy(given["feat_len"])
    selected_BFD = torch.from_numpy(given["loss_mask"])
    hidden_states = encoder(feat_BFD * ~selected_BFD, lengths_B)
    valid_BF = torch.arange(feat_BFD.shape[1]) < lengths_B[:, None]
    for found, expected in zip(hidden_states, torch.from_numpy(given["hidden_states"]), strict=True):
        torch.testing.assert_close(found[valid_BF], expected[valid_BF], atol=1e-5, rtol=0)
    loss = masked_l1(head(hidden_states[-1]), feat_BFD, selected_BFD)
    assert loss.mean.item() == pytest.approx(float(given["loss"]), abs=1e-6)
    loss.mean.backward()
    assert encoder.project.weight.grad is not None
    torch.testing.assert_close(encoder.project.weight.grad, torch.from_numpy(given["gradient"]), atol=1e-6, rtol=1e-5)


def test_padding_does_not_reach_valid_frames() -> None:
    encoder = ss.build_encoder("tera", hidden_size=32, num_layers=2, num_heads=4, ffn_size=64).eval()
    feat_BFD = torch.randn(2, 30, 80, generator=torch.Generator().manual_seed(0))
    lengths_B = torch.tensor([30, 17])
    other_BFD = feat_BFD.clone()
    other_BFD[1, 17:] = 1000.0
    with torch.no_grad():
        alone = encoder(feat_BFD[1:, :17], lengths_B[1:])[-1][0]
        padded = encoder(feat_BFD, lengths_B)[-1][1, :17]
        disturbed = encoder(other_BFD, lengths_B)[-1][1, :17]
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=0)
    assert torch.equal(padded, disturbed)


def test_inputs_longer_than_the_table_of_positions() -> None:
    encoder = ss.build_encoder("tera", hidden_size=8, num_layers=1, num_heads=1, ffn_size=8).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 1500, 80), torch.tensor([1500]))[-1].shape == (1, 1500, 8)
    assert torch.equal(encoder.position_FH[:1500], sinusoids(1500, 8))
    assert "position_FH" not in encoder.state_dict()


def test_audio_albert_uses_one_layer_as_often_as_asked() -> None:
    encoder = ss.build_encoder("audio_albert", hidden_size=8, num_layers=5, num_heads=1, ffn_size=8)
    assert len(encoder.layers) == 1
    assert len(encoder(torch.zeros(1, 4, 80), torch.tensor([4]))) == 6


def test_wrong_sizes_are_refused_by_name() -> None:
    with pytest.raises(UsageError, match="tera, mockingjay, audio_albert"):
        ss.build_encoder("tera2")
    with pytest.raises(UsageError, match="no size width"):
        ss.build_encoder("tera", width=3)
    with pytest.raises(UsageError, match="not a multiple of num_heads 12"):
        ss.build_encoder("tera", hidden_size=100)
