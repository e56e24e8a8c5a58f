"""The encoder: S3PRL's numbers, its positions and its layers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import s3prl_stream as ss
from s3prl_stream.models.transformer import ReconstructionHead, sinusoids
from s3prl_stream.objectives.masked_reconstruction import MaskedReconstructionObjective, masked_l1
from s3prl_stream.pipes.features import cmvn
from s3prl_stream.pipes.log_mel import log_mel
from s3prl_stream.pipes.norm_wav import scale_to_db
from s3prl_stream.recipes.s3prl_import import load_s3prl

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tera_tiny.npz"


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


def test_inputs_longer_than_the_table_of_positions() -> None:
    encoder = ss.build_encoder("tera", hidden_size=8, num_layers=1, num_heads=1, ffn_size=8).eval()
    with torch.no_grad():
        assert encoder(torch.zeros(1, 1500, 80), torch.tensor([1500]))[-1].shape == (1, 1500, 8)
    assert torch.equal(encoder.position_FH[:1500], sinusoids(1500, 8))
    assert "position_FH" not in encoder.state_dict()
