"""The encoder: S3PRL's numbers, the published parameter counts, padding, and what a mistake says."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import s3prl_stream as ss
from s3prl_stream.errors import UsageError
from s3prl_stream.models.s3prl_weights import convert_encoder, convert_head, load_s3prl_transformer
from s3prl_stream.models.transformer import ReconstructionHead, sinusoids
from s3prl_stream.objectives.masked_reconstruction import MaskedReconstructionObjective, masked_l1
from s3prl_stream.pipes.features import cmvn, log_mel
from s3prl_stream.pipes.norm_wav import scale_to_db

FOLDER = Path(__file__).resolve().parents[3] / "shared" / "reference"
GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "tera_tiny.npz"
TRANSFORMERS = ("tera", "mockingjay", "audio_albert")


@pytest.fixture
def reference() -> Path:
    """Numbers that S3PRL itself computed; users need not have them."""
    if not FOLDER.is_dir():
        pytest.skip("no reference numbers of S3PRL at ../shared/reference beside the checkout")
    return FOLDER


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def test_published_parameter_counts() -> None:
    assert count(ss.build_encoder("tera")) == 21_327_360
    assert count(ReconstructionHead(768, 80)) == 653_648
    assert count(ss.build_encoder("mockingjay")) == 21_450_240
    assert count(ReconstructionHead(768, 240)) == 776_688
    assert count(ss.build_encoder("audio_albert")) == 7_151_616
    slim = ss.build_encoder("tera", hidden_size=384, num_layers=12, num_heads=6, ffn_size=768)
    assert count(slim) == 14_238_336


@pytest.mark.parametrize("model", TRANSFORMERS)
def test_hidden_states_and_head_are_those_of_s3prl(reference: Path, model: str) -> None:
    encoder, head = load_s3prl_transformer(reference / model / "weights_only.ckpt")
    given = np.load(reference / model / "extract.npz")
    feat_BFD, feat_len_B = torch.from_numpy(given["feat"]), torch.from_numpy(given["feat_len"])
    with torch.no_grad():
        hidden_states = encoder(feat_BFD, feat_len_B)
        predicted_BFD = head(hidden_states[-1])
    valid_BF = torch.arange(feat_BFD.shape[1]) < feat_len_B[:, None]
    assert len(hidden_states) == len(given["hidden_states"]) == encoder.num_layers + 1
    for found, expected in zip(hidden_states, torch.from_numpy(given["hidden_states"]), strict=True):
        torch.testing.assert_close(found[valid_BF], expected[valid_BF], atol=1e-5, rtol=0)
    expected = torch.from_numpy(given["head_pred_every5"])
    torch.testing.assert_close(predicted_BFD[:, ::5][valid_BF[:, ::5]], expected[valid_BF[:, ::5]], atol=1e-5, rtol=0)


@pytest.mark.parametrize("number", [0, 1, 2])
def test_from_the_waveform_alone(reference: Path, number: int) -> None:
    """A batch of one. The FFT's rounding shows in nearly silent bins (6e-5 on another CPU): the bound is 2e-4."""
    wav = np.load(reference / "common" / "wavs.npz")[f"wav{number}"].astype(np.float32) / 32768
    given = np.load(reference / "tera" / "extract.npz")
    feat_FD = cmvn(log_mel(torch.as_tensor(scale_to_db(wav, -25.0))))
    difference_FD = (feat_FD - torch.from_numpy(given[f"single{number}_feat"])).abs()
    assert difference_FD.median() < 1e-6
    assert difference_FD.max() < 2e-4
    encoder, _ = load_s3prl_transformer(reference / "tera" / "weights_only.ckpt")
    with torch.no_grad():
        last_FH = encoder(feat_FD[None], torch.tensor([len(feat_FD)]))[-1][0]
    torch.testing.assert_close(last_FH, torch.from_numpy(given[f"single{number}_last"]), atol=2e-4, rtol=0)


def test_loss_and_gradients_are_those_of_s3prl(reference: Path) -> None:
    import json

    given = np.load(reference / "tera" / "objective.npz")
    meta = json.loads((reference / "tera" / "meta.json").read_text())
    encoder, head = load_s3prl_transformer(reference / "tera" / "weights_only.ckpt")
    objective = MaskedReconstructionObjective(encoder, head)  # loaded in evaluation mode: no dropout
    target_BFD = torch.from_numpy(given["target"])
    selected_BFD = torch.from_numpy(np.unpackbits(given["batch_label_bits"], axis=-1)[..., :80].astype(np.bool_))
    loss = objective(
        {
            "key": ["a", "b"],
            "feat": target_BFD,
            "feat_len": torch.from_numpy(given["batch_attn_mask"]).long().sum(1),
            "masked_feat": target_BFD * ~selected_BFD,
            "loss_mask": selected_BFD,
        }
    )
    assert int(loss.num_elements) == meta["scalars"]["mask_elements"]["value"] == 15094
    assert loss.mean.item() == pytest.approx(1.1491503715515137, abs=1e-6)
    loss.mean.backward()
    theirs = meta["train_trajectory"]["first_step_param_grad_l2"]
    norms = {name: float(gradient.norm()) for name, gradient in split_gradients(objective)}
    compared = 0
    for name, expected in theirs.items():
        if not name.endswith("key.bias"):  # 0 in theory: a constant added to all scores; what is left is rounding
            assert norms[name] == pytest.approx(expected, rel=1e-5), name
            compared += 1
    assert compared == len(theirs) - 3


def split_gradients(objective: MaskedReconstructionObjective) -> Iterator[tuple[str, Tensor]]:
    """Gradients under S3PRL's names."""
    names = {
        "attention_out": "attention.output.dense",
        "attention_norm": "attention.output.LayerNorm",
        "ffn_in": "intermediate.dense",
        "ffn_out": "output.dense",
        "ffn_norm": "output.LayerNorm",
    }
    for name, parameter in objective.named_parameters():
        assert parameter.grad is not None
        part, _, rest = name.partition(".")
        words = rest.split(".")
        if part == "head":
            yield f"SpecHead.{rest.replace('norm', 'LayerNorm')}", parameter.grad
        elif words[0] == "project":
            yield f"Transformer.input_representations.spec_transform.{words[1]}", parameter.grad
        elif words[0] == "norm":
            yield f"Transformer.input_representations.LayerNorm.{words[1]}", parameter.grad
        elif words[2] == "query_key_value":
            for which, gradient in zip(("query", "key", "value"), parameter.grad.chunk(3), strict=True):
                yield f"Transformer.encoder.layer.{words[1]}.attention.self.{which}.{words[3]}", gradient
        else:
            yield f"Transformer.encoder.layer.{words[1]}.{names[words[2]]}.{words[3]}", parameter.grad


def test_a_checkpoint_as_the_runner_writes_it_loads_without_its_classes(reference: Path) -> None:
    encoder, _ = load_s3prl_transformer(reference / "tera" / "states-0.ckpt")
    plain, _ = load_s3prl_transformer(reference / "tera" / "weights_only.ckpt")
    assert torch.equal(encoder.project.weight, plain.project.weight)


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


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    torch.save({"Transformer": {}}, tmp_path / "half.ckpt")
    with pytest.raises(UsageError, match="SpecHead"):
        load_s3prl_transformer(tmp_path / "half.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    with pytest.raises(UsageError, match="not a checkpoint"):
        load_s3prl_transformer(tmp_path / "text.ckpt")


def test_converted_names_fit() -> None:
    assert convert_head({"LayerNorm.weight": torch.ones(1)}) == {"norm.weight": torch.ones(1)}
    with pytest.raises(KeyError):
        convert_encoder({})
