"""`report`: one page with pictures of what a run did: loss, rate, throughput, figures of its hooks, reconstructions,
weights of hidden states.

RUN/report/index.html and the pictures beside it; drawn anew each time, at any time, also while the run is going on.
"""

from __future__ import annotations

import html
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.downstream.train import LAYER_WEIGHTS, read_layer_weights
from s3prl_stream.errors import StreamError, UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.objectives.loss import last_hidden
from s3prl_stream.pictures import Curve, draw_curves, draw_layer_weights, draw_reconstruction
from s3prl_stream.recipes.pretrain import RESUMES
from s3prl_stream.recipes.run_folder import SETTINGS, load_objective, read_settings, recipe_of
from s3prl_stream.shards.shardset import ShardSet, as_shard_set, open_shards
from s3prl_stream.trainer.checkpoint import BEST, list_checkpoints, load_state
from s3prl_stream.trainer.losslog import LOSSES, METRICS, each_line, read_lines
from s3prl_stream.trainer.record import WAITS

FOLDER = "report"
_NUM_CLIPS = 3
_NUM_POINTS = 400
"""Of a curve: of a longer run each point is a mean over neighbouring steps."""

F64 = npt.NDArray[np.float64]
Columns = dict[str, F64]
"""Name -> its values, NaN where a line has none."""


class Report(NamedTuple):
    """What was drawn."""

    page: Path
    facts: dict[str, str]
    """The table on the page: what -> how much."""


def report(run: str | Path, *, data: Any = None) -> Report:
    """Draw the page of a run.

    Args:
        run: output folder of `pretrain` or `train`.
        data: set whose clips are reconstructed; None: that of the run, if it lies where it lay.

    Raises:
        UsageError: no run there, it has no steps yet, no set at `data`, or matplotlib is missing.
    """
    folder = Path(run)
    settings = read_settings(folder) if (folder / SETTINGS).is_file() else {}
    losses = _columns(folder / LOSSES, "step", "loss", "lr", "grad_norm", "applied", "seconds", "hours_seen")
    if not len(losses["step"]):
        raise UsageError(f"{run}: no steps in losses.jsonl; give the output folder of a run that has begun")
    given = None if data is None else as_shard_set(data)
    out = folder / FOLDER
    metrics, times = read_lines(folder / METRICS), _newest_times(folder)
    pictures = list(_draw_curves(folder, losses, metrics, times, out))
    drawn, why_not = _draw_reconstructions(folder, settings, given, out)
    facts = {**_facts(folder, losses, metrics, times), **({"reconstructions": why_not} if why_not else {})}
    page = out / "index.html"
    page.write_text(_page(folder.name, facts, [*pictures, *drawn], settings), encoding="utf-8")
    return Report(page, facts)


def _columns(path: Path, *names: str) -> Columns:
    """Of a log, which may have a thousand bytes a line: of 23 sets."""
    values = {name: array("d") for name in names}
    for line in each_line(path):
        for name in names:
            value = line.get(name)
            values[name].append(np.nan if value is None else value)
    return {name: np.array(column) for name, column in values.items()}


def _newest_times(folder: Path) -> Columns:
    """The times of each step, in their order, of the last time it was done."""
    columns = _columns(folder / WAITS, "step", "waited_seconds", "seconds")
    _, last = np.unique(columns["step"][::-1], return_index=True)
    return {name: column[::-1][last] for name, column in columns.items()}


def _facts(folder: Path, losses: Columns, metrics: list[dict[str, Any]], times: Columns) -> dict[str, str]:
    took, waited = np.nansum(times["seconds"]), np.nansum(times["waited_seconds"])
    heard = losses["seconds"][np.isin(losses["step"], times["step"])].sum() / 3600
    newest = losses["loss"][np.isfinite(losses["loss"])][-100:]
    facts = {
        "steps": f"{losses['step'][-1]:.0f}",
        "audio seen": f"{losses['hours_seen'][-1]:.2f} h",
        "loss": f"{newest.mean():.4f} (mean of the last {len(newest)} steps)" if len(newest) else "not finite",
        "speed": f"{heard / took:.3f} audio hours a second" if took else "not known",
        "waiting for data": f"{waited / took:.1%} of the time" if took else "not known",
        "updates left out": f"{np.count_nonzero(losses['applied'] == 0)}",
        "continued": f"{len(read_lines(folder / RESUMES))} times",
    }
    names = sorted({name for line in metrics for name in line} - {"step"})
    for name in names:
        value = [line[name] for line in metrics if name in line][-1]
        facts[name] = "not finite" if value is None else f"{value:.4g}"
    for best in list_checkpoints(folder, folder=BEST):
        facts["best checkpoint"] = f"step {load_state(best)['step']}"
    return facts


