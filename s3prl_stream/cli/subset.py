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
    from s3prl_stream.shards.folder import ShardFolder
    from s3prl_stream.shards.left_out import read_left_out
    from s3prl_stream.shards.subset import subset
    from s3prl_stream.stores.store import open_store

    with Progress("shards", "writing") as progress:
        new = subset(
            args.set,
            args.out,
            args.subset,
            num_workers=args.workers,
            **named(args, "where", "name", "shard_mb"),
            progress=progress.tell,
        )
    (written,) = new.members
    assert isinstance(written, ShardFolder)
    damaged, _ = read_left_out(written.store)
    facts = {
        "url": open_store(args.set).url,
        "out": written.store.url,
        "samples": len(new),
        "hours": new.hours,
        "shards": new.num_shards,
        "num_bytes": written.num_bytes,
        "damaged": [one._asdict() for one in damaged],
    }
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
        return 1 if damaged else 0
    print(size_of_set(written.store.url, len(new), new.hours, new.num_shards, written.num_bytes))
    if damaged:
        print(f"damaged: {len(damaged)}; they are not in the subset, and stand in {written.store.url}/left_out.jsonl")
        print("\n".join(first_of([f"{one.message} ({one.reason})" for one in damaged])))
    return 1 if damaged else 0
