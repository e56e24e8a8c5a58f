"""Compare the manifest, the index files, the sizes of the shards and a few tar headers; with --full every byte. Exit
status 1 if anything is wrong.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING

from s3prl_stream.cli.progress import Progress, usable_cores
from s3prl_stream.cli.summary import first_of

if TYPE_CHECKING:
    from s3prl_stream.checking.verify import VerifyReport


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", help="folder or URL of the set")
    parser.add_argument("--full", action="store_true", help="read, check and decode everything")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="processes (default: cores)")
    parser.add_argument("--json", action="store_true", help="print all findings as JSON")


def run(args: argparse.Namespace) -> int:
    """Check, show progress, list what is wrong; 1 if there is something."""
    from s3prl_stream.checking.verify import verify

    with Progress("shards", "checking") as progress:
        report = verify(args.set, args.full, num_workers=args.workers, progress=progress.tell)
    print(json.dumps(report.as_json(), ensure_ascii=False) if args.json else "\n".join(_lines(report)))
    return 0 if report.is_sound else 1


def _lines(report: VerifyReport) -> list[str]:
    read = "every byte was read" if report.full else "sizes, index files and headers; --full reads every byte"
    lines = [
        f"{report.url}: {report.shards} shards, {report.samples} samples, {report.num_bytes / 1e6:.1f} MB ({read})"
    ]
    if report.is_sound:
        return [*lines, "nothing wrong was found"]
    lines += [f"problems: {len(report.findings)}", *first_of(list(map(str, report.findings)), "; --json lists all")]
    for advice in dict.fromkeys(finding.advice for finding in report.findings):
        reasons = dict.fromkeys(finding.reason for finding in report.findings if finding.advice == advice)
        lines.append(f"{', '.join(reasons)}: {advice}.")
    return lines
