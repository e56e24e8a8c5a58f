"""DistilHuBERT from any teacher: what the student begins with, what it is compared with, and what stays untouched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from upstreams.small_models import save_small_huggingface, save_small_torchaudio

import s3prl_stream as ss
from s3prl_stream.models.gru import GruEncoder
from s3prl_stream.models.wave import WaveEncoder
from s3prl_stream.objectives.distillation import distillation_loss
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.run_folder import describe_module
from s3prl_stream.trainer.checkpoint import list_checkpoints, load_checkpoint
from s3prl_stream.upstreams.upstream import FeatureUpstream
from s3prl_stream.upstreams.waves import WaveUpstream

STUDENT: dict[str, Any] = {
    "conv_size": 8, "hidden_size": 24, "num_layers": 2, "num_heads": 2, "ffn_size": 32, "position_kernel": 16,
    "position_groups": 4, "target_layers": (1, 3), "target_size": 24,
}  # fmt: skip


def batch(lengths: tuple[int, ...] = (8000, 5000)) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(0)
    wavs = [torch.randn(length, generator=generator) * 0.1 for length in lengths]
    padded = nn.utils.rnn.pad_sequence(wavs, batch_first=True)
    return {"key": [str(length) for length in lengths], "wav": padded, "wav_len": torch.tensor(lengths)}


def own_teacher() -> WaveUpstream:
    torch.manual_seed(3)
    names = ("conv_size", "hidden_size", "num_heads", "ffn_size", "position_kernel", "position_groups")
    sizes = {name: STUDENT[name] for name in names}
    return WaveUpstream(WaveEncoder(num_layers=3, feature_norm=True, positions_first=True, **sizes)).eval()


def student_of(teacher: Any, **changed: Any) -> Any:
    return build_objective(find_recipe("distilhubert").having({**STUDENT, **changed}), teacher=teacher)


@pytest.mark.parametrize("kind", ["own", "torchaudio", pytest.param("huggingface", marks=pytest.mark.slow)])
def test_the_student_begins_with_the_teachers_first_layers(kind: str, tmp_path: Path) -> None:
    if kind == "torchaudio":
        save_small_torchaudio(tmp_path / "model.pt")
    elif kind == "huggingface":
        save_small_huggingface(tmp_path)
    teacher: Any = own_teacher() if kind == "own" else ss.upstream(next(iter(tmp_path.glob("*.pt")), tmp_path))
    with torch.no_grad():
        for name, parameter in teacher.named_parameters():
            if "norm" in name:  # or none would tell it from a fresh one
                parameter.add_(torch.rand_like(parameter))
    before = {name: tensor.clone() for name, tensor in teacher.state_dict().items()}
    objective = student_of(teacher)
    theirs = teacher.wave_weights()
    for name, tensor in objective.encoder.state_dict().items():
        assert torch.equal(tensor, theirs[name]), name
    for name, tensor in student_of(teacher, legacy=True).encoder.state_dict().items():
        assert torch.equal(tensor, theirs[name]) is not name.startswith("norm."), name
    loss = objective(batch())
    loss.mean.backward()
    assert torch.isfinite(loss.mean)
    assert all(torch.equal(tensor, before[name]) for name, tensor in teacher.state_dict().items())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    assert all(parameter.requires_grad for parameter in teacher.parameters()), "somebody may fine-tune it afterwards"
    assert not teacher.training
    assert not any("teacher" in name for name in objective.state_dict())


def test_the_loss_by_hand_and_by_utterances() -> None:
    """Mean absolute error plus -log sigmoid(cosine) of valid frames; padding has no part in it."""
    teacher = own_teacher()
    objective = student_of(teacher, init_from_teacher=False).eval()
    whole = objective(batch())
    frames = objective.encoder.num_frames(torch.tensor([8000, 5000]))
    assert int(whole.num_elements) == int(frames.sum())
    total = 0.0
    for row, length in enumerate((8000, 5000)):
        wav = batch()["wav"][row, :length]
        with torch.no_grad():
            targets = torch.stack([teacher([wav])[layer][0] for layer in (1, 3)])
            predicted = objective.head(objective.encoder(wav[None], torch.tensor([length]))[-1])[0]
        error = (predicted - targets).abs().mean(dim=(0, 2))
        similar = F.cosine_similarity(predicted, targets, dim=-1)
        total += float((error - F.logsigmoid(similar).mean(dim=0)).sum())
    assert whole.mean.item() == pytest.approx(total / int(frames.sum()), abs=1e-5)


def test_uncounted_frames_do_not_count() -> None:
    predicted, target = torch.randn(2, 2, 6, 4), torch.randn(2, 2, 6, 4)
    counted = torch.tensor([[True] * 6, [True] * 3 + [False] * 3])
    other = predicted.clone()
    other[1, :, 3:] = 100.0
    one, two = (distillation_loss(tensor, target, counted) for tensor in (predicted, other))
    assert torch.equal(one.mean, two.mean)
    assert int(one.num_elements) == 9
    similar = F.cosine_similarity(predicted, target, dim=-1)
    cosine = -F.logsigmoid(similar).transpose(1, 2)[counted].mean()
    for weight in (0.0, 0.5):
        part = distillation_loss(predicted, target, counted, cosine_weight=weight)
        torch.testing.assert_close(part.mean, one.mean - (1 - weight) * cosine)


def test_a_teacher_with_closer_frames() -> None:
    """A network on features, one frame each 10 ms: every second of its frames is a target."""

    class Frames(nn.Module):
        hidden_size = 24
        num_layers = 3

        def forward(self, feat: Tensor, feat_len: Tensor) -> list[Tensor]:
            numbers = torch.arange(feat.shape[1], dtype=torch.float32)[None, :, None]
            return [numbers.expand(len(feat), -1, 24)] * 4

    teacher = FeatureUpstream(Frames(), FrontEnd("logmel80"), norm="none").eval()
    with pytest.raises(ss.UsageError, match="init_from_teacher=False"):
        student_of(teacher)
    objective = student_of(teacher, init_from_teacher=False)
    targets = objective.targets(batch()["wav"], batch()["wav_len"])
    assert targets[0, 0, :4, 0].tolist() == [1.0, 3.0, 5.0, 7.0]
    assert torch.isfinite(objective(batch()).mean)


def test_frames_that_the_teacher_does_not_have_do_not_count() -> None:
    """Kaldi's features have a frame less at the end than the convolutions, for some lengths."""
    torch.manual_seed(0)
    teacher = FeatureUpstream(GruEncoder(hidden_size=24, num_layers=1), FrontEnd("fbank80")).eval()
    objective = student_of(teacher, init_from_teacher=False, target_layers=(0,)).eval()
    both, *each = (objective(batch(lengths)) for lengths in ((16_000, 8180), (16_000,), (8180,)))
    assert [int(loss.num_elements) for loss in each] == [49, 24]
    assert int(both.num_elements) == 49 + 24


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"target_layers": (1, 9)}, "3 layers"),
        ({"target_layers": (-1,)}, "target_layers are \\(-1,\\)"),
        ({"target_layers": ()}, "give one or more"),
        ({"target_size": 8}, "have 24"),
        ({"num_layers": 4}, "missing"),
        ({"ffn_size": 16}, "layers.0.ffn_in"),
    ],
)
def test_sizes_that_do_not_fit_the_teacher(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ss.UsageError, match=said):
        student_of(own_teacher(), **changed)


