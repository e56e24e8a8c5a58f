"""Train and score every combination of the upstreams, heads, amounts, noises and sets that are named, with several
seeds: one table, and a picture of the score against hours, ratio or upstream. The same command goes on where it was
stopped, and does nothing again.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from s3prl_stream.cli import named
from s3prl_stream.cli.train import DEFAULT_SNR, add_training_options, list_settings, snr_from, training_settings
from s3prl_stream.errors import UsageError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("task", nargs="+", metavar="TASK", help="pr asr sf ks ic sid er asv sd tag frames")
    grid = parser.add_argument_group("the grid: one value or several")
    grid.add_argument("--data", nargs="+", metavar="SET", required=True, help="packed sets, each to train on alone")
    grid.add_argument("--upstream", nargs="+", metavar="NAME", required=True, help="as of `train`")
    grid.add_argument("--head", nargs="+", metavar="KIND", default=[None], help="as of `train`")
    grid.add_argument("--subset", nargs="+", metavar="AMOUNT", default=[None], help="as in 100%% 10%% 1h")
    grid.add_argument(
        "--noise", nargs="+", metavar="NOISE", default=[None], help="gaussian, a set or folder of noise, or none"
    )
    grid.add_argument("--snr", nargs="+", metavar="DB[,DB]", help=f"ratios (default: {DEFAULT_SNR})")
    parser.add_argument("--seeds", metavar="N", type=int, default=3, help="how many (default: %(default)s)")
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the sweep")
    parser.add_argument("--test", nargs="+", metavar="SET", help="what is scored (default: --data, by --test-where)")
    parser.add_argument("--test-where", metavar="EXPR", help="the clips of it that are scored; they are not trained on")
    parser.add_argument("--trials", metavar="FILE", help="of speaker verification (default: all pairs)")
    parser.add_argument(
        "--noisy-training", action="store_true", help="train with the noise too (default: only what is scored has it)"
    )
    add_training_options(parser)


def run(args: argparse.Namespace) -> int:
    """0 when every cell has its score."""
    if "help" in args.assignments:
        return list_settings(args.task[0], args.head[0])
    from s3prl_stream.shards.shardset import open_shards

    for one in [*args.data, *(args.test or [])]:
        open_shards(one)  # a wrong path is told before torch is imported
    from s3prl_stream.downstream.sweep import sweep
    from s3prl_stream.tasks.verification import read_trials

    if args.noise == [None] and args.snr is not None:
        raise UsageError("sweep --snr: without --noise there is no ratio; say what is added")
    settings = {
        **named(args, "upstream", "head", "subset", "noise", "seeds", "test", "test_where", "noisy_training"),
        "snr": [snr_from(one) for one in args.snr or [DEFAULT_SNR]],
        "trials": None if args.trials is None else read_trials(args.trials),
        **training_settings(args),
    }
    result = sweep(args.task, args.data, out=args.out, **settings)
    print(json.dumps(result.as_json(), allow_nan=False) if args.json else result.table())
    written = ", ".join(sorted(file.name for file in Path(args.out).glob("sweep.*")))
    print(f"{args.out}: {written}; the runs are in runs/", file=sys.stderr)
    return 0
