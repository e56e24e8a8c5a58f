"""APC (Chung et al., "An Unsupervised Autoregressive Model for Speech Representation Learning", Interspeech 2019) and
VQ-APC (Chung et al., "Vector-Quantized Autoregressive Predictive Coding", Interspeech 2020).

From the frames until now the frame five later is predicted; VQ-APC puts a quantizer before the prediction. Settings
are those of S3PRL's runner, which are those of the authors: Adam at a constant rate, batches of 32 utterances, 100
epochs of LibriSpeech (8 789 batches each).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from torch import nn

from s3prl_stream.models.gru import GruEncoder
from s3prl_stream.models.quantizer import PredictionHead
from s3prl_stream.objectives.prediction import PredictionObjective
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.recipe import Recipe, StreamSettings, TrainDefaults, features, sized

EPOCHS_100 = 878_900
"""Batches in 100 epochs of LibriSpeech's 960 h in S3PRL."""


@dataclass(frozen=True)
class GruModel:
    """Sizes of the network, see `GruEncoder` and `GumbelQuantizer`."""

    feat_dim: int = 80
    hidden_size: int = 512
    num_layers: int = 3
    dropout: float = 0.1
    residual: bool = True
    codebook_sizes: tuple[int, ...] = ()
    """Codes of each group of the quantizer; none: there is no quantizer."""
    temperature: float = 0.5


@dataclass(frozen=True)
class ShiftedStream(StreamSettings):
    """With how far ahead the prediction is."""

    n_future: int = 5
    """Frames."""


def prediction_head(recipe: Recipe, encoder: nn.Module) -> PredictionHead:
    """From hidden states to features, with the quantizer of the recipe's model if it has one."""
    model = recipe.model
    size = int(encoder.hidden_size)  # type: ignore[arg-type]
    return PredictionHead(size, model.feat_dim, codebook_sizes=model.codebook_sizes, temperature=model.temperature)


def _objective(recipe: Recipe, encoder: nn.Module) -> PredictionObjective:
    return PredictionObjective(encoder, prediction_head(recipe, encoder), average_padding=recipe.legacy)


def _stream(recipe: Recipe, shards: Any, **stream: Any) -> Stage:
    """Crops of clips -> `feat`, `target_feat`."""
    settings: ShiftedStream = recipe.stream_settings  # type: ignore[assignment]
    return features(recipe, shards, **stream).shift(settings.n_future)


APC = Recipe(
    name="apc",
    model=GruModel(),
    encoder=partial(sized, GruEncoder),
    build_objective=_objective,
    build_stream=_stream,
    front_end=FrontEnd("fbank80"),
    stream_settings=ShiftedStream(),
    train=TrainDefaults(lr=1e-4, schedule="constant", warmup_share=0.0, optimizer="adam", published_steps=EPOCHS_100),
)

VQ_APC = replace(APC, name="vq_apc", model=GruModel(codebook_sizes=(512,)))
