"""Damage on disk to a packed set: it costs exactly the samples it hit, or stops the run with a clear error."""

from __future__ import annotations

import json
import os
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from damage import (
    NUM_CLIPS,
    Row,
    bad_sectors,
    batches_of,
    empty_part,
    flip,
    flip_audio,
    flip_first_header,
    flip_json,
    flip_second_header,
    listed,
    pack_clips,
    part_of_another_set,
    part_of_fewer_shards,
    part_without_a_column,
    remove_part,
    remove_shard,
    rows_of,
    stream_of,
    truncate_part,
    without,
    zero_a_disk_block,
)
from streams import delivered

import s3prl_stream as ss
from s3prl_stream.errors import ChainError, ShardError, TooManyFailures
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample
from s3prl_stream.shards.layout import MANIFEST, part_name


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


def test_bad_sectors_cost_their_sample(whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = batches_of(whole)[0]
    row = rows_of(whole)[9]
    bad_sectors(monkeypatch, whole, row)
    got, damaged = batches_of(whole)
    assert got == without(expected, {row.key})
    assert [(one["shard"], one["key"], one["offset"], one["reason"]) for one in damaged] == [listed(row, "unreadable")]


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


def manifest_without_shards(folder: Path) -> None:
    (folder / MANIFEST).write_text('{"format_version": 1, "name": "set"}')


def manifest_shard_without_checksum(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_bytes())
    del manifest["shards"][1]["sha256"]
    (folder / MANIFEST).write_text(json.dumps(manifest))


STOPPING = {
    remove_shard: "set-000001.tar: cannot be read at byte",
    remove_part: r"part-00000.parquet: cannot be read \(not there\). `s3prl-stream repair` makes it anew",
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


def test_a_stage_of_a_notebook_is_refused_where_workers_are_not_forked(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A notebook's `__main__` has no file, so that a new process would look for the class in an empty module."""
    notebook = types.ModuleType("__main__")
    exec("import s3prl_stream\nclass Mine(s3prl_stream.Stage):\n def emit(self, one): yield one", vars(notebook))
    monkeypatch.setitem(sys.modules, "__main__", notebook)
    chain = vars(notebook)["Mine"]()(stream_of(whole))
    for context in ("spawn", "forkserver"):
        with pytest.raises(ChainError, match=f"Mine cannot be sent to a {context} worker .*notebook.*num_workers=0"):
            ss.Loader(chain, num_workers=1, multiprocessing_context=context)
    assert len(list(ss.Loader(chain, num_workers=1, multiprocessing_context="fork"))) == len(batches_of(whole)[0])


def test_a_killed_worker_is_noticed_long_before_the_loader_counts_as_stuck(whole: Path) -> None:
    others = set(psutil.Process().children(recursive=True))
    loader = ss.Loader(stream_of(whole, epochs=None), num_workers=1, multiprocessing_context="forkserver")
    batches = iter(loader)
    next(batches)
    new = set(psutil.Process().children(recursive=True)) - others
    for process in new:
        if not process.children() and "resource_tracker" not in " ".join(process.cmdline()):
            process.kill()
    # torch's own error, or that of a batch whose memory the worker was about to hand over
    with pytest.raises((RuntimeError, OSError, EOFError)):
        for _ in batches:
            pass


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
