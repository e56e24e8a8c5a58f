"""Batches, padding and shuffle quality of a stream, from the index alone."""

from __future__ import annotations

import argparse
import json
import time
from typing import TYPE_CHECKING, Any

from s3prl_stream.cli.stream_options import add_stream_options, planner_from

if TYPE_CHECKING:
    from s3prl_stream.plan.old_loaders import OldSettings
    from s3prl_stream.plan.planner import EpochPlanner


def add_options(parser: argparse.ArgumentParser) -> None:
    add_stream_options(parser)
    parser.add_argument("--blocks", type=int, default=8, help="blocks to measure (default 8)")
    parser.add_argument("--whole-epoch", action="store_true", help="count the batches of a whole epoch")
    parser.add_argument(
        "--old",
        action="append",
        metavar="SETTINGS",
        default=[],
        help="settings of webdataset, Energon, NeMo or Lhotse beside these, simulated on the index, with a few clips "
        "decoded: batch_size=16,shuffle_buffer=1000 or max_duration=240,num_buckets=30; repeat it for several",
    )
    parser.add_argument("--json", action="store_true", help="print the measures as JSON")


def run(args: argparse.Namespace) -> int:
    from dataclasses import asdict

    from s3prl_stream.errors import UsageError
    from s3prl_stream.plan.old_loaders import parse_old
    from s3prl_stream.plan.planner import EpochPlanner
    from s3prl_stream.plan.quality import measure

    if args.blocks < 1:
        raise UsageError(f"--blocks {args.blocks}: give 1 or more")
    old = [parse_old(text) for text in args.old]
    began = time.perf_counter()
    planner = planner_from(args)
    planner.step(planner.start)
    first_block = time.perf_counter() - began
    quality = measure(planner, max_blocks=args.blocks)
    found: dict[str, Any] = {
        "clips_selected": len(planner.selection),
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
        found["cpu_microseconds_per_clip"] = round((time.process_time() - cpu) / len(planner.selection) * 1e6, 3)
    if old:
        if not isinstance(planner, EpochPlanner):
            raise UsageError("--old: a mix by weights has no epoch to compare; name one set, or give no weights")
        found |= _compared(planner, old, args.seed)
    if args.json:
        print(json.dumps(found))
        return 0
    print(f"{planner.shards}{planner.settings.told()}")
    for line in _lines(found):
        print(line)
    return 0


def _compared(planner: EpochPlanner, old: list[OldSettings], seed: int) -> dict[str, Any]:
    from dataclasses import asdict

    from s3prl_stream.errors import StreamError
    from s3prl_stream.plan.decode_cores import measure_decode_cores
    from s3prl_stream.plan.old_loaders import gather_clips, simulate

    clips = gather_clips(planner)
    cores, problem = None, None
    try:
        cores = measure_decode_cores(planner)
    except StreamError as error:  # the index may be all that is here
        problem = str(error)
    return {
        "decode_cores": None if cores is None else cores._asdict(),
        "decode_cores_problem": problem,
        "old": [
            {"settings": str(settings), "rule": settings.rule, **asdict(simulate(clips, settings, seed))}
            for settings in old
        ],
    }


def _beside(here: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """The old loader and this plan, line by line."""
    cores = here["decode_cores"]
    rows: list[tuple[str, str, Any, Any]] = [
        ("padding", "{:.2%}", old["padding"], here["padding"]),
        ("budget filled", "{:.1%}", old["budget_filled"], here["budget_filled"]),
        ("largest batch, padded s", "{:.1f}", old["largest_batch_seconds"], here["largest_batch_seconds"]),
        ("clips per batch", "{:.1f}", old["clips_per_batch"], here["clips_per_batch"]),
        ("repeated pairs", "{:.1%}", old["repeated_pairs"], here["repeated_pairs"]),
        ("speakers per batch", "{:.1f}", old["speakers_per_batch"], here["speakers_per_batch"]),
        ("  of a uniform shuffle", "{:.2f}", old["speakers_vs_uniform"], here["speakers_vs_uniform"]),
        ("reads an audio hour", "{:.1f}", old["reads_per_hour"], here["reads_per_hour"]),
        ("decode cores", "{:.2f}", cores and cores["whole_by_libsndfile"], cores and cores["here"]),
    ]
    lines = [f"{old['rule']}: {old['settings']}; simulated on {old['clips']} clips", f"{'':24}{'old':>10}{'here':>10}"]
    for name, form, one, other in rows:
        cells = ["-" if value is None else form.format(value) for value in (one, other)]
        lines.append(f"{name:24}{cells[0]:>10}{cells[1]:>10}")
    if abs(old["largest_batch_seconds"] / here["largest_batch_seconds"] - 1) > 0.1:
        lines.append(f"for batches as large as the old loader's: --batch-seconds {old['largest_batch_seconds']:.0f}")
    lines.append("reads: the old loader reads each tar from its beginning to its end, and again after a stop")
    if cores is not None:
        lines.append(f"decode cores: for 1 000 s of audio a second; on this machine, of {cores['clips']} clips")
    elif here["decode_cores_problem"]:
        lines.append(f"decode cores: not measured: {here['decode_cores_problem']}")
    return lines


def _lines(found: dict[str, Any]) -> list[str]:
    speakers, repeated = found["speakers_vs_uniform"], found["repeated_pairs"]
    again = (
        "of a mix: not measured" if repeated is None else f"{repeated:.1%} of a batch's meet again in the next epoch"
    )
    lines = [
        f"clips selected     {found['clips_selected']}"
        + (f" in {found['blocks_in_epoch']} blocks an epoch" if found["blocks_in_epoch"] else ""),
        f"first block after  {found['seconds_to_first_block']:.2f} s",
        f"measured on        {found['blocks']} blocks, {found['batches']} batches, {found['hours']:.2f} h",
        f"clips per batch    {found['clips_per_batch']:.1f}",
        f"padding            {found['padding']:.2%}",
        f"budget filled      {found['budget_filled']:.1%}",
        f"repeated pairs     {again}",
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
    for old in found.get("old", []):
        lines += ["", *_beside(found, old)]
    return lines
