"""What can happen to one file of a packed set, and what `verify` finds then."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from damage import (
    Row,
    flip,
    part_of_another_set,
    part_of_fewer_shards,
    part_without_a_column,
    remove_part,
    rows_of,
    truncate_part,
)

from s3prl_stream.hashing import key_hash
from s3prl_stream.shards.layout import MANIFEST, part_name

SHARD = "set-000001.tar"
ROWS, OFFSETS, PART = f"{SHARD}.parquet", f"{SHARD}.idx", part_name(0)


def middle_row(folder: Path) -> Row:
    return [row for row in rows_of(folder) if row.shard == SHARD][3]


def cut(folder: Path) -> None:
    os.truncate(folder / SHARD, middle_row(folder).offset + 700)


def lengthen(folder: Path) -> None:
    with (folder / SHARD).open("ab") as file:
        file.write(b"more")


def flip_the_end(folder: Path) -> None:
    flip(folder / SHARD, (folder / SHARD).stat().st_size - 1000)


def of_another_shard(folder: Path) -> None:
    shutil.copy(folder / "set-000000.tar", folder / SHARD)


def without_shard(folder: Path) -> None:
    (folder / SHARD).unlink()


def without_rows(folder: Path) -> None:
    (folder / ROWS).unlink()


def without_offsets(folder: Path) -> None:
    (folder / OFFSETS).unlink()


def short_offsets(folder: Path) -> None:
    os.truncate(folder / OFFSETS, 12)


def flip_offset(folder: Path) -> None:
    flip(folder / OFFSETS, 9)


def other_crc(row: dict[str, Any]) -> None:
    row["crc32c"] ^= 1


def other_text(row: dict[str, Any]) -> None:
    row["text"] += "!"


def other_frames(row: dict[str, Any]) -> None:
    row["frames"] += 1
    row["seconds"] = row["frames"] / row["sample_rate"]


def other_key(row: dict[str, Any]) -> None:
    row["key"] += "x"
    row["key_hash"] = key_hash(row["key"])


def in_manifest(field: str, value: Any, shard: int | None = None) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        (manifest if shard is None else manifest["shards"][shard])[field] = value
        (folder / MANIFEST).write_text(json.dumps(manifest))

    change.__name__ = f"manifest_{field}"
    return change


def other_name(shard: int, name: str) -> Callable[[Path], None]:
    change = in_manifest("name", name, shard)
    change.__name__ = f"manifest_calls_shard_{shard}_{name}"
    return change


def no_manifest(folder: Path) -> None:
    (folder / MANIFEST).unlink()


def garbage_manifest(folder: Path) -> None:
    (folder / MANIFEST).write_bytes(b"\x00\xff")


def no_left_out(folder: Path) -> None:
    (folder / "left_out.jsonl").unlink()


def garbage_left_out(folder: Path) -> None:
    (folder / "left_out.jsonl").write_text('{"key": 1\n')


def left_out_with_one_more(folder: Path) -> None:
    line = {"key": "a", "audio": "a.wav", "kind": "skipped", "reason": "too_short", "message": ""}
    (folder / "left_out.jsonl").write_text(json.dumps(line) + "\n")


def a_leftover_row_group(folder: Path) -> None:
    file = pq.ParquetFile(folder / PART)
    groups = [file.read_row_group(number) for number in (0, 1, 2, 0)]
    file.close()
    with pq.ParquetWriter(folder / PART, groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group)


ON_FILES: dict[Callable[[Path], None], tuple[set[tuple[str, str]], set[tuple[str, str]]]] = {
    cut: ({(SHARD, "size"), (SHARD, "truncated"), (SHARD, "end_of_tar")},) * 2,
    lengthen: ({(SHARD, "size")},) * 2,
    flip_the_end: ({(SHARD, "end_of_tar")},) * 2,
    without_shard: ({(SHARD, "missing")},) * 2,
    without_rows: ({(ROWS, "rows")},) * 2,
    without_offsets: ({(OFFSETS, "offsets")},) * 2,
    short_offsets: ({(OFFSETS, "offsets")},) * 2,
    flip_offset: ({(OFFSETS, "offsets")},) * 2,
    remove_part: ({(PART, "index")},) * 2,
    truncate_part: ({(PART, "index")},) * 2,
    part_of_another_set: ({(PART, "index")},) * 2,
    part_of_fewer_shards: ({(PART, "index")},) * 2,
    part_without_a_column: ({(PART, "index")},) * 2,
    a_leftover_row_group: ({(PART, "index")},) * 2,
    in_manifest("name", "other"): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("format_version", "1"): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("parts", []): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("counts", {"samples": 3, "seconds": 1.0}): ({(MANIFEST, "manifest"), ("left_out.jsonl", "left_out")},)
    * 2,
    in_manifest("shards", []): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("samples", 99, shard=1): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("samples", -1, shard=1): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("seconds", 1e300, shard=1): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("bytes", 12, shard=1): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("sha256", "0" * 64, shard=1): (set(), {(MANIFEST, "sha256")}),
    other_name(1, "ret-000001.tar"): ({(MANIFEST, "manifest")},) * 2,
    other_name(1, "set-000003.tar"): ({(MANIFEST, "manifest")},) * 2,
    other_name(3, "set-000007.tar"): ({(MANIFEST, "manifest")},) * 2,
    other_name(1, "../../set-000001.tar"): ({(MANIFEST, "manifest")},) * 2,
    in_manifest("name", ["set"]): ({(MANIFEST, "manifest")},) * 2,
    no_manifest: ({(MANIFEST, "manifest")},) * 2,
    garbage_manifest: ({(MANIFEST, "manifest")},) * 2,
    no_left_out: ({("left_out.jsonl", "left_out")},) * 2,
    garbage_left_out: ({("left_out.jsonl", "left_out")},) * 2,
    left_out_with_one_more: ({("left_out.jsonl", "left_out")},) * 2,
}
"""Damage -> (file, reason) of what the quick check finds, and of what the full one finds."""
