"""Upstreams from recipes: any network with its objective."""

from __future__ import annotations

from torch import nn

from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.upstreams.upstream import FeatureUpstream, Upstream
from s3prl_stream.upstreams.waves import WaveUpstream


def upstream_of(recipe: Recipe, objective: nn.Module, *, max_frames: int | None = None) -> Upstream:
    """An upstream of a recipe's network; DistilHuBERT's predictions of its teacher's layers are hidden states too.

    `max_frames` is that of `FeatureUpstream`.
    """
    encoder: nn.Module = objective.encoder  # type: ignore[assignment]
    if recipe.front_end is None:
        head: nn.Module = objective.head  # type: ignore[assignment]
        if recipe.model.target_size != getattr(encoder, "hidden_size", None):
            return WaveUpstream(encoder)
        return WaveUpstream(encoder, head, num_predictions=len(recipe.model.target_layers))
    return FeatureUpstream(
        encoder, recipe.front_end, norm=recipe.stream_settings.norm, legacy=recipe.legacy, max_frames=max_frames
    )
