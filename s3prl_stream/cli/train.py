"""Train for a task of SUPERB (pr asr sf ks ic sid er asv sd, or tag, frames) with its published settings, each of which
can be set otherwise. The same command continues where a run was stopped or killed.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_type_hints

from s3prl_stream.cli import Setting, add_assignments, add_settings, given_settings, named
from s3prl_stream.cli.stream_options import add_mix_options, sets_from
from s3prl_stream.errors import UsageError
from s3prl_stream.launcher import speaks
from s3prl_stream.settings import fitted, keyword_defaults, lines_of, meant, read_assignments
from s3prl_stream.timing import Timing

DEFAULT_SNR = "3,20"

_FIXED = {"name", "kind", "head_settings", "task_settings"}
"""Of a recipe, what is no setting, or has its own settings by names with a dot."""


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", metavar="TASK", help="pr asr sf ks ic sid er asv sd tag frames")
    parser.add_argument("--data", metavar="SET", action="append", required=True, help="a packed set; may be repeated")
    add_mix_options(parser)
    parser.add_argument(
        "--upstream", metavar="NAME", required=True, help="a run, checkpoint, fbank, Hugging Face folder"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the run")
    parser.add_argument(
        "--head", metavar="KIND", help="linear hidden rnn transformer xvector ecapa (default: the task's)"
    )
    parser.add_argument("--subset", metavar="AMOUNT", help='part of the clips: "10h" or "10%%"')
    add_noise_options(parser)
    parser.add_argument("--seed", metavar="N", type=int, default=0, help="of everything that is drawn (default: 0)")
    add_training_options(parser)


_SETTINGS: dict[str, Setting] = {
    "steps": Setting("--steps", int, "N", "updates in all (default: as published)"),
    "where": Setting("--where", str, "EXPR", "clips to train on, as in \"split == 'train' and seconds > 2\""),
    "valid_where": Setting("--valid-where", str, "EXPR", "the part of it; without --valid, of --data"),
    "lr": Setting("--lr", float, "RATE", "learning rate (default: the task's)"),
    "max_batch_size": Setting("--batch-size", int, "N", "most clips in a batch (default: the task's)"),
    "max_batch_seconds": Setting("--batch-seconds", float, "S", "padded audio in a batch (default: 480)"),
    "update_batches": Setting("--update-batches", int, "N", "in an update (default: the task's)"),
    "crop_seconds": Setting("--crop-seconds", float, "S", "longest stretch of a clip (default: the task's)"),
    "evaluate_every": Setting("--evaluate-every", int, "N", "steps (default: the task's)"),
    "cache": Setting("--cache", str, "DIR", "keep features there: later epochs and runs do not compute them"),
    "cache_gigabytes": Setting("--cache-gb", float, "GB", "its limit (default: 20)"),
    "device": Setting("--device", str, "DEVICE", "cpu, cuda ... (default: the GPU if there is one)"),
    "precision": Setting("--precision", ("fp32", "bf16"), None, "of the forward pass"),
    "num_workers": Setting("--workers", int, "N", "loading processes (default: a thread)"),
    "checkpoint_every": Setting("--checkpoint-every", int, "N", "steps between checkpoints"),
}


def add_training_options(parser: argparse.ArgumentParser) -> None:
    """What a training is told besides data, upstream, head, amount, noise and seed."""
    parser.add_argument("--label", metavar="COLUMN", help="column to predict; several of slots with commas between")
    parser.add_argument("--valid", metavar="SET", action="append", help="a packed set to look at on the way")
    add_settings(parser, _SETTINGS)
    examples = "head.hidden_size=64, task.num_speakers=3, balance=False"
    add_assignments(parser, f"any setting of the task, as in {examples}; `--set help` lists them")
    parser.add_argument("--tokenizer", metavar="FILE", help="of texts (default: made from the texts)")
    parser.add_argument(
        "--lexicon", metavar="FILE", help="phonemes of words, a word a line (pr; else the text is phonemes)"
    )
    parser.add_argument("--normalize", action="store_true", help="bring hidden states to one scale before their sum")
    parser.add_argument("--finetune", action="store_true", help="train the upstream too")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def training_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_training_options` was given, as `train` takes it; what was not given is left out."""
    from s3prl_stream.shards.shardset import open_shards
    from s3prl_stream.tokenizers.lexicon import Lexicon
    from s3prl_stream.tokenizers.load import load_tokenizer

    settings = given_settings(args, _SETTINGS)
    if args.label is not None:
        settings["label"] = args.label.split(",")
    if args.valid is not None:
        settings["valid"] = open_shards(args.valid)
    if args.tokenizer is not None:
        settings["tokenizer"] = load_tokenizer(args.tokenizer)
    if args.lexicon is not None:
        settings["lexicon"] = Lexicon.from_file(args.lexicon)
    assigned = read_assignments(args.assignments, "head.hidden_size=64")
    given = {name: fitted(f"--set {name}", value, _kind_of_setting(name)) for name, value in assigned.items()}
    return {**settings, "normalize": args.normalize, "finetune": args.finetune, **given}


