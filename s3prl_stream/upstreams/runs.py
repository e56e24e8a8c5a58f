"""Upstreams from runs of `pretrain`."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.recipes.run_folder import fresh_objective, load_objective, read_settings, recipe_of, run_of
from s3prl_stream.upstreams.upstream import FeatureUpstream, Upstream


def run_upstream(path: Path, *, trained: bool, seed: int, encoder: nn.Module | None) -> Upstream:
    """The encoder of a run, from its newest checkpoint, or from the one that is named.

    Raises:
        UsageError: no run there, or no checkpoint in it.
    """
    settings = read_settings(run_of(path))
    recipe = recipe_of(settings)
    if trained:
        objective = load_objective(path, encoder=encoder)
    else:
        objective = fresh_objective(path, settings, encoder=encoder, seed=seed)
    return upstream_of(recipe, objective)


def upstream_of(recipe: Recipe, objective: nn.Module) -> Upstream:
    """The encoder of an objective, where it is and as it is: it stays the objective's own."""
    network: nn.Module = objective.encoder  # type: ignore[assignment]
    assert recipe.front_end is not None
    found = FeatureUpstream(network, recipe.front_end, norm=recipe.stream_settings.norm)
    return found.to(next(network.parameters()).device)
