"""Score a run of `train`: its best weights if it had a validation part, else its newest."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from s3prl_stream.cli import named
from s3prl_stream.cli.run_there import need_run
from s3prl_stream.cli.summary import first_of
from s3prl_stream.cli.train import add_noise_options, noise_settings

_ALL = "; --json lists all"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("trained", metavar="RUN", help="output folder of `train`, or a checkpoint in it")
    parser.add_argument("--data", metavar="SET", action="append", required=True, help="a packed set; may be repeated")
    parser.add_argument("--where", metavar="EXPR", help="clips to score, as in \"split == 'test'\"")
    parser.add_argument(
        "--trials", metavar="FILE", help="speaker verification: lines of 0 or 1 and two keys (default: all pairs)"
    )
    add_noise_options(parser)
    parser.add_argument("--cache", metavar="DIR", help="keep features there, as `train` does")
    parser.add_argument("--cache-gb", metavar="GB", type=float, default=20.0, help="its limit (default: 20)")
    parser.add_argument("--device", help="cpu, cuda ... (default: the GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """0 when scored; 1 if some clips could not be used."""
    from s3prl_stream.shards.shardset import open_shards

    need_run(args.trained, "train")
    shards = open_shards(args.data)  # a wrong path is told before torch is imported
    from s3prl_stream.downstream.evaluate import evaluate
    from s3prl_stream.tasks.verification import read_trials

    result = evaluate(
        args.trained,
        shards,
        trials=None if args.trials is None else read_trials(args.trials),
        cache_gigabytes=args.cache_gb,
        **named(args, "where", "device", "cache"),
        **noise_settings(args),
    )
    if args.json:
        print(json.dumps(asdict(result), allow_nan=False))
    else:
        print(f"{args.trained}: {result.task}, {result.checkpoint}, {result.utterances} utterances", end="")
        reasons = ", ".join(f"{count} {reason}" for reason, count in result.reasons.items())
        without = f", {result.without_label} more have no label" if result.without_label else ""
        print(without + (f", {result.damaged} could not be used ({reasons})" if result.damaged else ""))
        if result.unknown:
            print("of classes that were not trained on, so that they count as missed:")
            print("\n".join(first_of([f"{count} {name}" for name, count in sorted(result.unknown.items())], _ALL)))
        for name, value in result.figures.items():
            print(f"  {name:24} {value:.4f}")
        if result.trials_not_scored:
            trials = [f"{one.is_target:d} {one.first} {one.second}" for one in result.trials_not_scored]
            print(f"{len(trials)} of {len(trials) + round(result.figures['trials'])} trials could not be scored:")
            print("\n".join(first_of(trials, _ALL)))
        print("layer weights " + " ".join(f"{weight:.3f}" for weight in result.layer_weights))
    return 1 if result.damaged else 0
