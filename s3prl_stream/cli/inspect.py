"""Show what a set holds; no audio is read."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from s3prl_stream.cli.summary import size_of_set
from s3prl_stream.errors import UsageError

if TYPE_CHECKING:
    import pyarrow as pa

GROUPS = ("split", "language", "label", "gender", "speaker", "codec")
"""Columns by which hours are counted where a set has them."""

FINDINGS_COLUMN = "findings"

_EDGES_SECONDS = (0, 0.5, 1, 2, 3, 4, 6, 8, 10, 12, 14, 16, 18, 20, 25, 30, 60, 300, 3600, float("inf"))
_BAR_WIDTH = 40
_NO_VALUE = "(none)"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("set", metavar="SET", help="folder of the set")
    parser.add_argument("--top", type=int, default=5, metavar="N", help="values shown of each column (default: 5)")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")


def run(args: argparse.Namespace) -> int:
    facts = inspect_set(args.set)
    if args.json:
        print(json.dumps(facts, ensure_ascii=False))
    else:
        print("\n".join(_lines(facts, max(args.top, 1))))
    return 0


def inspect_set(folder: str) -> dict[str, Any]:
    """Facts of a set: counts, hours by column values, durations (s), codecs, sample rates, findings of packing.

    The index is read a row group at a time, so memory does not grow with the set.

    Raises:
        UsageError: no set there, or several. ShardError: a manifest or index that cannot be read.
    """
    from s3prl_stream.shards.shardset import open_shards

    members: Sequence[Any] = open_shards(folder).members
    if len(members) > 1:
        raise UsageError(f"{folder}: {len(members)} sets; inspect them one by one")
    member = members[0]
    manifest, columns = member.manifest, list(member.columns())
    groups = [name for name in GROUPS if name in columns]
    seconds_by: dict[str, Any] = {name: Counter() for name in groups}
    num_by: dict[str, Counter[str]] = {name: Counter() for name in ("codec", "sample_rate")}
    found_samples: Counter[str] = Counter()
    found_hours: dict[str, float] = {}
    measured = [FINDINGS_COLUMN] if FINDINGS_COLUMN in columns else []
    histogram = [0] * (len(_EDGES_SECONDS) - 1)
    for batch in member.batches([*num_by, "seconds", *groups, *measured]):
        for words, count, seconds in _by_value(batch, FINDINGS_COLUMN) if measured else ():
            for name in (words or "").split():  # words with spaces between, or nothing
                found_samples[name] += count
                found_hours[name] = found_hours.get(name, 0.0) + seconds / 3600
        for name in groups:
            for value, _, seconds in _by_value(batch, name):
                seconds_by[name][_NO_VALUE if value is None else str(value)] += seconds
        for name, counter in num_by.items():
            counter.update({str(one["values"]): one["counts"] for one in batch.column(name).value_counts().to_pylist()})
        histogram = [a + b for a, b in zip(histogram, _histogram(batch), strict=True)]
    counts = manifest.get("counts", {})
    return {
        "name": member.name,
        "corpus": manifest.get("corpus"),
        "licence": manifest.get("licence"),
        "samples": int(member.shard_samples.sum()),
        "hours": float(member.shard_seconds.sum()) / 3600,
        "shards": len(member.shard_names),
        "bytes": int(member.num_bytes),
        "damaged": counts.get("damaged", 0),
        "skipped": counts.get("skipped", {}),
        "packing": manifest.get("packing", {}),
        "findings": {
            name: {"samples": count, "hours": found_hours[name]}
            for name, count in sorted(found_samples.items(), key=lambda one: (-one[1], one[0]))
        },
        "files": [file["name"] for file in manifest.get("files", [])],
        "subset_of": manifest.get("subset_of"),
        "columns": columns,
        "codecs": dict(num_by["codec"].most_common()),
        "sample_rates": dict(num_by["sample_rate"].most_common()),
        "duration_histogram": [
            {"from_seconds": low, "to_seconds": None if high == float("inf") else high, "samples": number}
            for low, high, number in zip(_EDGES_SECONDS, _EDGES_SECONDS[1:], histogram, strict=False)
        ],
        "hours_by": {
            name: {value: total / 3600 for value, total in counter.most_common()}
            for name, counter in seconds_by.items()
        },
    }


def _by_value(batch: pa.RecordBatch, name: str) -> list[tuple[Any, int, float]]:
    """(value, samples, seconds) of a column."""
    import pyarrow

    table = pyarrow.Table.from_batches([batch.select([name, "seconds"])])
    rows = table.group_by(name).aggregate([("seconds", "count"), ("seconds", "sum")]).to_pylist()
    return [(row[name], row["seconds_count"], row["seconds_sum"]) for row in rows]


def _histogram(batch: pa.RecordBatch) -> list[int]:
    import numpy as np

    seconds = batch.column("seconds").to_numpy(zero_copy_only=False)
    return [int(number) for number in np.histogram(seconds, bins=np.array(_EDGES_SECONDS))[0]]


def _lines(facts: dict[str, Any], top: int) -> list[str]:
    codecs, rates = (", ".join(facts[name]) for name in ("codecs", "sample_rates"))
    lines = [
        size_of_set(facts["name"], facts["samples"], facts["hours"], facts["shards"], facts["bytes"])
        + f" ({codecs}, {rates} Hz)"
    ]
    lines += [f"{name}: {facts[name]}" for name in ("corpus", "licence") if facts[name]]
    skipped = "".join(f", {count} {reason.replace('_', ' ')}" for reason, count in facts["skipped"].items())
    lines.append(f"left out: {facts['damaged']} damaged{skipped}")
    if facts["subset_of"]:
        wanted = " where ".join(
            str(facts["subset_of"][name]) for name in ("subset", "where") if facts["subset_of"][name]
        )
        lines.append(f"subset: {wanted}, of {facts['subset_of']['name']} ({facts['subset_of']['fingerprint']})")
    if facts["files"]:
        lines.append(f"files: {', '.join(facts['files'])}")
    lines += ["", "durations", *_histogram_lines(facts["duration_histogram"])]
    if facts["findings"]:
        lines += ["", f"findings (words in the column {FINDINGS_COLUMN})"]
        lines += [
            f"  {name:<24} {_amount(found['hours'])} {found['samples']:>9}" for name, found in facts["findings"].items()
        ]
    for name, hours in facts["hours_by"].items():
        if name == "codec" and len(hours) == 1:
            continue
        lines += ["", f"by {name} ({len(hours)} {'value' if len(hours) == 1 else 'values'})"]
        lines += [f"  {value:<24} {_amount(total)}" for value, total in list(hours.items())[:top]]
        if len(hours) > top:
            lines.append(f"  ... and {len(hours) - top} more")
    return [*lines, "", f"columns: {', '.join(facts['columns'])}"]


def _amount(hours: float) -> str:
    return f"{hours:10.2f} h" if hours >= 1 else f"{hours * 60:10.2f} min"


def _histogram_lines(histogram: Sequence[dict[str, Any]]) -> list[str]:
    """One line a bin from the first to the last that holds anything."""
    filled = [number for number, part in enumerate(histogram) if part["samples"]]
    if not filled:
        return ["  (no samples)"]
    most = max(part["samples"] for part in histogram)
    lines = []
    for part in histogram[filled[0] : filled[-1] + 1]:
        upper = "" if part["to_seconds"] is None else f"{part['to_seconds']:g}"
        bar = "#" * -(-_BAR_WIDTH * part["samples"] // most)
        lines.append(f"  {part['from_seconds']:>5g} - {upper:<5} s {part['samples']:>9} {bar}")
    return lines
