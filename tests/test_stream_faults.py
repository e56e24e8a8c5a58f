"""Damage on disk to a packed set: it costs exactly the samples it hit, or stops the run with a clear error."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
from streams import delivered

import s3prl_stream as ss
from s3prl_stream.errors import ChainError, ShardError, TooManyFailures
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample
from s3prl_stream.shards.layout import MANIFEST, part_name

RATE = 16_000
NUM_CLIPS = 24


def pack_clips(folder: Path, *, order: int = 1) -> None:
    """A set of three small shards; `order` = -1 gives the same keys each other's audio."""
    rng = np.random.default_rng(0)
    lengths = rng.integers(RATE // 5, RATE, NUM_CLIPS)
    sources = folder.parent / f"{folder.name}-sources"
    sources.mkdir()
    utterances = []
    for number, length in enumerate(lengths[::order].tolist()):
        path = sources / f"clip{number:02d}.wav"
        soundfile.write(path, rng.integers(-3000, 3000, length, dtype=np.int16), RATE)
        utterances.append(ss.Utterance(f"clip{number:02d}", path, speaker=f"s{number % 3}", text=f"text {number}"))
    ss.pack(utterances, folder, name="set", shard_mb=0.1, num_workers=1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undamaged set."""
    folder = tmp_path_factory.mktemp("faults") / "set"
    pack_clips(folder)
    return folder


class Row(NamedTuple):
    """Where a sample lies."""

    key: str
    shard: str
    offset: int
    size: int


def rows_of(folder: Path) -> list[Row]:
    """All samples in the order of the index."""
    columns = pq.read_table(folder / part_name(0), columns=list(Row._fields)).to_pylist()
    return [Row(**row) for row in columns]


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


def stream_of(folder: Path, **settings: Any) -> Any:
    return ss.ShardStream(folder, **{"epochs": 1, "max_batch_seconds": 3.0, **settings}).load_audio()


def batches_of(folder: Path, workers: int = 0) -> tuple[list[Any], list[dict[str, Any]]]:
    """What a loader delivered, and what it lists as damaged."""
    loader = ss.Loader(stream_of(folder), num_workers=workers)
    return [delivered(batch) for batch in loader], loader.damaged


def without(batches: list[Any], keys: set[str]) -> list[Any]:
    """The same batches without these keys."""
    return [(number, tuple(row for row in rows if row[0] not in keys)) for number, rows in batches]


def listed(row: Row, reason: str) -> tuple[str, str, int, str]:
    return row.shard, row.key, row.offset, reason


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    "damage",
    [flip_audio, flip_json, flip_first_header, flip_second_header, zero_a_disk_block],
    ids=lambda f: f.__name__,
)
def test_a_damaged_sample_costs_itself_alone(
    whole: Path, tmp_path: Path, damage: Callable[[Path, Row], None], workers: int
) -> None:
    broken = shutil.copytree(whole, tmp_path / "set")
    hit = [rows_of(broken)[number] for number in (0, 9, NUM_CLIPS - 1)]  # first, middle, last of the set
    for row in hit:
        damage(broken, row)
    got, damaged = batches_of(broken, workers)
    assert got == without(batches_of(whole)[0], {row.key for row in hit})
    found = sorted((one["shard"], one["key"], one["offset"], one["reason"]) for one in damaged)
    assert found == sorted(listed(row, "crc") for row in hit)
    assert all(
        row.key in one["message"] and one["size"] == row.size for one in damaged for row in hit if row.key == one["key"]
    )


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("bytes_into_sample", [0, 700])
def test_a_truncated_shard_costs_the_samples_behind_the_cut(
    whole: Path, tmp_path: Path, bytes_into_sample: int, workers: int
) -> None:
    broken = shutil.copytree(whole, tmp_path / "set")
    rows = [row for row in rows_of(broken) if row.shard == "set-000001.tar"]
    os.truncate(broken / "set-000001.tar", rows[3].offset + bytes_into_sample)
    got, damaged = batches_of(broken, workers)
    assert got == without(batches_of(whole)[0], {row.key for row in rows[3:]})
    found = sorted((one["shard"], one["key"], one["offset"], one["reason"]) for one in damaged)
    assert found == sorted(listed(row, "truncated") for row in rows[3:])


def test_a_shard_of_another_set_costs_its_samples(whole: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(whole, tmp_path / "set")
    shutil.copy(whole / "set-000000.tar", broken / "set-000001.tar")
    got, damaged = batches_of(broken)
    lost = {row.key for row in rows_of(whole) if row.shard == "set-000001.tar"}
    assert got == without(batches_of(whole)[0], lost)
    assert {one["key"] for one in damaged} == lost
    assert {one["reason"] for one in damaged} <= {"crc", "truncated"}


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


def manifest_without_shards(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"format_version": 1, "name": "set"}')


def manifest_shard_without_checksum(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    del manifest["shards"][1]["sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


STOPPING = {
    remove_shard: "set-000001.tar: cannot be read at byte",
    remove_part: "part-00000.parquet: not a readable index part",
    truncate_part: "part-00000.parquet: not a readable index part",
    empty_part: "part-00000.parquet: not a readable index part",
    part_of_another_set: "The index is of another set",
    part_of_fewer_shards: "part-00000.parquet: not a readable index part",
    part_without_a_column: "part-00000.parquet: not a readable index part.*crc32c",
    manifest_without_shards: "manifest.json: not a readable manifest",
    manifest_shard_without_checksum: "manifest.json: not a readable manifest.*sha256",
}


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", STOPPING, ids=lambda f: f.__name__)
def test_what_cannot_be_used_at_all_stops_with_one_clear_line(
    whole: Path, tmp_path: Path, damage: Callable[[Path], None], workers: int
) -> None:
    broken = shutil.copytree(whole, tmp_path / "set")
    damage(broken)
    with pytest.raises(ShardError, match=STOPPING[damage]) as caught:
        batches_of(broken, workers)
    assert "\n" not in str(caught.value)  # of a worker too: torch would wrap it in a traceback


@pytest.mark.parametrize("damage", [remove_part, truncate_part, part_of_another_set], ids=lambda f: f.__name__)
def test_a_selection_needs_the_whole_index(whole: Path, tmp_path: Path, damage: Callable[[Path], None]) -> None:
    broken = shutil.copytree(whole, tmp_path / "set")
    damage(broken)
    for choice in ({"where": "seconds > 0"}, {"subset": "50%"}, {"balance": "speaker"}):
        with pytest.raises(ShardError, match=r"part-00000\.parquet"):
            stream_of(broken, **choice)


def test_a_flipped_bit_in_the_index_changes_nothing_in_silence(whole: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(whole, tmp_path / "set")
    expected = batches_of(whole)[0]
    part = broken / part_name(0)
    content = part.read_bytes()
    refused = 0
    for at in np.random.default_rng(0).integers(4, len(content), 60).tolist():
        part.write_bytes(content)
        flip(part, at)
        try:
            got, damaged = batches_of(broken)
        except ShardError:
            refused += 1
            continue
        assert got == expected or damaged, f"bit of byte {at}"
    assert refused > 10


def test_the_index_of_the_same_keys_with_other_audio_is_noticed(whole: Path, tmp_path: Path) -> None:
    pack_clips(tmp_path / "other", order=-1)
    broken = shutil.copytree(whole, tmp_path / "set")
    for row in json.loads((tmp_path / "other" / MANIFEST).read_bytes())["shards"]:
        shutil.copy(tmp_path / "other" / row["name"], broken / row["name"])
    with pytest.raises(TooManyFailures, match="samples in a row"):
        list(ss.Loader(stream_of(broken, max_consecutive_failures=10)))
    for plain in (
        stream_of(broken, max_consecutive_failures=10),
        stream_of(broken, max_consecutive_failures=10).collate(),
    ):
        with pytest.raises(TooManyFailures, match="samples in a row"):
            list(plain)


class Fails(Stage):
    """A stage with a mistake in it."""

    functional_name = "fails"

    def emit(self, sample: Sample) -> Any:
        if sample["key"] == "clip07":
            raise ZeroDivisionError("a mistake in a stage")
        yield sample


class Unsendable(Stage):
    """A stage that holds a function."""

    functional_name = "unsendable"

    def __init__(self, source: Any = None, *, function: Any) -> None:
        self.function = function
        super().__init__(source)

    def emit(self, sample: Sample) -> Any:
        yield {**sample, "number": self.function(sample)}


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mistake_in_a_stage_stops_the_run_and_says_where(whole: Path, workers: int) -> None:
    with pytest.raises(ZeroDivisionError, match="a mistake in a stage"):
        list(ss.Loader(Fails()(stream_of(whole)), num_workers=workers))


def test_a_stage_that_cannot_be_sent_is_named_when_the_loader_is_made(whole: Path) -> None:
    chain = Unsendable(function=lambda sample: 1)(stream_of(whole))
    assert len(list(ss.Loader(chain))) == len(batches_of(whole)[0])
    with pytest.raises(ChainError, match="Unsendable cannot be sent to a forkserver worker"):
        ss.Loader(chain, num_workers=1, multiprocessing_context="forkserver")


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_a_packed_set_goes_to_workers_of_any_start_method(whole: Path, context: str) -> None:
    stream = stream_of(whole)
    assert stream.source.shards.rows(0).key is not None  # opens an index part
    next(iter(stream))  # and a shard
    loader = ss.Loader(stream, num_workers=1, multiprocessing_context=context)
    assert [delivered(batch) for batch in loader] == batches_of(whole)[0]


@pytest.mark.parametrize("workers", [0, 1])
def test_a_loader_goes_on_where_it_stopped_once_the_fault_is_mended(whole: Path, tmp_path: Path, workers: int) -> None:
    broken = shutil.copytree(whole, tmp_path / "set")
    remove_shard(broken)
    loader = ss.Loader(stream_of(broken), num_workers=workers)
    got = []

    def take_all() -> None:
        for batch in loader:
            got.append(delivered(batch))

    with pytest.raises(ShardError):
        take_all()
    assert len(got) == loader.state_dict()["next_batch"]
    shutil.copy(whole / "set-000001.tar", broken / "set-000001.tar")
    take_all()
    assert got == batches_of(whole)[0]