def add_noise_options(parser: argparse.ArgumentParser) -> None:
    """Noise that is added to every clip."""
    parser.add_argument("--noise", metavar="NOISE", help="add to each clip: gaussian, or a set or folder of noise")
    parser.add_argument("--snr", metavar="DB[,DB]", help=f"ratio, or its range (default: {DEFAULT_SNR})")


def noise_settings(args: argparse.Namespace) -> dict[str, Any]:
    """What `add_noise_options` was given, by the names it has in Python; UsageError if it makes no sense."""
    if args.noise is None and args.snr is not None:
        raise UsageError(f"{args.command} --snr: without --noise there is no ratio; say what is added")
    return {"noise": args.noise, "snr": snr_from(args.snr or DEFAULT_SNR)}


def snr_from(text: str) -> tuple[float, float]:
    """The range of --snr; UsageError if it is none."""
    low, _, high = text.partition(",")
    try:
        return float(low), float(high or low)
    except ValueError:
        raise UsageError(f"--snr {text}: give a number of dB, or two with a comma between, as in 3,20") from None


def run(args: argparse.Namespace) -> int:
    """0 when the run has all its steps."""
    if "help" in args.assignments:
        return list_settings(args.task, args.head)
    shards = sets_from(args.data, args)  # a wrong path is told before torch is imported
    from s3prl_stream.downstream.train import read_layer_weights, train

    settings = {**named(args, "upstream", "head", "subset", "seed"), **noise_settings(args), **training_settings(args)}
    result = train(args.task, shards, out=args.out, **settings)
    if not speaks():
        return 0
    weights = read_layer_weights(Path(args.out))
    if args.json:
        print(json.dumps({"run": args.out, **asdict(result), "layer_weights": weights}, allow_nan=False))
        return 0
    if result.first_step == result.last_step:
        print(f"{args.out}: {result.last_step} steps are done already. Nothing to do.")
        return 0
    since = f"steps {result.first_step + 1} to {result.last_step}" if result.first_step else f"{result.last_step} steps"
    print(f"{args.out}: {since}, {result.hours_seen:.2f} h of audio seen, last loss {result.loss}")
    if result.not_used:
        print(f"not trained on: {', '.join(f'{count} {why}' for why, count in result.not_used.items())}")
    if result.left_out:
        print(f"{result.left_out} clips were left out: longer than a batch may be (--batch-seconds), or not usable")
    if result.metrics:
        print("  ".join(f"{name} {value:.4f}" for name, value in result.metrics.items()))
    print("layer weights " + " ".join(f"{weight:.3f}" for weight in weights))
    print(Timing(result.timing["stages"], result.timing["waiting"], result.timing["working"]))
    return 0


def list_settings(task: str, head: str | None) -> int:
    """Print each setting of a task with its head, and of a run, with its value; 0."""
    from s3prl_stream.downstream.recipe import find_task
    from s3prl_stream.downstream.settings import RunSettings
    from s3prl_stream.heads.build import settings_of_head
    from s3prl_stream.tasks import KINDS

    recipe = find_task(task).having({} if head is None else {"head": head})
    kind, found_by_itself = KINDS[recipe.kind], {"text", "columns"}
    of_task = {name: value for name, value in keyword_defaults(kind).items() if name not in found_by_itself}
    parts = {
        "head": {**settings_of_head(recipe.head, kind.level), **recipe.head_settings},
        "task": {**of_task, **recipe.task_settings},
    }
    values = {name: value for name, value in {**vars(recipe), **vars(RunSettings())}.items() if name not in _FIXED}
    values |= {f"{part}.{name}": value for part, inner in parts.items() for name, value in inner.items()}
    print("\n".join(lines_of(values)))
    return 0


def _kind_of_setting(name: str) -> Any:
    """The type of a setting of a task or of a run; UsageError if there is none of that name."""
    from s3prl_stream.downstream.recipe import TaskRecipe
    from s3prl_stream.downstream.settings import RunSettings

    if "." in name:  # of a head or a task, which know theirs
        return Any
    hints = {**get_type_hints(TaskRecipe), **get_type_hints(RunSettings)}
    kinds = {setting: kind for setting, kind in hints.items() if setting not in _FIXED}
    if name not in kinds:
        hint = meant([name], [*sorted(kinds), "head.X", "task.X"])
        raise UsageError(f"--set {name}: there is no such setting; {hint}")
    return kinds[name]
