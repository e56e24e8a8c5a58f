"""Small packed sets of generated audio, and what can happen to their files."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import google_crc32c
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from streams import delivered

import s3prl_stream as ss
from s3prl_stream.checking.verify import VerifyReport
from s3prl_stream.hashing import key_hash
from s3prl_stream.shards.layout import INDEX_FOLDER, MANIFEST, part_name
from s3prl_stream.shards.tar import member

RATE = 16_000
NUM_CLIPS = 24


def pack_clips(folder: Path, *, order: int = 1, shard_mb: float = 0.1, codec: str = "flac") -> None:
    """A set of four small shards; `order` = -1 gives the same keys each other's audio."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(RATE // 5, RATE, NUM_CLIPS)
    sources = folder.parent / f"{folder.name}-sources"
    sources.mkdir()
    utterances = []
    for number, length in enumerate(lengths[::order].tolist()):
        path = sources / f"clip{number:02d}.wav"
        soundfile.write(path, rng.integers(-3000, 3000, length, dtype=np.int16), RATE)
        utterances.append(ss.Utterance(f"clip{number:02d}", path, speaker=f"s{number % 3}", text=f"text {number}"))
    ss.pack(utterances, folder, name="set", shard_mb=shard_mb, codec=codec)


class Row(NamedTuple):
    """Where a sample lies."""

    key: str
    shard: str
    offset: int
    size: int


def rows_of(folder: Path) -> list[Row]:
    """All samples in the order of the index."""
    parts = sorted((folder / INDEX_FOLDER).iterdir())
    return [Row(**row) for part in parts for row in pq.read_table(part, columns=list(Row._fields)).to_pylist()]


def flip(path: Path, at: int) -> None:
    """Change one bit of a file."""
    content = bytearray(path.read_bytes())
    content[at] ^= 4
    path.write_bytes(content)


def members(folder: Path, row: Row) -> tuple[int, int]:
    """Offsets in the shard of a sample's audio content and of its JSON header."""
    header = (folder / row.shard).read_bytes()[row.offset :][:512]
    size = int(header[124:136].rstrip(b"\0 "), 8)
    return row.offset + 512, row.offset + 512 + -(-size // 512) * 512


def flip_audio(folder: Path, row: Row) -> None:
    flip(folder / row.shard, members(folder, row)[0] + 200)


def flip_json(folder: Path, row: Row) -> None:
    flip(folder / row.shard, members(folder, row)[1] + 512 + 3)


def flip_first_header(folder: Path, row: Row) -> None:
    flip(folder / row.shard, row.offset + 130)


def flip_second_header(folder: Path, row: Row) -> None:
    flip(folder / row.shard, members(folder, row)[1] + 130)


def zero_a_disk_block(folder: Path, row: Row) -> None:
    content = bytearray((folder / row.shard).read_bytes())
    content[row.offset + 1024 : row.offset + 1536] = bytes(512)
    (folder / row.shard).write_bytes(content)


def bad_sectors(monkeypatch: pytest.MonkeyPatch, folder: Path, row: Row, *, error: int = errno.EIO) -> None:
    """The disk fails where this sample lies; other than by a mock no test can have this."""
    read = os.pread

    def pread(descriptor: int, size: int, offset: int) -> bytes:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        if path == str(folder / row.shard) and offset < row.offset + row.size and row.offset < offset + size:
            raise OSError(error, os.strerror(error))
        return read(descriptor, size, offset)

    monkeypatch.setattr(os, "pread", pread)


def stream_of(folder: Path, **settings: Any) -> Any:
    return ss.ShardStream(folder, **{"epochs": 1, "max_batch_seconds": 3.0, **settings}).load_audio()


def batches_of(folder: Path, workers: int = 0) -> tuple[list[Any], list[dict[str, Any]]]:
    """What a loader delivered, and what it lists as damaged."""
    loader = ss.Loader(stream_of(folder), num_workers=workers)
    return [delivered(batch) for batch in loader], loader.damaged


def found(report: VerifyReport) -> list[tuple[str, str | None, str]]:
    """File, key and reason of each finding."""
    return [(one.file, one.key, one.reason) for one in report.findings]


def without(batches: list[Any], keys: set[str]) -> list[Any]:
    """The same batches without these keys."""
    return [(number, tuple(row for row in rows if row[0] not in keys)) for number, rows in batches]


def listed(row: Row, reason: str) -> tuple[str, str, int, str]:
    return row.shard, row.key, row.offset, reason


def remove_shard(folder: Path) -> None:
    (folder / "set-000001.tar").unlink()


def remove_part(folder: Path) -> None:
    (folder / part_name(0)).unlink()


def truncate_part(folder: Path) -> None:
    os.truncate(folder / part_name(0), 2000)


def empty_part(folder: Path) -> None:
    (folder / part_name(0)).write_bytes(b"")


def part_of_another_set(folder: Path) -> None:
    table = pq.read_table(folder / part_name(0))
    pq.write_table(table.slice(1), folder / part_name(0), row_group_size=8)


def part_of_fewer_shards(folder: Path) -> None:
    file = pq.ParquetFile(folder / part_name(0))
    table = file.read_row_group(0)
    file.close()
    pq.write_table(table, folder / part_name(0))


def part_without_a_column(folder: Path) -> None:
    file = pq.ParquetFile(folder / part_name(0))
    groups = [file.read_row_group(number).drop_columns(["crc32c"]) for number in range(file.num_row_groups)]
    file.close()
    with pq.ParquetWriter(folder / part_name(0), groups[0].schema) as writer:
        for group in groups:
            writer.write_table(group)


def change_row(folder: Path, row: Row, change: Callable[[dict[str, Any]], None], *names: str) -> None:
    """Change one row of the index in these files, with page checksums that are right."""
    for name in names:
        file = pq.ParquetFile(folder / name)
        groups = [file.read_row_group(number) for number in range(file.num_row_groups)]
        file.close()
        with pq.ParquetWriter(folder / name, groups[0].schema, write_page_checksum=True) as writer:
            for group in groups:
                rows = group.to_pylist()
                for one in rows:
                    if one["key"] == row.key:
                        change(one)
                writer.write_table(pa.Table.from_pylist(rows, schema=group.schema))


def rename_sample(folder: Path, row: Row, key: str) -> None:
    """Give a sample a key of the same length, with every checksum of the set set right."""
    path = folder / row.shard
    content = path.read_bytes()
    with tarfile.open(path) as tar:
        audio, metadata = (tar.extractfile(f"{row.key}.{suffix}") for suffix in ("flac", "json"))
        assert audio is not None
        assert metadata is not None
        sample = member(f"{key}.flac", audio.read()) + member(f"{key}.json", metadata.read())
    assert len(sample) == row.size
    path.write_bytes(content[: row.offset] + sample + content[row.offset + row.size :])

    def rename(one: dict[str, Any]) -> None:
        one |= {"key": key, "key_hash": key_hash(key), "crc32c": google_crc32c.value(sample)}

    change_row(folder, row, rename, part_name(0), f"{row.shard}.parquet")
    manifest = json.loads((folder / MANIFEST).read_bytes())
    for shard in manifest["shards"]:
        shard["sha256"] = hashlib.sha256((folder / shard["name"]).read_bytes()).hexdigest()
    (folder / MANIFEST).write_text(json.dumps(manifest))
