"""Pretrain an encoder. The same command continues where a run was stopped or killed; the losses are then those of an
undisturbed run.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3prl_stream.cli import Setting, add_assignments, add_settings, given_settings
from s3prl_stream.cli.stream_options import add_mix_options, sets_from
from s3prl_stream.errors import UsageError
from s3prl_stream.launcher import speaks
from s3prl_stream.text_lines import text_lines
from s3prl_stream.timing import Timing

if TYPE_CHECKING:
    from s3prl_stream.recipes.recipe import Recipe


_SETTINGS: dict[str, Setting] = {
    "model.hidden_size": Setting("--hidden-size", int, "N", "default: the recipe's, as for all that follow"),
    "model.num_layers": Setting("--layers", int, "N", "layers of the encoder"),
    "model.num_heads": Setting("--heads", int, "N", "attention heads"),
    "model.ffn_size": Setting("--ffn-size", int, "N", "width of the feed-forward part"),
    "model.dropout": Setting("--dropout", float, "P", "of hidden states"),
    "model.attention_dropout": Setting("--attention-dropout", float, "P", "0 is much faster on a CPU"),
    "train.lr": Setting("--lr", float, "RATE", "peak"),
    "stream.max_batch_seconds": Setting("--batch-seconds", float, "S", "padded audio in a batch"),
    "train.update_batches": Setting("--update-batches", int, "N", "in an update"),
    "stream.crop_seconds": Setting("--crop-seconds", float, "S", "longest stretch of a clip"),
    "stream.norm": Setting(
        "--norm", ("utterance", "fixed"), None, "of the features; fixed keeps the mean spectrum of short clips"
    ),
    "run.where": Setting("--where", str, "EXPR", "clips to use, as in \"seconds > 2 and speaker != 'a'\""),
    "run.subset": Setting("--subset", str, "AMOUNT", 'part of them: "10h" or "10%%"'),
    "run.seed": Setting("--seed", int, "N", "of everything that is drawn (default: 0)"),
    "run.device": Setting("--device", str, "DEVICE", "cpu, cuda ... (default: the GPU if there is one)"),
    "run.num_workers": Setting("--workers", int, "N", "loading processes (default: a thread)"),
    "run.checkpoint_every": Setting("--checkpoint-every", int, "N", "steps between checkpoints"),
    "valid.where": Setting("--valid-where", str, "EXPR", "hold out these clips, and tell the loss on them"),
    "valid.share": Setting("--valid-share", float, "P", "or hold out this share of all clips"),
    "run.init": Setting("--init", str, "RUN", "begin with the weights of this run, or of one of its checkpoints"),
}
"""Those that an option is short for."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="tera, mockingjay, audio_albert ...")
    parser.add_argument("--data", metavar="SET", action="append", required=True, help="a packed set; may be repeated")
    add_mix_options(parser)
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the run")
    parser.add_argument("--encoder", metavar="MODULE:CLASS", help="a network of your own, as in my.module:Net")
    parser.add_argument("--teacher", metavar="UPSTREAM", help="of distilhubert: a run, a checkpoint or a name")
    parser.add_argument("--steps", metavar="N", type=int, required=True, help="updates in all")
    add_settings(parser, _SETTINGS)
    parser.add_argument(
        "--skip-batches", metavar="A-B", action="append", default=[], help="leave out global batches A to B, included"
    )
    parser.add_argument("--exclude", metavar="FILE", help="leave out clips: a line each, a key or of `which --json`")
    add_assignments(parser, "any setting, as in --set model.num_layers=12; `--set help` lists all of the recipe")
    parser.add_argument("--config", metavar="FILE", help="settings in a TOML file; options and --set go before it")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """0 when the run has all its steps."""
    if "help" in args.assignments:
        return _list_settings(args.recipe)
    shards = sets_from(args.data, args)  # a wrong path is told before torch is imported
    from s3prl_stream.early_probe import ProbeSettings, early_probe
    from s3prl_stream.recipes import find_recipe
    from s3prl_stream.recipes.pretrain import pretrain
    from s3prl_stream.recipes.run_settings import ValidSettings
    from s3prl_stream.upstreams import upstream

    recipe = find_recipe(args.recipe)
    chosen = _chosen(recipe, args)
    asked = ProbeSettings(**chosen["probe"])
    result = pretrain(
        recipe,
        shards,
        steps=args.steps,
        out=args.out,
        encoder=args.encoder,
        teacher=None if args.teacher is None else upstream(args.teacher),
        valid=ValidSettings(**chosen["valid"]),
        skip_batches=[_range_from(text) for text in args.skip_batches],
        exclude=[] if args.exclude is None else _clips_from(Path(args.exclude)),
        hooks=[] if asked.label is None else [early_probe(asked, shards)],
        **chosen["model"],
        **chosen["stream"],
        **chosen["train"],
        **chosen["run"],
    )
    if not speaks():
        return 0
    if args.json:
        print(json.dumps({"run": args.out, **asdict(result)}, allow_nan=False))
        return 0
    if result.first_step == result.last_step:
        print(f"{args.out}: {result.last_step} steps are done already; {args.steps} were asked for. Nothing to do.")
        return 0
    since = f"steps {result.first_step + 1} to {result.last_step}" if result.first_step else f"{result.last_step} steps"
    print(f"{args.out}: {since}, {result.hours_seen:.2f} h of audio seen, last loss {result.loss}", end="")
    print(f", {result.left_out} clips skipped or excluded" if result.left_out else "", end="")
    print(f", {result.damaged} clips could not be used (damaged.jsonl)" if result.damaged else "", end="")
    print(f", {result.skipped_steps} updates left out (not finite, or without memory)" if result.skipped_steps else "")
    print(Timing(result.timing["stages"], result.timing["waiting"], result.timing["working"]))
    return 0


