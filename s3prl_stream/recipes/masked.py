"""What Mockingjay, TERA and Audio ALBERT share: masked features go in, the features come out.

A head on the last hidden state predicts the features; mean absolute error on what was masked; AdamW, 7 % warm-up, then
linear decay: the settings of S3PRL's runner. Of log-mel it also leaves out clips of up to 2 s, which is
`where="seconds > 2"` here.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.models.transformer import ReconstructionHead, TransformerEncoder
from s3prl_stream.objectives.masked_reconstruction import MaskedReconstructionObjective
from s3prl_stream.pipes.features import dims_of
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.recipe import Recipe, StreamSettings, features, sized


@dataclass(frozen=True)
class TransformerModel:
    """Sizes of the encoder, see `TransformerEncoder`."""

    feat_dim: int = 80
    hidden_size: int = 768
    num_layers: int = 3
    num_heads: int = 12
    ffn_size: int = 3072
    dropout: float = 0.1
    attention_dropout: float = 0.1
    share_layers: bool = False
    target_dim: int = 80
    """Bins of the features that are to come out."""


@dataclass(frozen=True)
class MaskedStream(StreamSettings):
    """With what is masked."""

    mask: str = "tera"
    """Kind of `.mask`."""
    noise_prob: float = 0.0
    """Share of the utterances whose input gets noise, see `.mask`: TERA's magnitude alteration."""
    target: str | None = None
    """Kind of `.features` that are to come out; None: those that went in."""


LOGMEL = FrontEnd("logmel80", target_db=-25.0)
FBANK = FrontEnd("fbank80_povey", deltas=2)


def masked_recipe(name: str, model: TransformerModel, front_end: FrontEnd, stream: MaskedStream) -> Recipe:
    """A recipe of this kind."""
    return Recipe(
        name=name,
        model=model,
        encoder=partial(sized, TransformerEncoder),
        build_objective=_objective,
        build_stream=_stream,
        front_end=front_end,
        stream_settings=stream,
    )


def _stream(recipe: Recipe, shards: Any, **stream: Any) -> Stage:
    """Crops of clips -> `feat`, `masked_feat`, `loss_mask`."""
    settings: MaskedStream = recipe.stream_settings  # type: ignore[assignment]
    assert recipe.front_end is not None
    chain = features(recipe, shards, **stream)
    target_dim = recipe.front_end.feat_dim if settings.target is None else dims_of(settings.target, 0)
    if recipe.model.target_dim != target_dim:
        raise UsageError(
            f"recipe {recipe.name}: target_dim is {recipe.model.target_dim}, but the features that are to come out "
            f"have {target_dim} dimensions"
        )
    if settings.target is not None:
        chain = chain.features(settings.target, norm=settings.norm, feat_name="target_feat")
    return chain.mask(settings.mask, noise_prob=settings.noise_prob, legacy=recipe.legacy)


def _objective(recipe: Recipe, encoder: nn.Module) -> MaskedReconstructionObjective:
    head = ReconstructionHead(int(encoder.hidden_size), recipe.model.target_dim)  # type: ignore[arg-type]
    return MaskedReconstructionObjective(encoder, head)
