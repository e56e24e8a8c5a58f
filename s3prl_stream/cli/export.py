"""`s3prl-stream export`: a run of pretrain as a checkpoint that S3PRL loads."""

from __future__ import annotations

import argparse
from typing import Any

from s3prl_stream.cli import COMMANDS


def add_parser(subparsers: Any) -> None:
    parser = subparsers.add_parser(
        "export",
        help=COMMANDS["export"],
        description="Write the network of a run, or of one of its checkpoints, for S3PRL's *_local upstreams: there it "
        "is `-u tera_local -k FILE` (mockingjay_local, audio_albert_local, apc_local, npc_local, distiller_local).",
    )
    parser.add_argument("pretrained", metavar="RUN", help="output folder of pretrain, or a checkpoint in it")
    parser.add_argument("out", metavar="FILE", help="of the checkpoint, such as tera.ckpt")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """0 when it is written."""
    from s3prl_stream.recipes.s3prl_export import export_s3prl

    export_s3prl(args.pretrained, args.out)
    print(f"{args.out}: a checkpoint for S3PRL, which takes it by -k")
    return 0
