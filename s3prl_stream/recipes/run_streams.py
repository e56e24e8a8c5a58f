"""The streams of a run: while it trains, and later from its folder, to look at its batches."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from s3prl_stream.errors import StateError, UsageError, told_of
from s3prl_stream.loader import Loader
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.recipes.run_folder import read_pretraining, recipe_of
from s3prl_stream.recipes.run_settings import RunSettings, ValidSettings
from s3prl_stream.shards.shardset import ShardSet, name_and_fingerprint, open_shards
from s3prl_stream.shards.where import without
from s3prl_stream.trainer.checkpoint import list_checkpoints, load_state


def streams_of(
    recipe: Recipe, shards: ShardSet, own: RunSettings, valid: ValidSettings, device: str | None
) -> tuple[Any, Any]:
    """What is trained on, endless, and what is held out, once and always the same; None: nothing is."""
    common: dict[str, Any] = {"seed": own.seed, "where": own.where, "device": device}
    held_out: dict[str, Any] = {**common, "subset": valid.subset, "epochs": 1}
    if valid.data is not None:
        data = open_shards(valid.data)
        trained_on = recipe.stream(shards, **common, subset=own.subset)
        with told_of("valid"):
            return trained_on, recipe.stream(data, seed=own.seed, subset=valid.subset, device=device, epochs=1)
    if not valid.holds_out:
        return recipe.stream(shards, **common, subset=own.subset), None
    unmixed = ShardSet(shards.members)  # all that is held out once, whatever the weights
    if valid.share:
        held_out["key_range"], common["key_range"] = (0.0, valid.share), (valid.share, 1.0)
    else:
        held_out["where"] = valid.where if own.where is None else f"({own.where}) and ({valid.where})"
        common["where"] = without(own.where, valid.where, shards.columns())
    with told_of("what valid leaves to train on"):
        trained_on = recipe.stream(shards, **common, subset=own.subset)
    with told_of("valid"):
        return trained_on, recipe.stream(unmixed, **held_out)


def loader_of_run(run: str | Path, sets: Sequence[str | Path] = ()) -> Loader:
    """The batches that a run of `pretrain` trains on, by their global numbers, standing where its newest checkpoint is.

    So `which` tells of those that were and those that will be, without what the run leaves out.

    Args:
        run: output folder of `pretrain`.
        sets: where its sets are now, in their order; none: where they were.

    Raises:
        UsageError: no run there, a recipe that is not one of the package's, or its sets are not known by a name.
        StateError: these are other sets.
    """
    settings = read_pretraining(run)
    places = list(sets) or settings.get("sets") or [None]
    if any(place is None for place in places):
        raise UsageError(f"{run}: does not tell where its sets are; name them after it")
    members = open_shards(places).members
    weights = settings.get("weights")
    shards = ShardSet(members, None if weights is None else tuple(weights))
    found = name_and_fingerprint(shards)
    if found != settings["data"]:
        raise StateError(f"{run}: was trained on {settings['data']}, these sets are {found}; give those of the run")
    own, valid = (_only(kind, settings, start) for kind, start in ((RunSettings, ""), (ValidSettings, "valid_")))
    loader = Loader(streams_of(recipe_of(settings), shards, own, valid, None)[0], rank=0, world_size=1)
    checkpoints = list_checkpoints(Path(run))
    if checkpoints:
        loader.load_state_dict(load_state(checkpoints[-1])["loader"])
    return loader


def _only(kind: Any, settings: dict[str, Any], start: str) -> Any:
    """A dataclass of those settings that are its fields, whose names in `settings` begin with `start`."""
    names = [one.name for one in dataclasses.fields(kind)]
    return kind(**{name: settings[f"{start}{name}"] for name in names if f"{start}{name}" in settings})
