"""A grid of trainings and their scores: `train` and `evaluate` for each cell, one table over the seeds, one picture.

    OUT/runs/NAME-IDENTITY/                        a run of `train`
    OUT/runs/NAME-IDENTITY/scores/IDENTITY.json    a cell: its settings and its figures; cells that differ only in what
                                                   they are scored on share a run
    OUT/sweep.json  sweep.csv  sweep.md  sweep.png
    OUT/cache/                                     hidden states of the frozen upstreams

An identity is a hash of all that makes the numbers: settings, and fingerprints of data, upstream and noise. So a cell
that is done is found again, and data or an upstream that has changed under its name makes another one.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from s3prl_stream.downstream.columns import rows_with, rows_without
from s3prl_stream.downstream.evaluate import evaluate
from s3prl_stream.downstream.parts import settled
from s3prl_stream.downstream.recipe import TaskRecipe
from s3prl_stream.downstream.scores import AXES, Score, Sweep
from s3prl_stream.downstream.streams import Noise
from s3prl_stream.downstream.train import train
from s3prl_stream.errors import UsageError
from s3prl_stream.heads import KINDS as HEADS
from s3prl_stream.shards.selection import selected_hours
from s3prl_stream.shards.shardset import ShardSet, as_shard_set
from s3prl_stream.shards.where import compile_where
from s3prl_stream.tasks.verification import Trial
from s3prl_stream.trainer.checkpoint import write_json
from s3prl_stream.upstreams import upstream as find_upstream
from s3prl_stream.upstreams.upstream import fingerprint_of

ALL, CLEAN = "100%", "none"
"""How all of a set, and no noise, are called."""
_OTHERS = frozenset({"valid", "tokenizer", "lexicon"})
"""Arguments of `train` that are no settings."""


class _Data(NamedTuple):
    """What is trained on, and what is scored."""

    name: str
    train: ShardSet
    where: Any
    """The rows that may be trained on: none of those that are scored."""
    test: ShardSet
    test_where: Any


@dataclass(frozen=True)
class _Cell:
    """One training, and one way to score it."""

    names: Mapping[str, str]
    """Axis -> how its value is called."""
    task: str | TaskRecipe
    data: _Data
    upstream: str
    training: Mapping[str, Any]
    """What else `train` is told."""
    noise: Noise | None
    """Of what is scored."""
    hours: float
    run: Path
    file: Path
    """The score."""


def sweep(
    task: Any,
    shards: Any,
    *,
    upstream: Any,
    out: str | Path,
    head: Any = None,
    subset: Any = None,
    noise: Any = None,
    snr: Any = (3.0, 20.0),
    seeds: int = 3,
    where: Any = None,
    test: Any = None,
    test_where: str | None = None,
    trials: Sequence[Trial] | None = None,
    noisy_training: bool = False,
    cache: str | Path | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Sweep:
    """Train and score every combination of what is given as a list, with several seeds. What is done is not done again.

    Args:
        task, upstream, head, subset, noise, snr: as `train` takes them by name, or a list of such values: an axis of
            the grid. "100%" stands for all data, and "none" for no noise, which has no ratio.
        shards: one set (what `open_shards` gives, a folder, `MemoryShards`), or a list of them: another axis.
        out: folder of the sweep; see the top of this file.
        seeds: how many; they are 0, 1 ...
        where: clips to train on.
        test: the set to score on; None: the one that is trained on.
        test_where: the clips of it to score on. They are not trained on.
        trials: of speaker verification; None: each utterance with each.
        noisy_training: train with the noise too. Else it is added to the clips that are scored alone, and costs no
            training.
        cache: folder for hidden states; None: `out/cache`. Trainings with noise, and of the upstream too, have none.
        quiet: no line on stderr for each cell.
        **settings: of `train`, for all cells (`label`, `steps`, `valid_where`, `lr`, `lexicon`, `normalize` ...).

    Raises:
        UsageError: a wrong argument, before anything is trained; or what is scored would be trained on, or chosen by.
    """
    if "seed" in settings:
        raise UsageError("sweep: give seeds=, how many there are, in place of seed=")
    axes: list[Sequence[Any]] = [
        _listed(task),
        [_data(one, where, test, test_where, settings) for one in _listed(shards)],
    ]
    fingerprints = {str(one): fingerprint_of(find_upstream(one)) for one in _listed(upstream)}
    axes += [list(fingerprints.items()), _listed(head), _listed(subset), list(_noises(noise, snr)), range(seeds)]
    cells = [
        _cell(Path(out), settings, trials, values, noisy_training=noisy_training) for values in itertools.product(*axes)
    ]
    if not cells:
        raise UsageError(f"sweep: nothing to do: a list is empty, or seeds is {seeds}")
    kept = None if settings.get("finetune") else str(cache or Path(out) / "cache")
    scores = []
    for number, cell in enumerate(cells, start=1):
        if not cell.file.is_file():
            _finish(cell, trials, kept)
        found = json.loads(cell.file.read_text())
        score = Score(
            cell.names, int(cell.training["seed"]), cell.hours, found["figures"], found["best"], str(cell.run)
        )
        scores.append(score)
        if not quiet:
            said = " ".join([*filter(None, cell.names.values()), f"seed {score.seed}"])
            tqdm.write(f"{number} of {len(cells)}: {said}: {score.best} {score.figures[score.best]:.4f}", sys.stderr)
    result = Sweep(tuple(scores))
    result.write(Path(out))
    try:
        result.draw(Path(out) / "sweep.png")
    except UsageError as error:  # the numbers are what was waited for
        tqdm.write(f"no sweep.png: {error}", sys.stderr)
    return result


def _finish(cell: _Cell, trials: Sequence[Trial] | None, cache: str | None) -> None:
    """Train what is left to train, and write the score."""
    training = dict(cell.training) if "noise" in cell.training else {**cell.training, "cache": cache}
    train(cell.task, cell.data.train, upstream=cell.upstream, out=cell.run, quiet=True, **training)
    added: dict[str, Any] = {} if cell.noise is None else {"noise": cell.noise.kind, "snr": cell.noise.snr_db}
    found = evaluate(
        cell.run,
        cell.data.test,
        where=cell.data.test_where,
        trials=trials,
        device=cell.training.get("device"),
        cache=cache,
        **added,
    )
    cell.file.parent.mkdir(exist_ok=True)
    write_json(cell.file, {"settings": dict(cell.names), "seed": cell.training["seed"], **asdict(found)})


def _cell(
    out: Path, settings: Mapping[str, Any], trials: Sequence[Trial] | None, values: Any, *, noisy_training: bool
) -> _Cell:
    """A cell of these values of the axes and a seed; UsageError if it cannot be trained like that."""
    task, data, (upstream, fingerprint), head, subset, (noise_name, ratio, noise), seed = values
    subset = None if subset in (None, ALL) else subset
    training = {**settings, "head": head, "subset": subset, "seed": seed, "where": data.where}
    if noisy_training and noise is not None:
        training |= {"noise": noise.kind, "snr": noise.snr_db}
    recipe, own = settled(task, **{name: value for name, value in training.items() if name not in _OTHERS})
    if recipe.head not in HEADS:
        raise UsageError(f"sweep: head {recipe.head!r} is unknown; there are {', '.join(HEADS)}")
    usable = rows_without(data.train, data.where, own.valid_where if settings.get("valid") is None else None)
    labelled = recipe.labels if len(recipe.labels) == 1 else ()
    usable = rows_with(data.train, usable, labelled, min_seconds=recipe.min_seconds)
    names = (recipe.name, data.name, upstream, recipe.head, subset or ALL, noise_name, ratio)
    made_of = {**training, "task": task, "upstream": fingerprint, "data": data.train, "noise": None}
    made_of |= {"noise": str(noise)} if "noise" in training else {}
    scored_on = {"test": data.test, "where": data.test_where, "trials": trials, "noise": str(noise)}
    parts = [recipe.name, Path(upstream).name, recipe.head, subset or ALL, f"seed{seed}", _identity(made_of)]
    run = out / "runs" / re.sub(r"[^\w.%+-]+", "_", "-".join(parts))
    return _Cell(
        names=dict(zip(AXES, names, strict=True)),
        task=task,
        data=data,
        upstream=upstream,
        training=training,
        noise=noise,
        hours=selected_hours(data.train, where=usable, subset=subset),
        run=run,
        file=run / "scores" / f"{_identity(scored_on)}.json",
    )


def _data(shards: Any, where: Any, test: Any, test_where: str | None, settings: Mapping[str, Any]) -> _Data:
    """Refuses to train on what is scored, and to choose weights by it."""
    train_set = as_shard_set(shards)
    test_set = train_set if test is None else as_shard_set(test)
    name = str(shards) if isinstance(shards, str | Path) else train_set.name
    if _share_clips(train_set, test_set):
        if test_where is None:
            raise UsageError(
                f"sweep: {name} is trained on. Say which of its clips are scored instead by test_where= "
                "(--test-where), or give another set by test= (--test)"
            )
        where = rows_without(train_set, where, test_where)
    valid, valid_where = settings.get("valid"), settings.get("valid_where")
    chosen = train_set if valid is None else as_shard_set(valid)
    if (valid is not None or valid_where is not None) and _share_clips(chosen, test_set):
        known = chosen.columns()
        parts = [compile_where(part, known) for part in (valid_where, test_where) if part is not None]
        both = parts[0] if len(parts) == 1 else parts[0] & parts[1] if parts else None
        if both is None or selected_hours(chosen, where=both):
            raise UsageError(
                "sweep: clips that are scored are in the validation part, so weights would be chosen by them"
            )
    return _Data(name, train_set, where, test_set, test_where)


def _share_clips(one: ShardSet, other: ShardSet) -> bool:
    return bool({member.fingerprint for member in one.members} & {member.fingerprint for member in other.members})


def _noises(noise: Any, snr: Any) -> Iterator[tuple[str, str, Noise | None]]:
    """(name, ratio, noise) of each kind at each ratio; there is one way to have none."""
    for kind in _listed(noise):
        if kind is None or kind == CLEAN:
            yield CLEAN, "", None
            continue
        for ratio in _listed(snr):
            low, high = ratio if isinstance(ratio, tuple) else (ratio, ratio)
            opened = Noise.of(kind, (float(low), float(high)))
            yield str(kind), f"{low:g}" if low == high else f"{low:g},{high:g}", opened


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _identity(made_of: Mapping[str, Any]) -> str:
    """8 hexadecimal digits for values that are JSON, have a fingerprint, or can be told by their text."""
    text = json.dumps(made_of, sort_keys=True, default=lambda value: getattr(value, "fingerprint", None) or str(value))
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
