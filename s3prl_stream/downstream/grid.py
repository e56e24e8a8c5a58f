"""The cells of a sweep: what each is trained on and scored on, and the identity by which it is found again.

An identity is a hash of all that makes the numbers: the settled recipe and settings, and fingerprints of data, upstream
and noise. So a cell that is done is found again, and data or an upstream that has changed under its name makes another
one. Not in it are the device, what only says how the work is done, and the version of this package, with which a run
may be continued too: it stands beside the figures, and a new folder is the way to have all of them from a new version.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from s3prl_stream.downstream.columns import contents_of, need_columns, rows_with, shared_hours
from s3prl_stream.downstream.parts import settled
from s3prl_stream.downstream.recipe import TaskRecipe
from s3prl_stream.downstream.scores import AXES
from s3prl_stream.downstream.settings import WRITTEN_APART, RunSettings
from s3prl_stream.downstream.streams import Noise
from s3prl_stream.downstream.texts import text_columns
from s3prl_stream.errors import UsageError
from s3prl_stream.heads import KINDS as HEADS
from s3prl_stream.recipes.run_folder import MAY_CHANGE
from s3prl_stream.shards.selection import selected_hours
from s3prl_stream.shards.shardset import ShardSet, as_shard_set
from s3prl_stream.shards.where import without
from s3prl_stream.tasks.verification import Trial

ALL, CLEAN = "100%", "none"
"""How all of a set, and no noise, are called."""
_OTHERS = frozenset({"valid", "tokenizer", "lexicon"})
"""Arguments of `train` that are no settings."""


class CellData(NamedTuple):
    """What is trained on, and what is scored."""

    name: str
    train: ShardSet
    where: Any
    """The rows that may be trained on: none of those that are scored."""
    test: ShardSet
    test_where: Any


@dataclass(frozen=True)
class Cell:
    """One training, and one way to score it."""

    names: Mapping[str, str]
    """Axis -> how its value is called."""
    task: str | TaskRecipe
    data: CellData
    upstream: str
    training: Mapping[str, Any]
    """What else `train` is told."""
    noise: Noise | None
    """Of what is scored."""
    hours: float
    run: Path
    file: Path
    """The score."""


def make_cell(
    out: Path, settings: Mapping[str, Any], trials: Sequence[Trial] | None, values: Any, *, noisy_training: bool
) -> Cell:
    """A cell of these values of the axes and a seed; UsageError if it cannot be trained like that."""
    task, data, (upstream, fingerprint), head, subset, (noise_name, ratio, noise), seed = values
    subset = None if subset in (None, ALL) else subset
    training = {**settings, "head": head, "subset": subset, "seed": seed, "where": data.where}
    if noisy_training and noise is not None:
        training |= {"noise": noise.kind, "snr": noise.snr_db}
    recipe, own = settled(task, **{name: value for name, value in training.items() if name not in _OTHERS})
    if recipe.head not in HEADS:
        raise UsageError(f"sweep: head {recipe.head!r} is unknown; there are {', '.join(HEADS)}")
    if trials is not None and recipe.kind != "verify":
        raise UsageError(f"sweep: task {recipe.name}: trials are for speaker verification")
    scored = [] if trials is not None else [data.test]  # trials say what is true
    for one in (data.train, *scored):  # not hours later, when a cell before this one is done
        need_columns(one, text_columns(recipe.labels, one.columns()), f"sweep: task {recipe.name}")
    held_out = own.valid_where if settings.get("valid") is None else None
    usable = without(data.where, held_out, data.train.columns())
    labelled = text_columns(recipe.labels, data.train.columns()) if len(recipe.labels) == 1 else ()
    usable = rows_with(data.train, usable, labelled, min_seconds=recipe.min_seconds)
    hours = selected_hours(data.train, where=usable, subset=subset)
    if not hours:
        raise UsageError(
            f"sweep: task {recipe.name}: no clips of {data.name} are left to train on; look at where= (--where), at "
            "what is held out, and at which clips have a label or are too short"
        )
    if not selected_hours(data.test, where=rows_with(data.test, data.test_where, labelled if scored else ())):
        raise UsageError(
            f"sweep: task {recipe.name}: no clips of {data.test.name} are left to score; look at test_where= "
            "(--test-where), and at which clips have a label"
        )
    names = (recipe.name, data.name, upstream, recipe.head, subset or ALL, noise_name, ratio)
    made_of = _made_of(recipe, own, data, settings)
    made_of |= {"upstream": fingerprint, "noise": str(noise) if "noise" in training else None}
    scored_on = {"test": _contents(data.test), "where": data.test_where, "trials": trials, "noise": str(noise)}
    parts = [recipe.name, Path(upstream).name, recipe.head, subset or ALL, f"seed{seed}", _identity(made_of)]
    run = out / "runs" / re.sub(r"[^\w.%+-]+", "_", "-".join(parts))
    return Cell(
        names=dict(zip(AXES, names, strict=True)),
        task=task,
        data=data,
        upstream=upstream,
        training=training,
        noise=noise,
        hours=hours,
        run=run,
        file=run / "scores" / f"{_identity(scored_on)}.json",
    )


def _made_of(recipe: TaskRecipe, own: RunSettings, data: CellData, settings: Mapping[str, Any]) -> dict[str, Any]:
    """What makes the numbers of a training, but for the upstream and the noise."""
    valid = settings.get("valid")
    of_recipe = asdict(recipe)
    if valid is None and own.valid_where is None:
        del of_recipe["evaluate_every"]
    return {
        "recipe": of_recipe,
        "run": {name: value for name, value in vars(own).items() if name not in WRITTEN_APART | MAY_CHANGE},
        "where": own.where,
        "data": _contents(data.train),
        "valid": None if valid is None else _contents(as_shard_set(valid)),
        "texts": [settings.get("tokenizer"), settings.get("lexicon")],
    }


def _contents(shards: ShardSet) -> list[Any]:
    return [[f"{one.name} {contents_of(one)}" for one in shards.members], shards.weights]


def cell_data(shards: Any, where: Any, test: Any, test_where: str | None, settings: Mapping[str, Any]) -> CellData:
    """Refuses to train on what is scored, and to choose weights by it."""
    train_set = as_shard_set(shards)
    test_set = train_set if test is None else as_shard_set(test)
    name = str(shards) if isinstance(shards, str | Path) else train_set.name
    if {contents_of(member) for member in train_set.members} & {contents_of(member) for member in test_set.members}:
        if test_where is None:
            raise UsageError(
                f"sweep: {name} is trained on. Say which of its clips are scored instead by test_where= "
                "(--test-where), or give another set by test= (--test)"
            )
        where = without(where, test_where, train_set.columns()).expression  # part of the names of finished runs
    valid, valid_where = settings.get("valid"), settings.get("valid_where")
    chosen = train_set if valid is None else as_shard_set(valid)
    is_judged = valid is not None or valid_where is not None
    if is_judged and shared_hours(chosen, valid_where, test_set, test_where):
        raise UsageError("sweep: clips that are scored are in the validation part, so weights would be chosen by them")
    return CellData(name, train_set, where, test_set, test_where)


def noises_of(noise: Any, snr: Any) -> Iterator[tuple[str, str, Noise | None]]:
    """(name, ratio, noise) of each kind at each ratio; there is one way to have none."""
    for kind in listed(noise):
        if kind is None or kind == CLEAN:
            yield CLEAN, "", None
            continue
        for ratio in listed(snr):
            low, high = ratio if isinstance(ratio, tuple) else (ratio, ratio)
            opened = Noise.of(kind, (float(low), float(high)))
            yield str(kind), f"{low:g}" if low == high else f"{low:g},{high:g}", opened


def listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _identity(made_of: Mapping[str, Any]) -> str:
    """8 hexadecimal digits for values that are JSON, have a fingerprint, or can be told by their text."""
    text = json.dumps(made_of, sort_keys=True, default=lambda value: getattr(value, "fingerprint", None) or str(value))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
