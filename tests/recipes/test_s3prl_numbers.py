"""With S3PRL's weights and input: its hidden states, heads, losses, gradients and first five updates, for all seven.

The numbers were made by S3PRL itself (README.md beside them); the tolerances are those that tell right from wrong.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from s3prl_stream.padding import is_valid
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.recipes.s3prl_export import to_s3prl
from s3prl_stream.recipes.s3prl_import import load_s3prl, load_s3prl_hubert, read_checkpoint
from s3prl_stream.trainer.optimizer import apply_update, build_optimizer, learning_rate
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.upstreams.waves import WaveUpstream

TRANSFORMERS = ("tera", "mockingjay", "audio_albert")
PREDICTIVE = ("apc", "vq_apc", "npc")
MODELS = (*TRANSFORMERS, *PREDICTIVE, "distiller")
ZERO_IN_THEORY = ("key.bias", "k_proj.bias")
"""Gradients that are 0 but for rounding: a constant added to all scores."""


def load(reference: Path, model: str) -> tuple[Recipe, Any, Any, dict[str, Any]]:
    """(recipe, objective as S3PRL computes it, arrays of extract.npz, meta.json)."""
    recipe, objective = load_s3prl(reference / model / "weights_only.ckpt", legacy=True)
    if model == "distiller":
        objective = with_teacher(reference, recipe, objective)
    return recipe, objective, np.load(reference / model / "extract.npz"), meta_of(reference, model)


def meta_of(reference: Path, model: str) -> dict[str, Any]:
    meta: dict[str, Any] = json.loads((reference / model / "meta.json").read_text())
    return meta


def teacher_of(reference: Path) -> WaveUpstream:
    path = reference / "distiller" / "teacher.converted.pt"
    encoder = load_s3prl_hubert(read_checkpoint(path), str(path))
    encoder.legacy = True
    return WaveUpstream(encoder)


def with_teacher(reference: Path, recipe: Recipe, objective: nn.Module) -> Any:
    """The distiller with its teacher, in evaluation mode: the stored losses are without the teacher's dropout."""
    kept = recipe.having({"init_from_teacher": False})
    trained = kept.build_objective(kept, objective.encoder, teacher_of(reference))
    trained.load_state_dict(objective.state_dict())
    trained.train_teacher = False
    return trained.eval()


def wav_batch(reference: Path) -> tuple[Tensor, Tensor]:
    waves = [np.load(reference / "common" / "wavs.npz")[f"wav{i}"].astype(np.float32) / 32768 for i in range(3)]
    lengths = torch.tensor([len(wav) for wav in waves])
    return nn.utils.rnn.pad_sequence([torch.from_numpy(wav) for wav in waves], batch_first=True), lengths


def assert_valid_close(found: Tensor, expected: Any, valid: Tensor, tolerance: float = 1e-5) -> None:
    torch.testing.assert_close(found[valid], torch.from_numpy(expected)[valid], atol=tolerance, rtol=0)


@pytest.mark.parametrize("model", [*TRANSFORMERS, *PREDICTIVE])
def test_hidden_states_and_predictions(reference: Path, model: str) -> None:
    _, objective, given, _ = load(reference, model)
    feat, lengths = torch.from_numpy(given["feat"]), torch.from_numpy(given["feat_len"])
    with torch.no_grad():
        hidden_states = objective.encoder(feat, lengths)
        predicted = objective.head(hidden_states[-1])
    valid = is_valid(lengths, feat.shape[1])
    assert len(hidden_states) == len(given["hidden_states"]) == objective.encoder.num_layers + 1
    for found, expected in zip(hidden_states, given["hidden_states"], strict=True):
        assert_valid_close(found, expected, valid)
    if model in TRANSFORMERS:
        assert_valid_close(predicted[:, ::5], given["head_pred_every5"], valid[:, ::5])
    else:
        assert_valid_close(predicted, given["pred"], valid)
    if "codes" in given.files:
        codes = objective.head.quantizer.codes(hidden_states[-1])
        assert torch.equal(codes[:, valid], torch.from_numpy(given["codes"]).long()[:, valid])


def test_student_and_teacher(reference: Path) -> None:
    _, objective, given, _ = load(reference, "distiller")
    wavs, lengths = wav_batch(reference)
    frames = objective.encoder.num_frames(lengths)
    assert frames.tolist() == given["feat_len"].tolist()
    valid = is_valid(frames, given["proj"].shape[1])
    with torch.no_grad():
        convs = objective.encoder.convs(wavs, lengths, over_padding=True).transpose(1, 2)
        hidden_states = objective.encoder(wavs, lengths)
        predicted = objective.head(hidden_states[-1])
        teacher = teacher_of(reference)(wavs, lengths)
    assert_valid_close(convs, given["conv_feat"], valid)
    for found, expected in zip([*hidden_states, *predicted.unbind(1)], given["hidden_states"], strict=True):
        assert_valid_close(found, expected, valid)
    assert_valid_close(hidden_states[-1], given["paper"], valid)
    for found, expected in zip(teacher, given["teacher_hidden_states"], strict=True):
        assert_valid_close(found, expected, valid)


