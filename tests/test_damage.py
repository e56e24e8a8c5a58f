"""From the fault to the repaired set: what a stream loses is what `verify` names and `repair` leaves out, exactly."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from damage import (
    Row,
    batches_of,
    flip_audio,
    flip_first_header,
    flip_json,
    flip_second_header,
    rows_of,
    stream_of,
    without,
    zero_a_disk_block,
)
from damage_to_files import SHARD, cut, middle_row, without_shard
from streams import delivered

import s3prl_stream as ss
from s3prl_stream.errors import MissingFile, ShardError, TooManyFailures
from s3prl_stream.stores import local_store


@pytest.fixture(scope="module")
def expected(whole: Path) -> list[Any]:
    """The batches of an epoch of it."""
    return batches_of(whole)[0]


def of_shard(folder: Path) -> list[Row]:
    return [row for row in rows_of(folder) if row.shard == SHARD]


def on_one(damage: Callable[[Path, Row], None]) -> Callable[[Path], list[Row]]:
    def hit(folder: Path) -> list[Row]:
        row = middle_row(folder)
        damage(folder, row)
        return [row]

    hit.__name__ = damage.__name__
    return hit


def cut_off(folder: Path) -> list[Row]:
    rows = of_shard(folder)
    cut(folder)
    return rows[3:]


def first_header_of_a_shard(folder: Path) -> list[Row]:
    row = of_shard(folder)[0]
    flip_first_header(folder, row)
    return [row]


def noise_of_the_same_size(folder: Path) -> list[Row]:
    size = (folder / SHARD).stat().st_size
    (folder / SHARD).write_bytes(np.random.default_rng(0).bytes(size))
    return of_shard(folder)


def another_shard(folder: Path) -> list[Row]:
    shutil.copy(folder / "set-000000.tar", folder / SHARD)
    return of_shard(folder)


QUICK = {cut_off, first_header_of_a_shard, noise_of_the_same_size, another_shard}
DAMAGES = [*map(on_one, (flip_audio, flip_json, flip_first_header, flip_second_header, zero_a_disk_block)), *sorted(
    QUICK, key=lambda damage: damage.__name__
)]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_stream_verify_and_repair_agree(
    whole: Path, broken: Path, tmp_path: Path, expected: list[Any], damage: Callable[[Path], list[Row]]
) -> None:
    hit = damage(broken)
    keys = {row.key for row in hit}
    got, damaged = batches_of(broken)
    assert got == without(expected, keys)
    places = sorted((row.shard, row.key, row.offset, row.size) for row in hit)
    assert sorted((one["shard"], one["key"], one["offset"], one["size"]) for one in damaged) == places
    assert all(one["reason"] in ("crc", "truncated") and one["message"] for one in damaged)
    found = [one for one in ss.verify(broken, full=True).findings if one.key]
    assert [(one.file, one.key, one.offset, one.size) for one in found] == [
        (row.shard, row.key, row.offset, row.size) for row in hit
    ]
    assert {one.key: one.reason for one in found} == {one["key"]: one["reason"] for one in damaged}
    assert ss.verify(broken).is_sound == (damage not in QUICK)
    assert ss.repair(broken, tmp_path / "out").num_lost == len(hit)
    assert_delivers_the_rest(tmp_path / "out", expected, keys)


def assert_delivers_the_rest(out: Path, expected: list[Any], lost: set[str]) -> None:
    """A repaired set is another set, with other batches of the same rows."""
    got, damaged = batches_of(out)
    assert damaged == []
    assert sorted(row for _, rows in got for row in rows) == sorted(
        row for _, rows in without(expected, lost) for row in rows
    )


@pytest.mark.parametrize("workers", [0, 2])
def test_a_missing_shard_stops_the_run_until_it_is_repaired(
    broken: Path, tmp_path: Path, expected: list[Any], workers: int
) -> None:
    lost = {row.key for row in of_shard(broken)}
    without_shard(broken)
    with pytest.raises(MissingFile, match=f"{SHARD}: cannot be read"):
        batches_of(broken, workers)
    for full in (False, True):
        assert [(one.file, one.reason) for one in ss.verify(broken, full).findings] == [(SHARD, "missing")]
    ss.repair(broken, tmp_path / "out")
    assert_delivers_the_rest(tmp_path / "out", expected, lost)


@pytest.mark.parametrize("workers", [0, 2])
def test_too_many_failures_in_a_row_stop_the_run(broken: Path, workers: int) -> None:
    """As many as are allowed do not."""
    rows = rows_of(broken)
    for row in rows:
        flip_audio(broken, row)
    loader = ss.Loader(stream_of(broken, max_consecutive_failures=len(rows)), num_workers=workers)
    assert [batch["key"] for batch in loader if batch["key"]] == []
    assert {one["key"] for one in loader.damaged} == {row.key for row in rows}
    loader = ss.Loader(stream_of(broken, max_consecutive_failures=len(rows) - 1), num_workers=workers)
    with pytest.raises(TooManyFailures, match="24 samples in a row could not be used"):
        list(loader)


def replace(path: Path, content: bytes) -> None:
    """As every good program does: another file under the same name."""
    other = path.with_suffix(".new")
    other.write_bytes(content)
    other.replace(path)


@pytest.mark.parametrize("other_size", [False, True])
def test_a_shard_replaced_while_it_is_open_is_read_as_it_was(
    broken: Path, expected: list[Any], other_size: bool
) -> None:
    loader = ss.Loader(stream_of(broken))
    assert [delivered(batch) for batch in loader] == expected
    for path in broken.glob("*.tar"):
        replace(path, bytes(path.stat().st_size + other_size))
    assert [delivered(batch) for batch in loader] == expected
    assert loader.damaged == []


@pytest.mark.parametrize("other_size", [False, True])
def test_a_shard_overwritten_in_place_costs_what_changed(
    whole: Path, broken: Path, expected: list[Any], other_size: bool
) -> None:
    """The same file with other bytes, under an open loader."""
    loader = ss.Loader(stream_of(broken))
    assert [delivered(batch) for batch in loader] == expected
    rows = of_shard(whole)
    with (broken / SHARD).open("r+b") as file:
        file.seek(rows[2].offset + 700)
        file.write(b"other bytes")
        if other_size:
            file.truncate(rows[4].offset + 10)
    lost = {row.key for row in [rows[2], *(rows[4:] if other_size else [])]}
    assert [delivered(batch) for batch in loader] == without(expected, lost)
    assert {one["key"] for one in loader.damaged} == lost


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("other_size", [False, True])
def test_a_shard_replaced_before_it_is_opened_again_stops_the_run(
    whole: Path, broken: Path, monkeypatch: pytest.MonkeyPatch, other_size: bool, workers: int
) -> None:
    """With one file open at a time, each is opened again and again; no sample of another set is ever delivered."""
    monkeypatch.setattr(local_store, "MAX_OPEN_FILES", 1)
    stream = stream_of(broken, epochs=None, max_batch_seconds=1.0, max_consecutive_failures=1000)
    loader = ss.Loader(stream, num_workers=workers, multiprocessing_context="fork" if workers else None)
    sound = {row[0]: row[-1] for _, rows in batches_of(whole)[0] for row in rows}

    def run() -> None:
        for number, batch in enumerate(loader):
            assert all(sound[row[0]] == row[-1] for row in delivered(batch)[1])
            if number == 40:
                for path in broken.glob("*.tar"):
                    replace(path, (whole / path.name).read_bytes() + bytes(512 * other_size))

    with pytest.raises(ShardError, match=r"set-00000\d\.tar: replaced since it was opened.*begin anew"):
        run()
