"""Write the network of a run, or of one of its checkpoints, for S3PRL's *_local upstreams: there it is `-u tera_local
-k FILE` (mockingjay_local, audio_albert_local, apc_local, npc_local, distiller_local).
"""

from __future__ import annotations

import argparse

from s3prl_stream.cli.run_there import need_run


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("pretrained", metavar="RUN", help="output folder of pretrain, or a checkpoint in it")
    parser.add_argument("out", metavar="FILE", help="of the checkpoint, such as tera.ckpt")


def run(args: argparse.Namespace) -> int:
    """0 when it is written."""
    need_run(args.pretrained, "pretrain")
    from s3prl_stream.recipes.s3prl_export import export_s3prl

    export_s3prl(args.pretrained, args.out)
    print(f"{args.out}: a checkpoint for S3PRL, which takes it by -k")
    return 0
