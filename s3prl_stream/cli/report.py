"""Draw loss, learning rate, throughput and reconstructions of a run into DIR/report/index.html, also while it is going
on.
"""

from __future__ import annotations

import argparse
import json

from s3prl_stream.cli.run_there import need_run


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="DIR", help="output folder of pretrain or train")
    parser.add_argument("--data", metavar="SET", help="clips to reconstruct (default: the run's own set)")
    parser.add_argument("--json", action="store_true", help="print the facts as JSON")


def run(args: argparse.Namespace) -> int:
    """0 when the page is drawn."""
    need_run(args.run_folder, "pretrain` or `s3prl-stream train")
    from s3prl_stream.report import report

    page, facts = report(args.run_folder, data=args.data)
    if args.json:
        print(json.dumps({"page": str(page), **facts}))
        return 0
    width = max(map(len, facts))
    for name, value in facts.items():
        print(f"{name:{width}}  {value}")
    print(f"{page}")
    return 0
