"""Write a page that plays a batch: of a set its clips, of a run (the output folder of pretrain) each of them after each
stage too, with its draws, features and masks. `which --html` writes the same page, and lists the clips.
"""

from __future__ import annotations

import argparse

from s3prl_stream.cli.stream_options import add_stream_options
from s3prl_stream.cli.which import loader_of, tell_of_page


def add_options(parser: argparse.ArgumentParser) -> None:
    add_stream_options(parser)
    parser.add_argument("--batch", type=int, default=0, help="global number of the batch (default: %(default)s)")
    parser.add_argument("--html", metavar="FILE", default="view.html", help="the page (default: %(default)s)")
    parser.set_defaults(default_of=parser.get_default)


def run(args: argparse.Namespace) -> int:
    """Write the page and say where it is."""
    tell_of_page(args.html, loader_of(args).which(args.batch, html=args.html))
    return 0