def _chosen(recipe: Recipe, args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Section -> the settings of it that the command line and a file give."""
    from s3prl_stream.settings import read_assignments, read_settings_file, resolve

    sections = _sections(recipe)
    given = {
        **({} if args.config is None else resolve(read_settings_file(args.config), sections)),
        **resolve(read_assignments(args.assignments, "train.lr=1e-3"), sections),
        **given_settings(args, _SETTINGS),
    }
    chosen: dict[str, dict[str, Any]] = {section: {} for section in sections}
    for name, value in given.items():
        section, _, field = name.partition(".")
        if field not in vars(sections[section]):  # `resolve` has looked at all others
            option = _SETTINGS[name].option
            raise UsageError(f"{option}: recipe {recipe.name} has no such setting; `--set help` lists those it has")
        chosen[section][field] = value
    return chosen


def _sections(recipe: Recipe) -> dict[str, Any]:
    """Section -> the dataclass instance that has its settings."""
    from s3prl_stream.early_probe import ProbeSettings
    from s3prl_stream.recipes.run_settings import RunSettings, ValidSettings

    parts = {"model": recipe.model, "stream": recipe.stream_settings, "train": recipe.train}
    return {**parts, "run": RunSettings(), "valid": ValidSettings(), "probe": ProbeSettings()}


def _list_settings(recipe: str) -> int:
    from s3prl_stream.recipes import find_recipe
    from s3prl_stream.settings import describe

    print("\n".join(describe(_sections(find_recipe(recipe)))))
    return 0


def _range_from(text: str) -> tuple[int, int]:
    first, _, last = text.partition("-")
    try:
        return int(first), int(last or first)
    except ValueError:
        raise UsageError(f"--skip-batches {text}: give a number, or two with a dash between, as in 1200-1300") from None


def _clips_from(path: Path) -> list[str | tuple[str, str]]:
    try:
        return [_clip_from(line.text.strip(), line.where) for line in text_lines(path) if line.text.strip()]
    except OSError as error:
        raise UsageError(f"--exclude {path}: cannot be read ({error})") from None


def _clip_from(line: str, where: str) -> str | tuple[str, str]:
    """A line as `which --json` prints, or a key alone."""
    try:
        row = json.loads(line) if line.startswith("{") else None
        return line if row is None else (str(row["set"]), str(row["key"]))
    except (ValueError, KeyError):
        raise UsageError(f"--exclude {where}: {line!r:.200} is no line of `which --json`") from None
