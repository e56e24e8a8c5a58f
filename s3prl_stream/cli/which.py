"""`which`: what one global batch holds, without reading audio, unless it is to be heard."""

from __future__ import annotations

import argparse
import json
from typing import Any

from s3prl_stream.cli.stream_options import add_stream_options, stream_from


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("which", help="the clips of one global batch")
    add_stream_options(parser)
    parser.add_argument("--batch", type=int, required=True, help="global number of the batch, from 0")
    parser.add_argument("--html", metavar="FILE", help="write a page that plays the clips")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print one line for each stretch of the batch."""
    from s3prl_stream.loader import Loader

    stream = stream_from(args, epochs=None)
    if args.html is None:
        stretches = Loader(stream).which(args.batch)
    else:
        stretches = Loader(stream.load_audio(sample_rate=None)).which(args.batch, html=args.html)
    for one in stretches:
        if args.json:
            print(json.dumps(one))
        else:
            place = f"{one['shard']} at byte {one['offset']} ({one['size']} bytes)"
            stretch = f"frames {one['first_frame']} + {one['num_frames']}  epoch {one['epoch']}"
            print(f"{one['set']}  {one['key']}  {stretch}  {place}")
    return 0
