"""Decode every file, pack what is sound into shards, list what is damaged. Exit status 1 if anything was damaged."""

from __future__ import annotations

import argparse
import json
import os
from typing import TYPE_CHECKING, Any

from s3prl_stream.cli import named
from s3prl_stream.cli.progress import Progress, usable_cores
from s3prl_stream.cli.summary import first_of, size_of_set
from s3prl_stream.errors import UsageError

if TYPE_CHECKING:
    from s3prl_stream.corpora import Option
    from s3prl_stream.packing.pack import PackReport


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the corpora, each with the options that it declares itself."""
    from s3prl_stream.corpora import CORPORA

    corpora = parser.add_subparsers(dest="corpus", metavar="CORPUS", required=True)

    for corpus in CORPORA:
        one = corpora.add_parser(
            corpus.name,
            help=corpus.summary,
            description=corpus.about.replace("%", "%%"),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        one.add_argument("root", metavar=corpus.root, help=corpus.root_help)
        for option in corpus.options:
            _add_corpus_option(one, option)
        _add_packing_options(one)
        one.set_defaults(listing=corpus)


def run(args: argparse.Namespace) -> int:
    """Pack, show progress, end with a summary; 1 if a file was damaged."""
    from s3prl_stream.packing.pack import pack_set
    from s3prl_stream.packing.settings import PackSettings

    settings = PackSettings(
        **named(args, "codec", "sample_rate", "shard_mb", "seed", "min_seconds", "max_seconds", "split_seconds"),
        channel=int(args.channel) if args.channel.isdecimal() else args.channel,
        split=args.cut_at,
        decode=not args.trust_headers,
        thresholds=dict(_threshold(one) for one in args.threshold or ()),
        refuse=tuple(_names("refuse", args.refuse)) if args.refuse else (),
    )
    with Progress("files", "packing") as progress:
        report = pack_set(
            args.listing.utterances(args.root, **_given(args)),
            args.out,
            settings,
            num_workers=args.workers,
            corpus_name=_corpus_name(args),
            **named(args, "name", "licence", "engine", "restart"),
            progress=progress.tell,
        )
    if args.json:
        print(json.dumps(_as_json(report)))
    else:
        _print_summary(report)
    return 1 if report.damaged else 0


def _add_packing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("out", metavar="OUT", help="folder of the set, or a URL such as s3://BUCKET/SET")
    parser.add_argument("--name", help="of the set (default: that of OUT)")
    parser.add_argument(
        "--codec", default="flac", help="flac, wav, opus, or original: bytes that fit stay as they are (default: flac)"
    )
    parser.add_argument("--trust-headers", action="store_true", help="with --codec original: decode nothing that fits")
    parser.add_argument("--sample-rate", type=int, default=16_000, metavar="HZ", help="default: 16000")
    parser.add_argument("--channel", default="first", help="first, mean or a number from 0 (default: first)")
    parser.add_argument("--min-seconds", type=float, metavar="S", help="skip shorter utterances")
    parser.add_argument("--max-seconds", type=float, metavar="S", help="skip longer utterances")
    parser.add_argument("--split-seconds", type=float, metavar="S", help="cut longer utterances into pieces")
    parser.add_argument(
        "--cut-at", choices=("length", "silence"), default="length", help="equal pieces, or cuts in silences"
    )
    parser.add_argument(
        "--threshold", action="append", metavar="FINDING=VALUE", help="of clipped, silent, dc_offset or long_text"
    )
    parser.add_argument("--refuse", action="append", metavar="FINDING", help="leave out clips with this finding")
    parser.add_argument("--shard-mb", type=float, default=512, metavar="MB", help="wanted size (default: 512)")
    parser.add_argument("--seed", type=int, default=0, help="of the order (default: 0)")
    parser.add_argument("--licence", help="free text for the manifest")
    parser.add_argument("--workers", type=int, default=usable_cores(), metavar="N", help="processes (default: cores)")
    parser.add_argument("--engine", default="local", help="local, or ray: pack on a Ray cluster (default: local)")
    parser.add_argument("--restart", action="store_true", help="remove an unfinished pack of another set, begin anew")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")


def _add_corpus_option(parser: argparse.ArgumentParser, option: Option) -> None:
    name = f"--{option.name.replace('_', '-')}"
    if option.kind == "flag":
        parser.add_argument(name, action="store_true", help=option.help)
    elif option.kind == "names":
        parser.add_argument(name, action="append", metavar=option.metavar, help=option.help)
    else:
        kind = int if option.kind == "number" else str
        parser.add_argument(name, type=kind, choices=option.choices, metavar=option.metavar, help=option.help)


def _given(args: argparse.Namespace) -> dict[str, Any]:
    """The corpus's own options that were used: keyword -> value."""
    given = {option: getattr(args, option.name) for option in args.listing.options}
    used = {option: value for option, value in given.items() if value is not None and value is not False}
    return {
        option.name: _names(option.name, value) if option.kind == "names" else value for option, value in used.items()
    }


def _threshold(given: str) -> tuple[str, float]:
    name, _, value = given.partition("=")
    try:
        return name.strip(), float(value)
    except ValueError:
        raise UsageError(f"--threshold is {given!r}, expected FINDING=VALUE, such as clipped=0.01.") from None


def _names(option: str, values: list[str]) -> list[str]:
    names = [name.strip() for value in values for name in value.split(",") if name.strip()]
    if not names:
        raise UsageError(f"--{option.replace('_', '-')} names nothing.")
    return names


def _corpus_name(args: argparse.Namespace) -> str:
    return " ".join([args.corpus, *_given(args).get("split", [os.path.basename(os.path.abspath(args.root))])])


def _as_json(report: PackReport) -> dict[str, Any]:
    counts, shards = report.manifest["counts"], report.manifest["shards"]
    return {
        "out": report.url,
        "already_there": report.already_there,
        "samples": counts["samples"],
        "hours": counts["seconds"] / 3600,
        "shards": len(shards),
        "bytes": sum(shard["bytes"] for shard in shards),
        "skipped": counts["skipped"],
        "reencoded": counts.get("reencoded"),
        "findings": counts.get("findings", {}),
        "damaged": [one._asdict() for one in report.damaged],
    }


def _print_summary(report: PackReport) -> None:
    from s3prl_stream.shards.layout import LEFT_OUT, REPORT

    facts = _as_json(report)
    packing = report.manifest["packing"]
    if report.already_there:
        print(f"{report.url}: this very set is there already; nothing was done.")
    print(
        size_of_set(report.url, facts["samples"], facts["hours"], facts["shards"], facts["bytes"]),
        f"({packing['codec']}, {packing['sample_rate']} Hz)",
    )
    for reason, count in facts["skipped"].items():
        print(f"skipped: {count} {reason.replace('_', ' ')}")
    if facts["reencoded"]:
        print(f"re-encoded as FLAC, because their bytes do not fit as they are: {facts['reencoded']}")
    if facts["findings"]:
        found = ", ".join(f"{count} {name}" for name, count in facts["findings"].items())
        print(f"findings: {found} ({report.url}/{REPORT}, index column findings)")
    if report.damaged:
        damaged = [f"{one.audio}: {one.message} ({one.reason})" for one in report.damaged]
        print(f"damaged: {len(damaged)}", *first_of(damaged), sep="\n")
    if report.left_out:
        print(f"all that was left out: {report.url}/{LEFT_OUT}")
