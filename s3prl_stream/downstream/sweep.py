"""A grid of trainings and their scores: `train` and `evaluate` for each cell, one table over the seeds, one picture.

    OUT/runs/NAME-IDENTITY/                        a run of `train`
    OUT/runs/NAME-IDENTITY/scores/IDENTITY.json    a cell: its settings and its figures; cells that differ only in what
                                                   they are scored on share a run
    OUT/sweep.json  sweep.csv  sweep.md  sweep.png
    OUT/cache/                                     hidden states of the frozen upstreams

What an identity is made of is in `grid.py`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from s3prl_stream import __version__
from s3prl_stream.downstream.evaluate import evaluate
from s3prl_stream.downstream.grid import Cell, cell_data, listed, make_cell, noises_of
from s3prl_stream.downstream.scores import Score, Sweep
from s3prl_stream.downstream.train import train
from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.json_files import read_json
from s3prl_stream.stores.alone import LOCK, alone_in, output_folder
from s3prl_stream.tasks.verification import Trial
from s3prl_stream.trainer.checkpoint import write_json
from s3prl_stream.trainer.ranks import Ranks
from s3prl_stream.upstreams import upstream as find_upstream
from s3prl_stream.upstreams.upstream import fingerprint_of


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
        StateError: another sweep is at work in `out`.
    """
    if (world_size := Ranks().world_size) > 1:
        raise UsageError(
            f"sweep: {world_size} processes were started (WORLD_SIZE), and it is the work of one: start it without "
            "torchrun. What is large enough for several is trained by `train`."
        )
    if "seed" in settings:
        raise UsageError("sweep: give seeds=, how many there are, in place of seed=")
    folder = output_folder(out)
    fingerprints = {str(one): fingerprint_of(find_upstream(one)) for one in listed(upstream)}
    axes: list[Iterable[Any]] = [
        listed(task),
        [cell_data(one, where, test, test_where, settings) for one in listed(shards)],
        fingerprints.items(),
        listed(head),
        listed(subset),
        list(noises_of(noise, snr)),
        range(seeds),
    ]
    found = (
        make_cell(folder, settings, trials, values, noisy_training=noisy_training)
        for values in itertools.product(*axes)
    )
    cells = list({cell.file: cell for cell in found}.values())  # an axis may name one value twice
    if not cells:
        raise UsageError(f"sweep: nothing to do: a list is empty, or seeds is {seeds}")
    files = {entry.name for entry in folder.iterdir() if not entry.is_dir()} if folder.is_dir() else set()
    if files - {LOCK} and not (folder / "runs").is_dir():
        raise UsageError(f"{out}: holds files but no sweep (runs/); give a new or an empty output folder")
    kept = None if settings.get("finetune") else str(cache or folder / "cache")
    with alone_in(folder):
        return _swept(cells, folder, trials, kept, quiet=quiet)


def _swept(
    cells: Sequence[Cell], out: Path, trials: Sequence[Trial] | None, cache: str | None, *, quiet: bool
) -> Sweep:
    """All scores, of which those that are there are not made again."""
    scores = []
    for number, cell in enumerate(cells, start=1):
        if not cell.file.is_file():
            _finish(cell, trials, cache)
        found = read_json(cell.file, StateError, "Remove this file, and the cell is scored again.")
        score = Score(
            cell.names, int(cell.training["seed"]), cell.hours, found["figures"], found["best"], str(cell.run)
        )
        scores.append(score)
        if not quiet:
            said = " ".join([*filter(None, cell.names.values()), f"seed {score.seed}"])
            line = f"{number} of {len(cells)}: {said}: {score.best} {score.figures[score.best]:.4f}"
            tqdm.write(line + (f"; {found['damaged']} clips could not be scored" * bool(found["damaged"])), sys.stderr)
    result = Sweep(tuple(scores))
    result.write(out)
    try:
        result.draw(out / "sweep.png")
    except UsageError as error:  # the numbers are what was waited for
        tqdm.write(f"no sweep.png: {error}", sys.stderr)
    return result


def _finish(cell: Cell, trials: Sequence[Trial] | None, cache: str | None) -> None:
    """Train what is left to train, and write the score."""
    training = dict(cell.training) if "noise" in cell.training else {**cell.training, "cache": cache}
    train(cell.task, cell.data.train, upstream=cell.upstream, out=cell.run, quiet=True, **training)
    added: dict[str, Any] = {} if cell.noise is None else {"noise": cell.noise.kind, "snr": cell.noise.snr_db}
    if "cache_gigabytes" in cell.training:
        added["cache_gigabytes"] = cell.training["cache_gigabytes"]
    found = evaluate(
        cell.run,
        cell.data.test,
        where=cell.data.test_where,
        trials=trials,
        device=cell.training.get("device"),
        cache=cache,
        **added,
    )
    told = {"settings": dict(cell.names), "seed": cell.training["seed"], "version": __version__, **asdict(found)}
    cell.file.parent.mkdir(exist_ok=True)
    write_json(cell.file, told)
