"""Write the hidden states of a set's clips to a set of their own, with the keys, labels and texts of the audio's. The
same command goes on where one was stopped. Exit status 1 if a clip could not be read.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict

from s3prl_stream.cli import named
from s3prl_stream.cli.progress import Progress
from s3prl_stream.errors import UsageError


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", metavar="SET", required=True, help="a packed set")
    parser.add_argument(
        "--upstream", metavar="NAME", required=True, help="a run, checkpoint, fbank, Hugging Face folder"
    )
    parser.add_argument("--out", metavar="DIR", required=True, help="folder of the new set")
    parser.add_argument("--layers", metavar="N,N", help="hidden states that are kept, as in 0,4,12 (default: all)")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="default: %(default)s")
    parser.add_argument("--where", metavar="EXPR", help="clips to use, as in \"seconds > 2 and speaker != 'a'\"")
    parser.add_argument("--subset", metavar="AMOUNT", help='part of them: "10h" or "10%%"')
    parser.add_argument(
        "--batch-seconds", metavar="S", type=float, default=120.0, help="padded audio in a batch (default: %(default)s)"
    )
    parser.add_argument(
        "--shard-mb", metavar="MB", type=float, default=512, help="size of a shard (default: %(default)s)"
    )
    parser.add_argument("--workers", metavar="N", type=int, default=0, help="loading processes (default: a thread)")
    parser.add_argument("--name", metavar="NAME", help="of the new set (default: the folder's)")
    parser.add_argument("--device", help="cpu, cuda ... (default: the GPU if there is one)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """0, or 1 if a clip could not be read."""
    from s3prl_stream.shards.shardset import open_shards

    shards = open_shards(args.data)  # a wrong path is told before torch is imported
    from s3prl_stream.extraction import extract

    with Progress("clips", "extracting") as progress:
        report = extract(
            shards,
            args.upstream,
            args.out,
            layers=None if args.layers is None else _numbers(args.layers),
            max_batch_seconds=args.batch_seconds,
            num_workers=args.workers,
            **named(args, "dtype", "where", "subset", "shard_mb", "name", "device"),
            progress=progress.tell,
        )
    if args.json:
        print(json.dumps(asdict(report)))
    else:
        before = f", {report.first_sample} of them before" if report.first_sample else ""
        print(f"{report.out}: {report.samples} clips, {report.hours:.2f} h{before}; layers {list(report.layers)}")
        if report.damaged:
            print(f"{report.damaged} clips could not be read: {report.out}/left_out.jsonl")
    return 1 if report.damaged else 0


def _numbers(text: str) -> list[int]:
    try:
        return [int(word) for word in text.split(",")]
    except ValueError:
        raise UsageError(f"--layers {text}: give numbers with commas between, as in 0,4,12") from None
