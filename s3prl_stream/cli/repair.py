"""Read every byte of SET and write what is sound of it to OUT, with a new index and manifest. SET stays as it is; on
one disk, sound shards are shared by hard links. Exit status 1 if something was lost.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from s3prl_stream.cli.progress import Progress, usable_cores

if TYPE_CHECKING:
    from s3prl_stream.checking.repair import RepairReport


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", help="folder or URL of the set")
    parser.add_argument("out", metavar="OUT", help="folder or URL of the new set, new or empty")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="processes (default: cores)")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def run(args: argparse.Namespace) -> int:
    """Repair, show progress, say what is lost; 1 if something is."""
    from s3prl_stream.checking.repair import repair

    with Progress("shards", "repairing") as progress:
        report = repair(args.set, args.out, num_workers=args.workers, progress=progress.tell)
    print(json.dumps(report.as_json(), ensure_ascii=False) if args.json else "\n".join(_lines(report)))
    return 1 if report.num_lost or report.files_lost else 0


def _lines(report: RepairReport) -> list[str]:
    lines = [
        f"{report.out}: {report.samples} samples",
        f"shards: {report.shards_as_they_were} as they were, {report.shards_rewritten} rewritten, "
        f"{len(report.shards_lost)} lost",
    ]
    lines += [f"lost: {name}" for name in report.files_lost]
    if not report.num_lost:
        return [*lines, "no sample was lost; index and manifest are new"]
    reasons = ", ".join(f"{count} {reason}" for reason, count in report.lost.items())
    lines.append(f"lost: {report.num_lost} samples ({reasons})")
    lines += [f"  {one.audio}: {one.key or 'all'}: {one.message} ({one.reason})" for one in report.first_lost]
    if report.num_lost > len(report.first_lost):
        lines.append("  ...")
    return [*lines, f"all that was left out: {report.out}/left_out.jsonl"]
