"""Fit a linear probe on hidden states averaged over time: pretrained, untrained, and log-mel."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from s3prl_stream.cli import named

if TYPE_CHECKING:
    from s3prl_stream.probe import ProbeResult


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="SET", action="append", required=True, help="a packed set; may be repeated")
    parser.add_argument(
        "--upstream", metavar="RUN", required=True, help="a run, checkpoint, fbank, Hugging Face folder"
    )
    parser.add_argument("--label", metavar="COLUMN", required=True, help="index column to predict")
    split = parser.add_mutually_exclusive_group()
    split.add_argument(
        "--holdout", metavar="COLUMN[=A,B]", help="test on these values of a column, or on each of its values in turn"
    )
    split.add_argument("--test-where", metavar="EXPR", help='test on these clips, as in "take < 5"')
    parser.add_argument("--where", metavar="EXPR", help="clips to use at all")
    parser.add_argument("--center", metavar="COLUMN", help="subtract the mean of each value of a column, as in speaker")
    parser.add_argument("--seeds", metavar="N", type=int, default=3, help="default: %(default)s")
    parser.add_argument("--device", help="cpu, cuda ... (default: the GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="print the result as JSON")


def run(args: argparse.Namespace) -> int:
    """0 when the table is printed; 1 if some utterances could not be read."""
    from s3prl_stream.shards.shardset import open_shards

    shards = open_shards(args.data)  # a wrong path is told before torch is imported
    from s3prl_stream.probe import probe

    result = probe(
        shards,
        args.upstream,
        **named(args, "label", "holdout", "test_where", "where", "center", "seeds", "device"),
    )
    print(json.dumps(asdict(result)) if args.json else describe(result))
    return 1 if result.damaged else 0


def describe(result: ProbeResult) -> str:
    """The result as lines of text."""
    lines = [
        f"{result.label}: {result.classes} classes, {result.train} utterances to train, {result.test} to test "
        f"({result.split}); chance {result.chance:.1%}",
    ]
    if result.without_label:
        lines.append(f"{result.without_label} utterances have no {result.label} and were left out")
    if result.damaged:
        lines.append(f"{result.damaged} utterances could not be read and were left out")
    lines += ["", f"{'features':<12} {'layer':<14} {'accuracy':>9}   over {result.seeds} seed(s)"]
    for row in result.rows:
        layer = row.layer if row.layer != "best" else f"best ({','.join(map(str, row.chosen_layers))})"
        lines.append(f"{row.features:<12} {layer:<14} {row.accuracy:>9.1%} +- {row.spread:.1%}")
    lines += ["", "best: the layer was chosen on a validation part of the training utterances, never on the test part"]
    return "\n".join(lines)
