"""Pack (if need be), inspect, pretrain, kill, resume, compare, probe, draw. Exits 1 if the losses of the killed run
differ from those of the undisturbed one.
"""

from __future__ import annotations

import argparse

_PACK_OPTIONS = ("pattern", "table", "label-from")


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--data",
        metavar="FOLDER",
        default="shards/sample",
        help="a folder of audio files, or a packed set (default: %(default)s)",
    )
    parser.add_argument("--out", metavar="DIR", default="out/quickstart", help="default: %(default)s")
    parser.add_argument("--steps", metavar="N", type=int, default=120, help="of each run (default: %(default)s)")
    for option in _PACK_OPTIONS:
        parser.add_argument(f"--{option}", metavar="VALUE", help="for a folder: see `s3prl-stream pack folder --help`")


def run(args: argparse.Namespace) -> int:
    """0 if everything held, 1 if the losses differ."""
    from s3prl_stream.quickstart import quickstart

    given = {option: getattr(args, option.replace("-", "_")) for option in _PACK_OPTIONS}
    words = [word for option, value in given.items() if value is not None for word in (f"--{option}", value)]
    held = quickstart(args.data, args.out, steps=args.steps, pack_options=words)
    return 0 if held else 1
