"""Training a head on an upstream for a task: a recipe, a set and an upstream, wired to the training loop."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from s3prl_stream import __version__
from s3prl_stream.downstream.judge import answers_to, unknown_classes
from s3prl_stream.downstream.parts import TrainingParts, training_parts
from s3prl_stream.downstream.recipe import TaskRecipe
from s3prl_stream.downstream.settings import WRITTEN_APART, RunSettings
from s3prl_stream.downstream.streams import seconds_by_set
from s3prl_stream.errors import StateError
from s3prl_stream.loader import Loader
from s3prl_stream.recipes.run_folder import alone_in_run, check_run, describe_module, pick_device
from s3prl_stream.sample import Batch
from s3prl_stream.shards.shardset import name_and_fingerprint
from s3prl_stream.stores.alone import output_folder
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.tokenizer import Tokenizer
from s3prl_stream.trainer.checkpoint import load_weights_into, newest_checkpoint, write_json
from s3prl_stream.trainer.loop import Hook, TrainResult
from s3prl_stream.trainer.loop import train as train_loop
from s3prl_stream.trainer.ranks import Ranks, device_of_rank, joined_ranks
from s3prl_stream.upstreams import Upstream
from s3prl_stream.upstreams.upstream import fingerprint_of

LAYER_WEIGHTS = "layer_weights.json"
_MOST_SHOWN = 10


def train(
    task: str | TaskRecipe,
    shards: Any,
    *,
    upstream: str | Path | Upstream,
    out: str | Path,
    head: str | nn.Module | None = None,
    label: str | Sequence[str] | None = None,
    steps: int | None = None,
    valid: Any = None,
    tokenizer: Tokenizer | None = None,
    lexicon: Lexicon | None = None,
    quiet: bool = False,
    **settings: Any,
) -> TrainResult:
    """Train for a task, or continue: the same call after a kill gives the losses of an undisturbed run.

    Started by torchrun, each process trains on its share of every update.

    Args:
        task: a name in `downstream.recipe.RECIPES` ("asr", "ks", "sid" ...), or a `TaskRecipe` of one's own.
        shards: `open_shards(...)`, or what a `ShardStream` accepts; several sets, weighted or not, are one.
        upstream: what `ss.upstream` takes (folder of a run, "fbank" ...), or an `Upstream`.
        out: folder of the run: `run.json`, `losses.jsonl`, `metrics.jsonl`, `checkpoints/`, `best/`, `tokenizer`,
            `lexicon.txt`, `layer_weights.json`.
        head: "linear", "hidden", "rnn", "transformer", "xvector", "ecapa", or a module ([B, F, H], [B]) -> (outputs,
            lengths); None: that of the recipe.
        label: the column to predict, or several of slots; None: those of the recipe.
        steps: updates in all; None: as published.
        valid: a set to look at on the way; the best weights by its figure stay in `best/`.
        tokenizer: of texts; None: made from the texts that are trained on.
        lexicon: of phoneme recognition: the text is words, and the answer their phonemes; None: the text is phonemes.
        quiet: no progress on stderr.
        **settings: by name, of the run (`where`, `subset`, `valid_where`, `noise`, `snr`, `cache`, `seed` ..., see
            `RunSettings`), and what differs from the recipe (`TaskRecipe`: `lr`, `max_batch_size`, `update_batches`,
            `crop_seconds` ...). Names with a dot set what is the head's or the task's:
            `**{"head.hidden_size": 64, "task.num_speakers": 3}`.

    Raises:
        UsageError: a wrong argument, a column that is missing, or `out` holds something else.
        StateError: `out` holds a run with other settings or of other data; the difference is named. Or another process
            trains there.
    """
    run = output_folder(out)
    device = device_of_rank(pick_device(RunSettings(device=settings.pop("device", None)).device))
    parts = training_parts(
        task,
        shards,
        upstream=upstream,
        head=head,
        label=label,
        steps=steps,
        valid=valid,
        tokenizer=tokenizer,
        lexicon=lexicon,
        device=str(device),
        **settings,
    )
    with contextlib.nullcontext() if parts.cache is None else contextlib.closing(parts.cache):
        written = {
            **_written(parts),
            "upstream": describe_module(upstream) if isinstance(upstream, Upstream) else str(upstream),
            "head": describe_module(head) if isinstance(head, nn.Module) else parts.recipe.head,
            "device": str(device),
        }
        return _train(parts, json.loads(json.dumps(written)), run, device, quiet=quiet)  # as it will be read: no tuples


def _train(
    parts: TrainingParts, written: dict[str, Any], run: Path, device: torch.device, *, quiet: bool
) -> TrainResult:
    ranks, model, workers = Ranks(), parts.model, parts.own.num_workers
    ranks.share_of(parts.settings.update_batches)
    pinned = device.type == "cuda" and workers > 0
    loader = Loader(parts.stream, num_workers=workers, pin_memory=pinned, rank=ranks.rank, world_size=ranks.world_size)
    unusable: dict[tuple[str, str], tuple[str, str]] = {}  # (set, key) -> why, in a word and in a message
    unknown: dict[str, int] = {}

    def heard(batch: Batch) -> dict[str, float]:
        unusable.update({(one["set"], one["key"]): (one["reason"], one["message"]) for one in loader.damaged})
        loader.damaged.clear()  # which lists the newest only
        return seconds_by_set(batch)

    check_run(run, written)
    # a mistake in the settings has been told: once, without waiting for other ranks, and it leaves nothing behind
    with joined_ranks(device), alone_in_run(run, written, ranks):
        if ranks.is_first and parts.texts is not None:
            parts.texts.save(run)
        result = train_loop(
            model,
            loader,
            parts.settings,
            run=run,
            set_names=[member.name for member in parts.shards.members],
            seconds_by_set=heard,
            hooks=_judging(parts, device, unknown, tells=ranks.is_first and not quiet),
            device=device,
            quiet=quiet,
        )
        if ranks.is_first:
            if result.first_step == result.last_step:  # so it was not loaded; this file may lack for a kill
                load_weights_into(model, newest_checkpoint(run))
            write_json(run / LAYER_WEIGHTS, model.featurizer.weights())
        unusable = {clip: told for some in ranks.gather(unusable) for clip, told in some.items()}
    if unusable and ranks.is_first and not quiet:
        reasons = ", ".join(sorted({reason for reason, _ in unusable.values()}))
        _, message = next(iter(unusable.values()))
        tqdm.write(f"clips that could not be used ({reasons}), such as: {message}", file=sys.stderr)
    return dataclasses.replace(
        result,
        left_out=len(loader.too_long) + len(unusable),
        not_used=parts.not_used,
        unknown=unknown,
        timing=loader.timing().as_dict(),
    )


def _judging(parts: TrainingParts, device: torch.device, unknown: dict[str, int], *, tells: bool) -> list[Hook]:
    """Asks for the figures of the validation part; `unknown` gets the classes in it that are not trained on."""
    judged, task = parts.judged, parts.model.task
    if judged is None:
        return []

    def ask(_step: int) -> Mapping[str, float]:
        answers = answers_to(parts.model, Loader(judged, rank=0, world_size=1), device)
        told = bool(unknown)
        unknown.clear()
        unknown.update(unknown_classes(task, answers))
        if tells and unknown and not told:
            count, some = sum(unknown.values()), ", ".join(sorted(unknown)[:_MOST_SHOWN])
            tqdm.write(f"valid: {count} clips count as missed, of classes not trained on ({some} ...)", file=sys.stderr)
        return {f"valid_{name}": value for name, value in task.score(answers).items()}

    return [Hook(parts.recipe.evaluate_every, ask)]


def _written(parts: TrainingParts) -> dict[str, Any]:
    """What `run.json` holds, but for the names of the networks and the machine."""
    recipe, own, shards, valid = parts.recipe, parts.own, parts.shards, parts.valid
    of_recipe = {name: value for name, value in dataclasses.asdict(recipe).items() if name not in _TOLD}
    return {
        "task": recipe.name,
        "kind": recipe.kind,
        "task_config": parts.model.task.config(),
        "data": name_and_fingerprint(shards),
        "weights": None if shards.weights is None else list(shards.weights),
        "valid": None if valid is None else name_and_fingerprint(valid),
        "where": None if own.where is None else str(own.where),
        "steps": recipe.steps,
        **{f"recipe_{name}": value for name, value in of_recipe.items()},
        **{name: value for name, value in vars(own).items() if name not in WRITTEN_APART},
        "version": __version__,
        "upstream_fingerprint": fingerprint_of(parts.model.upstream),
        "noise": None if parts.noise is None else str(parts.noise),
        **({"vocabulary": None} if parts.texts is None else parts.texts.settings()),
        "ranks": Ranks().world_size,
    }


_TOLD = ("name", "kind", "head", "steps", "evaluate_every")
"""Settings of a recipe that stand in `run.json` under other names, or change nothing that is trained."""


def read_layer_weights(run: Path) -> list[float]:
    """The weight of each hidden state at the end of a run; StateError if they cannot be read."""
    path = run / LAYER_WEIGHTS
    try:
        return [float(weight) for weight in json.loads(path.read_bytes())]
    except (OSError, ValueError, TypeError) as error:
        raise StateError(
            f"{path}: cannot be read ({error}), expected a list of numbers. The same `train` command writes it anew."
        ) from error
