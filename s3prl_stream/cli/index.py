"""Read the headers of tars and of the audio in them, and write an index beside them (or to --out). Nothing is unpacked
or copied. Exit status 1 if anything is damaged or refused.
"""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from s3prl_stream.cli import named
from s3prl_stream.cli.progress import Progress, usable_cores
from s3prl_stream.cli.summary import first_of, size_of_set

if TYPE_CHECKING:
    from s3prl_stream.indexing.foreign import IndexReport


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "tars", nargs="+", metavar="TARS", help="paths or URLs, with braces {000000..000123} or stars; or a folder"
    )
    parser.add_argument("--out", metavar="SET", help="folder or URL for the index (default: beside the tars)")
    parser.add_argument("--name", help="of the set (default: that of its folder)")
    parser.add_argument(
        "--durations",
        metavar="FILE",
        action="append",
        help="a table of the samples: NeMo's manifest, Lhotse's cuts, CSV, TSV or JSON lines; repeat it for several",
    )
    parser.add_argument("--full", action="store_true", help="read every byte, for checksums")
    parser.add_argument("--prefix-keys", action="store_true", help="the tar's name before each key: keys repeat")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="processes (default: cores)")
    parser.add_argument("--json", action="store_true", help="print the summary and all that was left out as JSON")


def run(args: argparse.Namespace) -> int:
    """Index, show progress, end with a summary; 1 if something is damaged or refused."""
    from s3prl_stream.indexing.foreign import index_tars

    with Progress("tars", "indexing") as progress:
        report = index_tars(
            args.tars,
            args.out,
            num_workers=args.workers,
            **named(args, "name", "durations", "full", "prefix_keys"),
            progress=progress.tell,
        )
    print(json.dumps(_as_json(report)) if args.json else "\n".join(_lines(report)))
    return 1 if report.problems else 0


def _as_json(report: IndexReport) -> dict[str, Any]:
    counts, shards, indexed = (report.manifest[name] for name in ("counts", "shards", "indexed"))
    return {
        "out": report.url,
        "samples": counts["samples"],
        "hours": counts["seconds"] / 3600,
        "shards": len(shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "run": report.manifest["run"],
        "wrong_offsets": indexed["wrong_offsets"],
        "glued": indexed["glued"],
        "table": report.table,
        "layout": None
        if report.layout is None
        else {
            "maker": report.layout.maker,
            "tables": report.layout.tables,
            "splits": sorted(set(report.layout.splits.values())),
            "not_read": report.layout.not_read,
        },
        "left_out": [one._asdict() for one in report.left_out],
    }


def _lines(report: IndexReport) -> list[str]:
    facts, table = _as_json(report), report.table
    lines = [
        size_of_set(report.url, facts["samples"], facts["hours"], facts["shards"], facts["bytes"])
        + f"; neighbours read together from a store: {facts['run']}"
    ]
    if facts["layout"] is not None:
        lines.append(_layout_line(facts["layout"]))
    if table is not None:
        lines.append(
            f"table: {table['rows']} rows; {table['samples_without_row']} samples without a row, "
            f"{table['rows_without_sample']} rows without a sample, {table['rows_twice']} keys in several rows"
        )
        if table["lengths_believed"]:
            lines.append(
                f"lengths: {table['lengths_believed']} are the table's, {table['lengths_measured']} were compared with "
                "the audio; the rest are in the first bytes of the audio"
            )
        if table["tars_that_differ"]:
            lines.append(
                f"lengths: in {len(table['tars_that_differ'])} tars the table is wrong, and the audio was measured; "
                f"such as {table['first_wrong_length']}"
            )
        if table["durations_differ"]:
            lines.append(
                f"{table['durations_differ']} durations differ from the audio, such as {table['first_difference']}"
            )
    if facts["wrong_offsets"]:
        lines.append(
            f"{len(facts['wrong_offsets'])} .tar.idx are wrong and not used, such as {facts['wrong_offsets'][0]}.idx"
        )
    if glued := facts["glued"]["samples"]:
        first = facts["glued"]["first_keys"][0]
        lines.append(f"{glued} files have others glued behind the first, which alone is read, such as that of {first}")
    skipped = len(report.left_out) - len(report.problems)
    if skipped:
        lines.append(f"skipped for holding no audio: {skipped}")
    if report.problems:
        lines.append(f"damaged or refused: {len(report.problems)}")
    problems = [f"{one.audio}: {one.message} ({one.reason})" for one in report.problems]
    return lines + first_of(problems, ", in left_out.jsonl")


def _layout_line(layout: dict[str, Any]) -> str:
    line = f"layout: {layout['maker']}"
    for name in ("tables", "splits", "not_read"):
        some = [str(one).rpartition("/")[2] for one in layout[name]]
        if some:
            line += f"; {name.replace('_', ' ')}: {', '.join(some[:3])}" + (" ..." if len(some) > 3 else "")
    return line
