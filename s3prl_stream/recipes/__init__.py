"""The recipes by name. One a file; a new one is added to this list."""

from __future__ import annotations

from typing import Any

from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.models.draws import drawn_by
from s3prl_stream.models.sizes import fits_memory
from s3prl_stream.recipes.apc import APC, VQ_APC
from s3prl_stream.recipes.audio_albert import AUDIO_ALBERT
from s3prl_stream.recipes.distilhubert import DISTILHUBERT
from s3prl_stream.recipes.mockingjay import MOCKINGJAY, MOCKINGJAY_LARGE
from s3prl_stream.recipes.npc import NPC
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.recipes.tera import TERA, TERA_FBANK, TERA_LARGE_BATCH, TERA_SLIM
from s3prl_stream.settings import with_fields

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        *(TERA, MOCKINGJAY, AUDIO_ALBERT, APC, VQ_APC, NPC, DISTILHUBERT),
        *(TERA_LARGE_BATCH, TERA_FBANK, TERA_SLIM, MOCKINGJAY_LARGE),
    )
}


def find_recipe(name: str | Recipe) -> Recipe:
    """The recipe of that name; UsageError if there is none."""
    if isinstance(name, Recipe):
        return name
    if not isinstance(name, str) or name not in RECIPES:
        raise UsageError(f"recipe {name!r} is unknown; there are {', '.join(RECIPES)}")
    return RECIPES[name]


def build_encoder(recipe: str | Recipe, **sizes: Any) -> nn.Module:
    """The encoder of a recipe with its published sizes, or with others; fresh weights from torch's generator.

    Args:
        recipe: its name.
        **sizes: what differs, see the recipe's `model`.

    Raises:
        UsageError: an unknown recipe, or sizes it does not have.
    """
    found = find_recipe(recipe)
    return _encoder(found, with_fields(f"build_encoder({found.name!r})", found.model, sizes))


def build_objective(
    recipe: str | Recipe, *, encoder: nn.Module | None = None, seed: int = 0, teacher: nn.Module | None = None
) -> nn.Module:
    """The network of a recipe with its objective; the weights follow from `seed`, the global generator is untouched.

    Args:
        recipe: its name, or itself with other settings (`find_recipe(name).having(...)`).
        encoder: another network than the recipe's.
        seed: of the weights.
        teacher: of a recipe that has one; without, the objective can be loaded but not called.

    Raises:
        UsageError: an encoder without `hidden_size`, or sizes that do not fit.
    """
    found = find_recipe(recipe)
    if teacher is not None and not found.has_teacher:
        raise UsageError(f"recipe {found.name}: has no teacher")
    if encoder is not None and not isinstance(getattr(encoder, "hidden_size", None), int):
        raise UsageError(
            f"encoder {type(encoder).__name__} needs an integer attribute `hidden_size`: the head is built on it"
        )
    with drawn_by("weights", seed):
        network = _encoder(found, found.model) if encoder is None else encoder
        return found.build_objective(found, network, *([teacher] if found.has_teacher else []))


def _encoder(recipe: Recipe, model: Any) -> nn.Module:
    fits_memory(f"recipe {recipe.name}", lambda: recipe.encoder(model))
    return recipe.encoder(model)