def test_what_is_no_teacher_or_student_is_told() -> None:
    with pytest.raises(ss.UsageError, match="'logmel80' is no teacher; give an upstream"):
        student_of("logmel80")

    class Features(nn.Module):
        hidden_size = 24

    with pytest.raises(ss.UsageError, match="encoder Features needs an integer attribute `stride`"):
        build_objective("distilhubert", encoder=Features())


def test_without_a_teacher_it_can_be_loaded_only() -> None:
    with pytest.raises(ss.UsageError, match="no teacher"):
        student_of(None)(batch())


@pytest.mark.parametrize("kind", ["own", "torchaudio"])
def test_a_teacher_in_bfloat16_gives_nearly_the_same(kind: str, tmp_path: Path) -> None:
    teacher: Any = own_teacher()
    if kind == "torchaudio":
        save_small_torchaudio(tmp_path / "model.pt")
        teacher = ss.upstream(tmp_path / "model.pt")
    exact, rough = student_of(teacher).eval(), student_of(teacher, teacher_bf16=True).eval()
    rough.load_state_dict(exact.state_dict())
    one, two = (objective.targets(batch()["wav"], batch()["wav_len"]) for objective in (exact, rough))
    assert two.dtype == torch.float32
    assert torch.equal(one, two) is (kind == "torchaudio")  # its position convolution has 6 channels a group
    assert (one - two).abs().mean() < 0.05


def test_legacy_trains_with_dropout_in_the_teacher_and_counts_padding() -> None:
    objective = build_objective(find_recipe("distilhubert").having({**STUDENT, "legacy": True}), teacher=own_teacher())
    loss: Any = objective(batch())
    assert int(loss.num_elements) == 2 * 24
    first, second = (objective.targets(batch()["wav"], batch()["wav_len"]) for _ in range(2))  # type: ignore[operator]
    assert not torch.equal(first, second)


def test_a_run_needs_no_teacher_to_be_used(sample_set: Path, tmp_path: Path) -> None:
    few: dict[str, Any] = {"max_batch_seconds": 8.0, "crop_seconds": 1.0, "device": "cpu", "quiet": True}
    ss.pretrain("distilhubert", sample_set, steps=2, out=tmp_path, teacher=own_teacher(), **few, **STUDENT)
    weights = load_checkpoint(list_checkpoints(tmp_path)[-1]).weights
    assert {name.split(".")[0] for name in weights} == {"encoder", "head"}
    up = ss.upstream(tmp_path)
    assert (up.num_layers, up.stride) == (2 + 2, 320)
    with torch.no_grad():
        assert len(up([torch.zeros(4000)])) == 5
    with torch.no_grad():
        other = own_teacher()
        other.encoder.get_parameter("project.bias").add_(1.0)
    with pytest.raises(ss.StateError, match="teacher was"):
        ss.pretrain("distilhubert", sample_set, steps=3, out=tmp_path, teacher=other, **few, **STUDENT)


def test_a_teacher_is_told_by_all_its_numbers() -> None:
    """Those without a dimension, such as how many batches a batch norm has seen, among them."""
    recipe = find_recipe("npc").having({"hidden_size": 8, "num_blocks": 1, "codebook_sizes": (4,)})
    npc = build_objective(recipe)
    before = describe_module(npc, values=True)
    assert describe_module(npc, values=True) == before
    npc.get_buffer("encoder.blocks.0.conv_norm.num_batches_tracked").add_(1)
    assert describe_module(npc, values=True) != before