def objective_batch(reference: Path, model: str) -> dict[str, Any]:
    """The batch of objective.npz with the keys that our stream gives."""
    given = np.load(reference / model / "objective.npz")
    if model == "distiller":
        wavs, lengths = wav_batch(reference)
        return {"key": ["a", "b", "c"], "wav": wavs, "wav_len": lengths}
    if model in TRANSFORMERS:
        target = torch.from_numpy(given["target"])
        bits = np.unpackbits(given["batch_label_bits"], axis=-1)[..., : target.shape[2]]
        selected = torch.from_numpy(bits.astype(np.bool_))
        return {
            "key": ["a", "b"], "feat": target, "feat_len": torch.from_numpy(given["batch_attn_mask"]).long().sum(1),
            "masked_feat": target * ~selected, "loss_mask": selected,
        }  # fmt: skip
    feat, lengths = torch.from_numpy(given["batch_feat"]), torch.from_numpy(given["batch_len"])
    if model == "npc":
        return {"key": ["a", "b"], "feat": feat, "feat_len": lengths}
    return {"key": ["a", "b"], "feat": feat[:, :-5], "target_feat": feat[:, 5:], "feat_len": lengths - 5}


@pytest.mark.parametrize("model", MODELS)
def test_loss_in_evaluation_mode(reference: Path, model: str) -> None:
    _, objective, _, meta = load(reference, model)
    loss = objective(objective_batch(reference, model))
    assert loss.mean.item() == pytest.approx(meta["scalars"]["loss_eval"]["value"], abs=1e-6)
    if model in TRANSFORMERS:
        assert int(loss.num_elements) == meta["scalars"]["mask_elements"]["value"]


@pytest.mark.parametrize(
    "model", [pytest.param(model, marks=pytest.mark.slow) if model == "apc" else model for model in MODELS]
)
def test_five_updates(reference: Path, model: str) -> None:
    """Losses, gradient norms, the first gradient of each parameter, rates, and the weights after five updates."""
    recipe, objective, _, meta = load(reference, model)
    trajectory, batch = meta["train_trajectory"], objective_batch(reference, model)
    without_dropout(objective.train())
    options = trajectory["optimizer"]
    settings = TrainSettings(
        num_steps=max(trajectory["total_steps"], 1),
        lr=options["lr"],
        optimizer="adam" if options["name"] == "Adam" else "legacy",
        schedule="constant" if options["name"] == "Adam" else "linear",
        warmup_share=options.get("warmup_proportion", 0.0),
        betas=tuple(options.get("betas", (0.9, 0.999))),
        eps=options.get("eps", 1e-8),
        decay_norms=model == "distiller",
    )
    optimizer = build_optimizer(objective, settings)
    for number, expected in enumerate(trajectory["steps"]):
        if trajectory["seed_each"] is not None:
            torch.manual_seed(trajectory["seed_each"] + number)
        optimizer.zero_grad()
        loss = objective(batch)
        loss.mean.backward()
        assert loss.mean.item() == pytest.approx(expected["loss"], abs=1e-5)
        norm = nn.utils.clip_grad_norm_(objective.parameters(), trajectory["clip"])
        assert norm.item() == pytest.approx(expected["grad_norm"], rel=1e-5)
        if number == 0:
            compare_norms(recipe, objective, trajectory["first_step_param_grad_l2"], gradients=True)
        rate = learning_rate(number + 1, settings)
        assert rate == pytest.approx(expected["lr_after_step"], abs=1e-9)
        apply_update(optimizer, rate=rate, left_out=torch.tensor(False))
    noise = [name for name, norm in trajectory["first_step_param_grad_l2"].items() if norm < 1e-7]
    after = {name: norm for name, norm in trajectory["param_l2_after"].items() if name not in noise}
    compare_norms(recipe, objective, after, gradients=False)  # Adam blows up rounding noise to steps of any sign
    if trajectory["seed_each"] is not None:
        torch.manual_seed(trajectory["seed_each"] + 5)
    assert objective(batch).mean.item() == pytest.approx(trajectory["loss_after_last_step"], abs=1e-5)


def without_dropout(module: nn.Module) -> None:
    for part in module.modules():
        if isinstance(part, nn.Dropout):
            part.p = 0.0
        if hasattr(part, "attention_dropout"):
            part.attention_dropout = 0.0


def compare_norms(recipe: Recipe, objective: nn.Module, theirs: dict[str, float], *, gradients: bool) -> None:
    """L2 norms of each parameter or its gradient, under S3PRL's names."""

    class Values(nn.Module):
        def state_dict(self) -> dict[str, Tensor]:  # type: ignore[override]
            values = dict(objective.state_dict())
            return values | {name: one.grad for name, one in objective.named_parameters()} if gradients else values

    flat: dict[str, Tensor] = {}
    for part, tensors in to_s3prl(recipe, Values()).items():
        if part in ("Transformer", "SpecHead", "model", "Distiller"):
            prefix = {"model": "", "Distiller": "distiller."}.get(part, f"{part}.")
            flat |= {f"{prefix}{name}": tensor for name, tensor in tensors.items()}
    compared = 0
    for name, expected in theirs.items():
        if gradients and (name.endswith(ZERO_IN_THEORY) or expected < 1e-8):
            assert float(flat[name].norm()) < 1e-7
        else:
            assert float(flat[name].norm()) == pytest.approx(expected, rel=1e-5), name
            compared += 1
    assert compared > len(theirs) // 2
