"""DistilHuBERT (Chang et al., "DistilHuBERT: Speech Representation Learning by Layer-wise Distillation of Hidden-unit
BERT", ICASSP 2022).

A student of two layers, begun with the teacher's convolutions and first two layers, predicts layers 4, 8 and 12 of
HuBERT base; `target_layers=(4, 12)` is the configuration in S3PRL's repository.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.models.wave import DistillationHead, WaveEncoder
from s3prl_stream.objectives.distillation import DistillationObjective
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.recipes.recipe import Recipe, StreamSettings, TrainDefaults, sized, waveforms


@dataclass(frozen=True)
class StudentModel:
    """Sizes of the student, see `WaveEncoder`, and what it learns."""

    conv_size: int = 512
    hidden_size: int = 768
    num_layers: int = 2
    num_heads: int = 12
    ffn_size: int = 3072
    position_kernel: int = 128
    position_groups: int = 16
    dropout: float = 0.1
    attention_dropout: float = 0.1
    activation_dropout: float = 0.1
    conv_gradient: float = 0.1
    target_layers: tuple[int, ...] = (4, 8, 12)
    """Hidden states of the teacher that are predicted."""
    target_size: int = 768
    """Size of the teacher's hidden states."""
    cosine_weight: float = 1.0
    init_from_teacher: bool = True
    """Convolutions, projection, positions, the norm and the first layers are copied from the teacher."""
    teacher_bf16: bool = False
    """The teacher computes in bfloat16."""


def _objective(recipe: Recipe, encoder: nn.Module, teacher: nn.Module | None = None) -> DistillationObjective:
    model: StudentModel = recipe.model
    if not isinstance(getattr(encoder, "stride", None), int) or not hasattr(encoder, "num_frames"):
        raise UsageError(
            f"encoder {type(encoder).__name__} needs an integer attribute `stride` (samples from frame to frame) and a "
            "method `num_frames` (lengths -> frames): distilhubert's takes waveforms"
        )
    if isinstance(encoder, WaveEncoder):
        encoder.legacy = recipe.legacy
    if teacher is not None:
        _check(model, teacher)
        if model.init_from_teacher and isinstance(encoder, WaveEncoder):
            begin_with_teacher(encoder, teacher, legacy=recipe.legacy)
    head = DistillationHead(int(encoder.hidden_size), len(model.target_layers), model.target_size)  # type: ignore[arg-type]
    return DistillationObjective(
        encoder,
        head,
        model.target_layers,
        teacher,
        cosine_weight=model.cosine_weight,
        average_padding=recipe.legacy,
        train_teacher=recipe.legacy,
        teacher_bf16=model.teacher_bf16,
    )


def begin_with_teacher(student: WaveEncoder, teacher: nn.Module, *, legacy: bool = False) -> None:
    """Copy what the student has of the teacher's weights.

    With `legacy` the norm before the first layer stays fresh, as in S3PRL, though the layers were trained behind it.

    Raises:
        UsageError: the teacher is no HuBERT, or of other sizes.
    """
    theirs: dict[str, Any] | None = getattr(teacher, "wave_weights", lambda: None)()
    advice = "pass init_from_teacher=False to begin with fresh weights"
    if theirs is None:
        raise UsageError(
            f"distilhubert: the teacher ({type(teacher).__name__}) has no weights of HuBERT's kind; {advice}"
        )
    ours = student.state_dict()
    wrong = [name for name, tensor in ours.items() if name not in theirs or theirs[name].shape != tensor.shape]
    if wrong:
        raise UsageError(
            f"distilhubert: the student's {wrong[0]} is {tuple(ours[wrong[0]].shape)}, the teacher's "
            f"{tuple(theirs[wrong[0]].shape) if wrong[0] in theirs else 'missing'}; give the student the teacher's "
            f"sizes, or {advice}"
        )
    fresh = {name for name in ours if legacy and name.startswith("norm.")}
    student.load_state_dict({name: ours[name] if name in fresh else theirs[name] for name in ours})


def _check(model: StudentModel, teacher: nn.Module) -> None:
    size, layers = getattr(teacher, "hidden_size", None), getattr(teacher, "num_layers", None)
    if not isinstance(size, int) or not isinstance(layers, int):
        raise UsageError(f"distilhubert: {teacher!r:.100} is no teacher; give an upstream, such as ss.upstream(...)")
    if not model.target_layers or not all(0 <= layer <= layers for layer in model.target_layers):
        raise UsageError(
            f"distilhubert: target_layers are {model.target_layers}; give one or more from 0 to the teacher's {layers} "
            "layers"
        )
    if size != model.target_size:
        raise UsageError(f"distilhubert: target_size is {model.target_size}, the teacher's hidden states have {size}")


def _stream(recipe: Recipe, shards: Any, **stream: Any) -> Stage:
    """Crops of clips -> `wav`."""
    return waveforms(recipe.stream_settings, shards, **stream)


DISTILHUBERT = Recipe(
    name="distilhubert",
    model=StudentModel(),
    encoder=partial(sized, WaveEncoder),
    build_objective=_objective,
    build_stream=_stream,
    front_end=None,
    stream_settings=StreamSettings(max_batch_seconds=375.0, crop_seconds=250_000 / 16_000, norm="none"),
    train=TrainDefaults(betas=(0.9, 0.98), eps=1e-6, published_steps=200_000),
    has_teacher=True,
)
