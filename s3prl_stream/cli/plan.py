"""`plan`: how good the batches of a set will be, before anything is read or trained."""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

from s3prl_stream.cli.stream_options import add_stream_options, stream_from


def add_parser(subparsers: Any) -> None:
    """Declare the command."""
    parser = subparsers.add_parser("plan", help="batches, padding, shuffle quality of a stream, from the index alone")
    add_stream_options(parser)
    parser.add_argument("--blocks", type=int, default=8, help="blocks to measure (default 8)")
    parser.add_argument("--whole-epoch", action="store_true", help="count the batches of a whole epoch")
    parser.add_argument("--json", action="store_true")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Print the measures."""
    from dataclasses import asdict

    import s3prl_stream.stream  # noqa: F401  # so that the time below is the set's, not torch's
    from s3prl_stream.errors import UsageError
    from s3prl_stream.plan.planner import EpochPlanner
    from s3prl_stream.plan.quality import measure

    if args.blocks < 1:
        raise UsageError(f"--blocks {args.blocks}: give 1 or more")
    began = time.perf_counter()
    stream = stream_from(args, epochs=None)
    planner = stream.planner()
    planner.step(planner.start)
    first_block = time.perf_counter() - began
    quality = measure(planner, max_blocks=args.blocks)
    found: dict[str, Any] = {
        "clips_selected": len(stream.selection),
        "blocks_in_epoch": len(planner.blocks(0)) if isinstance(planner, EpochPlanner) else None,
        "seconds_to_first_block": round(first_block, 3),
        **asdict(quality),
    }
    if args.whole_epoch:
        if not isinstance(planner, EpochPlanner):
            raise UsageError("--whole-epoch: a mix by weights has no epoch; each of its sets has epochs of its own")
        began, cpu = time.perf_counter(), time.process_time()
        found["batches_in_epoch"] = planner.batches_in_epoch(0)
        found["seconds_for_whole_epoch"] = round(time.perf_counter() - began, 3)
        found["cpu_microseconds_per_clip"] = round((time.process_time() - cpu) / len(stream.selection) * 1e6, 3)
    if args.json:
        print(json.dumps(found))
        return 0
    print(stream)
    for line in _lines(found):
        print(line)
    return 0


def _lines(found: dict[str, Any]) -> list[str]:
    speakers, repeated = found["speakers_vs_uniform"], found["repeated_pairs"]
    lines = [
        f"clips selected     {found['clips_selected']}"
        + (f" in {found['blocks_in_epoch']} blocks an epoch" if found["blocks_in_epoch"] else ""),
        f"first block after  {found['seconds_to_first_block']:.2f} s",
        f"measured on        {found['blocks']} blocks, {found['batches']} batches, {found['hours']:.2f} h",
        f"clips per batch    {found['clips_per_batch']:.1f}",
        f"padding            {found['padding']:.2%}",
        f"budget filled      {found['budget_filled']:.1%}",
        "repeated pairs     "
        + (
            "of a mix: not measured"
            if repeated is None
            else f"{repeated:.1%} of a batch's meet again in the next epoch"
        ),
        "speakers per batch " + ("no speaker column" if speakers is None else f"{speakers:.2f} of a uniform shuffle"),
        f"one read           {found['megabytes_per_read']:.2f} MB",
    ]
    if len(found["share_of_set"]) > 1:
        shares = (f"{name} {share:.1%}" for name, share in found["share_of_set"].items())
        lines.append(f"shares of audio    {', '.join(shares)}")
    if "batches_in_epoch" in found:
        lines.append(
            f"whole epoch        {found['batches_in_epoch']} batches, "
            f"planned in {found['seconds_for_whole_epoch']:.1f} s "
            f"({found['cpu_microseconds_per_clip']:.2f} us a clip, index read included)"
        )
    return lines