def _draw_curves(
    folder: Path, losses: Columns, metrics: list[dict[str, Any]], times: Columns, out: Path
) -> Iterator[tuple[str, str]]:
    """(name of the picture, what it shows) of each for which there is something."""

    def of_steps(label: str, name: str) -> Curve:
        return Curve(label, *_thinned(losses["step"], losses[name]))

    def of_metrics(label: str, name: str) -> Curve:
        values = (np.array([line.get(one) for line in metrics], dtype=np.float64) for one in ("step", name))
        return Curve(label, *_thinned(*values))

    trained_on, held_out = of_steps("trained on", "loss"), of_metrics("held out", "valid_loss")
    draw_curves([trained_on, held_out] if held_out.steps else [trained_on], "loss", out / "loss.png")
    yield "loss.png", "Loss"

    rate, norm = of_steps("learning rate", "lr"), of_steps("gradient norm", "grad_norm")
    draw_curves([rate], "learning rate", out / "rate.png", others=[norm], other_label="gradient norm")
    yield "rate.png", "Learning rate and gradient"

    steps, of_losses, of_times = np.intersect1d(losses["step"], times["step"], return_indices=True)
    took = times["seconds"][of_times]
    if (took > 0).any():
        with np.errstate(divide="ignore", invalid="ignore"):
            heard, waited = losses["seconds"][of_losses] / 3600 / took, 100 * times["waited_seconds"][of_times] / took
        speed, share = Curve("speed", *_thinned(steps, heard)), Curve("waiting", *_thinned(steps, waited))
        label, other_label = "audio hours per second", "waiting for data, %"
        draw_curves([speed], label, out / "speed.png", others=[share], other_label=other_label)
        yield "speed.png", "Throughput"

    names = sorted({name for line in metrics for name in line} - {"step", "valid_loss"})
    if names:
        draw_curves([of_metrics(name, name) for name in names], "", out / "metrics.png")
        yield "metrics.png", "Asked on the way"

    if (folder / LAYER_WEIGHTS).is_file():  # of a run of `train` that has ended
        draw_layer_weights(read_layer_weights(folder), out / "layer_weights.png")
        yield "layer_weights.png", "Weights of the hidden states"


def _draw_reconstructions(
    folder: Path, settings: dict[str, Any], given: ShardSet | None, out: Path
) -> tuple[list[tuple[str, str]], str | None]:
    """(pictures, None), or none and why not."""
    if "recipe" not in settings:
        return [], "none: this is no run of pretrain"
    places = [url for url in settings.get("sets", []) if url]
    if given is None and not places:
        return [], "none: the place of the set is not known, give --data"
    try:
        objective: Any = load_objective(folder)
        recipe = recipe_of(settings)
        shards = open_shards(places) if given is None else given
        stream = recipe.stream(shards, seed=1, max_batch_seconds=60.0, where=settings.get("where"))
        batch: Any = next(iter(Loader(stream, rank=0, world_size=1)))
    except StreamError as error:
        return [], f"none: {error}"
    if "feat" not in batch:
        return [], f"none: {recipe.name} predicts no features"
    given_BFD = batch.get("masked_feat", batch["feat"])
    with torch.inference_mode():
        hidden_states = objective.encoder(given_BFD, batch["feat_len"])
        predicted_BFD = objective.head(last_hidden(objective.encoder, hidden_states, len(given_BFD))).float()
    target_BFD = batch.get("target_feat", batch["feat"])
    pictures: list[tuple[str, str]] = []
    for row in batch["feat_len"].argsort(descending=True)[:_NUM_CLIPS].tolist():
        frames, name = int(batch["feat_len"][row]), f"reconstruction-{len(pictures) + 1}.png"
        rows = [one[row, :frames].numpy() for one in (target_BFD, given_BFD, predicted_BFD)]
        draw_reconstruction(
            rows[0], rows[1], rows[2], batch["key"][row], out / name, names=("target", "given", "predicted")
        )
        pictures.append((name, f"Reconstruction: {batch['key'][row]}"))
    return pictures, None


def _thinned(steps: F64, values: F64) -> tuple[list[int], list[float]]:
    """Steps and values; of many, means over neighbours. What is not finite is left out."""
    finite = np.isfinite(values)
    steps, values = steps[finite], values[finite]
    width = max(1, -(-len(steps) // _NUM_POINTS))
    ends = range(width, len(steps) + width, width)
    return [int(steps[:end][-1]) for end in ends], [float(values[end - width : end].mean()) for end in ends]


def _page(title: str, facts: dict[str, str], pictures: list[tuple[str, str]], settings: dict[str, Any]) -> str:
    def table(rows: dict[str, Any]) -> str:
        lines = (
            f"<tr><th>{html.escape(name)}</th><td>{html.escape(str(value))}</td></tr>" for name, value in rows.items()
        )
        return "<table>" + "".join(lines) + "</table>"

    figures = "".join(
        f'<h2>{html.escape(caption)}</h2><img src="{html.escape(name)}" alt="{html.escape(caption)}">'
        for name, caption in pictures
    )
    style = (
        "body{font:15px sans-serif;max-width:60em;margin:2em auto}th{text-align:left;padding-right:2em}img{width:100%}"
    )
    return (
        f'<!doctype html><meta charset="utf-8"><title>{html.escape(title)}</title><style>{style}</style>'
        f"<h1>{html.escape(title)}</h1>{table(facts)}{figures}<h2>Settings</h2>{table(settings)}\n"
    )
