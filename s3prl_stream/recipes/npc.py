"""NPC (Liu et al., "Non-Autoregressive Predictive Coding for Learning Speech Representations from Local Dependencies",
Interspeech 2021).

Each frame is predicted, through a quantizer, from frames around it that are neither itself nor beside it. Settings are
those of S3PRL's runner, which are those of the authors: Adam at a constant rate, batches of 32 utterances, 100 epochs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from torch import nn

from s3prl_stream.models.npc import NpcEncoder
from s3prl_stream.objectives.prediction import PredictionObjective
from s3prl_stream.recipes.apc import EPOCHS_100, prediction_head
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.recipe import Recipe, TrainDefaults, features, sized


@dataclass(frozen=True)
class NpcModel:
    """Sizes of the network, see `NpcEncoder` and `GumbelQuantizer`."""

    feat_dim: int = 80
    hidden_size: int = 512
    num_blocks: int = 4
    kernel_size: int = 15
    mask_size: int = 5
    dropout: float = 0.1
    codebook_sizes: tuple[int, ...] = (64, 64, 64, 64)
    """Codes of each group of the quantizer; none: there is no quantizer."""
    temperature: float = 1.0


def _objective(recipe: Recipe, encoder: nn.Module) -> PredictionObjective:
    if recipe.legacy and isinstance(encoder, NpcEncoder):
        encoder.legacy = True
    return PredictionObjective(encoder, prediction_head(recipe, encoder), target="feat")


NPC = Recipe(
    name="npc",
    model=NpcModel(),
    encoder=partial(sized, NpcEncoder),
    build_objective=_objective,
    build_stream=features,
    front_end=FrontEnd("fbank80"),
    train=TrainDefaults(lr=1e-3, schedule="constant", warmup_share=0.0, optimizer="adam", published_steps=EPOCHS_100),
)
