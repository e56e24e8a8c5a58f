"""Copy a part of SET, sample by sample as they are, into a set of its own. 1 h lies inside 10 h, and is what a stream
with the same --subset reads. Exit status 1 if a selected sample is damaged.
"""

from __future__ import annotations

import argparse
import json

from s3prl_stream.cli import named
from s3prl_stream.cli.progress import Progress, usable_cores
from s3prl_stream.cli.summary import first_of, size_of_set


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", help="folder or URL of the set")
    parser.add_argument("out", metavar="OUT", help="folder or URL of the new set, new or empty")
    parser.add_argument("--subset", metavar="AMOUNT", help='"10h", "30min" or "10%%", or "10h by speaker"')
    parser.add_argument("--where", help="rows to keep, as in: language == 'en' and seconds > 2")
    parser.add_argument("--name", help="of the new set (default: that of SET)")
    parser.add_argument("--shard-mb", type=float, metavar="MB", help="wanted size of a shard (default: as in SET)")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="processes (default: cores)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Write, show progress, end with a summary; 1 if something selected is damaged."""
    from s3prl_stream.shards.subset import write_subset

    with Progress("shards", "writing") as progress:
        report = write_subset(
            args.set,
            args.out,
            args.subset,
            num_workers=args.workers,
            **named(args, "where", "name", "shard_mb"),
            progress=progress.tell,
        )
    if args.json:
        print(json.dumps(report.as_json(), ensure_ascii=False))
        return 1 if report.damaged else 0
    print(size_of_set(report.out, report.samples, report.hours, report.shards, report.num_bytes))
    if report.damaged:
        print(f"damaged: {len(report.damaged)}; they are not in the subset, and stand in {report.out}/left_out.jsonl")
        print("\n".join(first_of([f"{one.message} ({one.reason})" for one in report.damaged])))
    return 1 if report.damaged else 0
