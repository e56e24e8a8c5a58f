"""The options of every command that plans a stream."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from s3prl_stream.cli import named
from s3prl_stream.errors import UsageError

if TYPE_CHECKING:
    from s3prl_stream.plan.planner import Planner
    from s3prl_stream.shards.shardset import ShardSet
    from s3prl_stream.stream import ShardStream


def add_stream_options(parser: argparse.ArgumentParser) -> None:
    """The settings of a ShardStream, under the names they have in Python."""
    parser.add_argument("set", nargs="+", metavar="SET", help="folder of a packed set; several are read as one")
    parser.add_argument("--seed", type=int, default=0, help="of the order and of all draws (default: %(default)s)")
    parser.add_argument("--batch-seconds", type=float, default=240.0, help="padded seconds in a batch")
    parser.add_argument("--batch-size", type=int, help="most clips in a batch")
    parser.add_argument(
        "--run", type=int, dest="neighbours", help="neighbours that stay together (default 1; 4 in a store)"
    )
    parser.add_argument("--chunk-seconds", type=float, help="cut clips into equal pieces no longer than this")
    parser.add_argument("--crop-seconds", type=float, help="one random stretch of this length from each clip")
    parser.add_argument("--where", help="rows to keep, as in: language == 'en' and seconds > 2")
    parser.add_argument("--subset", help='"10h", "30min" or "10%%", or "10h by speaker"')
    parser.add_argument("--balance", metavar="COLUMN", help="draw each value of this column equally often")
    add_mix_options(parser)


def add_mix_options(parser: argparse.ArgumentParser) -> None:
    """How several sets are mixed."""
    parser.add_argument("--weights", metavar="W,W", help="shares of the audio, one a set, in their order")
    parser.add_argument("--temperature", type=float, metavar="T", help="mix by hours ** (1 / T) instead")


def sets_from(sets: list[str], args: argparse.Namespace) -> ShardSet:
    """The sets of a command, mixed as its options say.

    Raises:
        UsageError: weights that are no numbers, or not one a set.
    """
    from s3prl_stream.shards.shardset import open_shards

    if args.weights is None:
        return open_shards(sets, temperature=args.temperature)
    try:
        weights = [float(weight) for weight in args.weights.split(",")]
    except ValueError:
        raise UsageError(f"--weights {args.weights}: give numbers with commas between, such as 0.7,0.3") from None
    if len(weights) != len(sets) or len(set(sets)) != len(sets):
        raise UsageError(f"--weights {args.weights}: {len(weights)} weights for {len(set(sets))} sets")
    return open_shards(dict(zip(sets, weights, strict=True)), temperature=args.temperature)


def stream_from(args: argparse.Namespace) -> ShardStream:
    """The endless stream that the options describe."""
    shards = sets_from(args.set, args)  # a wrong path is told before torch is imported
    from s3prl_stream.stream import ShardStream

    return ShardStream(shards, **_settings(args), **_selection(args))


def planner_from(args: argparse.Namespace) -> Planner:
    """The planner of that stream, without torch."""
    from s3prl_stream.plan.mix import planner_of
    from s3prl_stream.plan.settings import PlanSettings
    from s3prl_stream.shards.selection import compile_selection

    shards = sets_from(args.set, args)
    settings = {**_settings(args), "run": shards.default_run if args.neighbours is None else args.neighbours}
    return planner_of(shards, PlanSettings(**settings), compile_selection(shards, **_selection(args)))


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    budget = {"max_batch_seconds": args.batch_seconds, "max_batch_size": args.batch_size}
    return {**budget, "run": args.neighbours, **named(args, "seed", "chunk_seconds", "crop_seconds")}


def _selection(args: argparse.Namespace) -> dict[str, Any]:
    return named(args, "where", "subset", "balance")
