"""`verify`: a sound set has no findings, and damage anywhere is found, named and explained."""

from __future__ import annotations

import gc
import json
import os
import re
import shutil
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from damage import Row, change_row, flip, flip_audio, found, members, pack_clips, remove_part, rows_of
from damage_to_files import (
    OFFSETS,
    PART,
    ROWS,
    SHARD,
    garbage_manifest,
    in_manifest,
    lengthen,
    middle_row,
    other_crc,
    other_frames,
    other_key,
    other_name,
    other_text,
    without_offsets,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from open_files import open_below

import s3prl_stream as ss
from s3prl_stream.checking.content import row_of
from s3prl_stream.checking.duplicates import _repeated
from s3prl_stream.cli import main
from s3prl_stream.errors import DamagedFile, SampleError, ShardError, UsageError
from s3prl_stream.shards.index_files import arrow_errors, first_difference, problem_with_packed, read_rows_sidecar
from s3prl_stream.shards.layout import MANIFEST
from s3prl_stream.shards.tar import member
from s3prl_stream.stores.store import open_store


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A set of more shards than an index part holds."""
    folder = tmp_path_factory.mktemp("many") / "set"
    pack_clips(folder, shard_mb=0.012)
    return folder


@pytest.mark.parametrize("full", [False, True])
def test_a_sound_set_has_no_findings(whole: Path, many: Path, sample_set: Path, full: bool) -> None:
    for folder in (whole, many, sample_set):
        shards = ss.open_shards(folder)
        report = ss.verify(folder, full)
        assert report.is_sound
        assert (report.shards, report.samples) == (shards.num_shards, len(shards))
        assert report.num_bytes == sum(path.stat().st_size for path in folder.glob("*.tar"))
    assert len(list((many / "index").iterdir())) > 1


def test_no_file_stays_open(broken: Path, tmp_path: Path) -> None:
    """Nor does a shard's last piece stay in memory, until some later collection of cycles."""
    gc.disable()
    try:
        ss.verify(broken, full=True)
        ss.repair(broken, tmp_path / "out")
        assert open_below(tmp_path) == []
    finally:
        gc.enable()


def test_an_opened_set_is_checked_as_it_is_now(broken: Path) -> None:
    shards = ss.open_shards(broken)
    next(iter(ss.ShardStream(shards)))
    flip_audio(broken, middle_row(broken))
    for opened in (shards, shards.members[0]):
        assert found(ss.verify(opened, full=True)) == [(SHARD, middle_row(broken).key, "crc")]
    with pytest.raises(UsageError, match="expected one packed set"):
        ss.verify(ss.MemoryShards({"a": {"wav": np.zeros(3)}}))  # type: ignore[arg-type]


@pytest.mark.parametrize(("name", "put"), [(PART, Path.mkdir), (ROWS, Path.mkdir), (OFFSETS, os.mkfifo)])
def test_what_is_no_file_in_the_place_of_one_is_damage(
    broken: Path, tmp_path: Path, name: str, put: Callable[[Path], None]
) -> None:
    (broken / name).unlink()
    put(broken / name)
    (finding,) = ss.verify(broken).findings
    assert finding.file == name
    assert "is no file" in finding.message
    assert ss.repair(broken, tmp_path / "mended").num_lost == 0
    assert ss.verify(tmp_path / "mended", full=True).is_sound


@pytest.mark.parametrize("change", [other_crc, other_text, other_frames, other_key], ids=lambda f: f.__name__)
def test_of_two_listings_the_one_that_fits_the_bytes_is_right(
    broken: Path, change: Callable[[dict[str, Any]], None]
) -> None:
    """With page checksums that are right: what a flipped bit cannot do, a mixture of two sets can."""
    row = middle_row(broken)
    change_row(broken, row, change, PART)
    assert "rows" in {one.reason for one in ss.verify(broken).findings}  # quick: that they differ
    assert found(ss.verify(broken, full=True)) == [(PART, None, "index")]  # full: which of them is wrong
    change_row(broken, row, change, ROWS)
    both = ss.verify(broken, full=True)  # both are wrong, but the shard has its SHA-256: it is right
    assert found(both) == [(PART, None, "index"), (ROWS, None, "rows")]
    flip_audio(broken, rows_of(broken)[0])
    assert len(ss.verify(broken, full=True).findings) == 3
    flip_audio(broken, [row for row in rows_of(broken) if row.shard == SHARD][5])
    # nothing left says that the shard is right: the samples that do not fit are named
    hit = [one for one in ss.verify(broken, full=True).findings if one.key]
    assert [one.reason for one in hit] == ["crc", "crc" if change is other_crc else "differs", "crc"]


def test_a_shard_whose_rows_are_lost_is_read_by_its_own_headers(broken: Path) -> None:
    remove_part(broken)
    for path in broken.glob("*.tar.parquet"):
        path.unlink()
    assert {one.reason for one in ss.verify(broken, full=True).findings} == {"index", "rows"}
    lengthen(broken)  # as far as it was packed, it is what it was
    assert {one.reason for one in ss.verify(broken, full=True).findings} == {"index", "rows", "size"}
    os.truncate(broken / SHARD, (broken / SHARD).stat().st_size - len(b"more"))
    row = Row("", SHARD, 2048, 0)
    flip(broken / SHARD, row.offset)
    report = ss.verify(broken, full=True)
    assert [(one.file, one.reason) for one in report.findings if one.reason not in ("index", "rows")] == [
        (SHARD, "index_lost")
    ]


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_full_finds_every_changed_byte_of_a_shard(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    shard = data.draw(st.sampled_from(sorted(path.name for path in whole.glob("*.tar"))))
    content = (whole / shard).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    changed = data.draw(st.integers(0, 255).filter(lambda value: value != content[at]))
    folder = tmp_path / "linked"
    link(whole, folder, but=shard)
    (folder / shard).write_bytes(content[:at] + bytes([changed]) + content[at + 1 :])
    (finding,) = ss.verify(folder, full=True).findings
    owner = [row for row in rows_of(whole) if row.shard == shard and row.offset <= at < row.offset + row.size]
    expected = (owner[0].key, "crc") if owner else (None, "end_of_tar")
    assert (finding.file, finding.key, finding.reason) == (shard, *expected)
    assert finding.offset is not None
    assert finding.size is not None
    assert finding.offset <= at < finding.offset + finding.size


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.data())
def test_a_changed_byte_anywhere_else_is_found_or_changes_nothing(
    whole: Path, tmp_path: Path, data: st.DataObject
) -> None:
    """Free text in the manifest, and what Parquet writes about itself, say nothing about the samples."""
    name = data.draw(st.sampled_from([PART, ROWS, OFFSETS, MANIFEST]))
    content = (whole / name).read_bytes()
    at = data.draw(st.integers(0, len(content) - 1))
    folder = tmp_path / "linked"
    link(whole, folder, but=name)
    (folder / name).write_bytes(
        content[:at] + bytes([content[at] ^ data.draw(st.integers(1, 255))]) + content[at + 1 :]
    )
    if re.search(rb'"format_version":\s*([2-9]|1\d)', (folder / MANIFEST).read_bytes()):
        with pytest.raises(ShardError, match="format version"):
            ss.verify(folder, full=True)
        return
    report = ss.verify(folder, full=True)
    if report.is_sound:
        before, after = ss.open_shards(whole), ss.open_shards(folder)
        assert before.fingerprint == after.fingerprint
        assert before.table().equals(after.table())
    elif name == MANIFEST and report.findings[0].reason == "left_out":  # a count: which of the two is it?
        assert "one of the two files is damaged" in report.findings[0].message
    else:
        assert {one.file for one in report.findings} == {name}


def link(source: Path, target: Path, *, but: str) -> None:
    """The same set under another path, without one of its files."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=os.link)
    (target / but).unlink()


def test_what_is_no_set_or_a_newer_one(broken: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no shard set here"):
        ss.verify(tmp_path)
    in_manifest("format_version", 99)(broken)
    with pytest.raises(ShardError, match="format version 99"):
        ss.verify(broken)
    with pytest.raises(UsageError, match="num_workers is -1"):
        ss.verify(broken, num_workers=-1)
    (broken / MANIFEST).unlink()
    with pytest.raises(UsageError, match=r"manifest\.json is missing.*its manifest is lost: `s3prl-stream repair`"):
        ss.open_shards(broken)
    with pytest.raises(UsageError, match=r"holds a set whose manifest\.json is lost: `s3prl-stream repair`"):
        ss.pack([], broken)
    (broken / ".packing.json").write_text('{"name": "set"}')
    for look in (ss.verify, ss.open_shards):
        with pytest.raises(UsageError, match="never finished"):
            look(broken)


def test_a_damaged_name_does_not_hide_a_missing_shard(broken: Path) -> None:
    other_name(1, "set-000003.tar")(broken)
    (broken / "set-000002.tar").unlink()
    assert set(found(ss.verify(broken))) == {(MANIFEST, None, "manifest"), ("set-000002.tar", None, "missing")}


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ("name", True),
        ("packing", 5),
        ("samples", 2**70),
        ("samples", -1),
        ("samples", "many"),
        ("bytes", None),
        ("name", "../set-000001.tar"),
        ("name", "/etc/passwd"),
    ],
)
def test_a_manifest_with_an_impossible_value_is_not_opened(broken: Path, where: str, value: object) -> None:
    manifest = json.loads((broken / MANIFEST).read_bytes())
    (manifest if where == "packing" else manifest["shards"][1])[where] = value
    (broken / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(ShardError, match=r"manifest\.json: not a readable manifest"):
        ss.open_shards(broken)


def test_a_count_of_what_was_left_out_that_the_list_does_not_bear_out(broken: Path) -> None:
    manifest = json.loads((broken / MANIFEST).read_bytes())
    manifest["counts"]["damaged"] += 1
    (broken / MANIFEST).write_text(json.dumps(manifest))
    (finding,) = ss.verify(broken).findings
    assert (finding.file, finding.reason) == ("left_out.jsonl", "left_out")
    assert finding.message.endswith("the manifest says {'damaged': 1, 'skipped': {}}: one of the two files is damaged")


def test_a_damaged_manifest_and_no_shards(broken: Path) -> None:
    garbage_manifest(broken)
    shutil.rmtree(broken / "index")
    for path in broken.glob("set-*"):
        path.unlink()
    with pytest.raises(ShardError, match=r"manifest\.json is damaged \(not readable"):
        ss.verify(broken)


def test_shards_of_two_sets_and_no_manifest(broken: Path) -> None:
    (broken / MANIFEST).unlink()
    shutil.copy(broken / SHARD, broken / "other-000000.tar")
    with pytest.raises(ShardError, match=r"shards of 2 sets \(other, set\)"):
        ss.verify(broken)


def lines_of(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


def test_the_command_says_what_is_wrong_and_what_to_do(broken: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["verify", str(broken), "--full", "--workers", "0"]
    assert main(command) == 0
    assert lines_of(capsys)[1:] == ["nothing wrong was found"]
    for row in rows_of(broken):
        flip_audio(broken, row)
    without_offsets(broken)
    assert main(command) == 1
    lines = lines_of(capsys)
    assert lines[1] == "problems: 25"
    assert lines[2].startswith(f"  {rows_of(broken)[0].shard}: {rows_of(broken)[0].key} at byte 0 (")
    assert "  ... and 5 more; --json lists all" in lines
    assert lines[-1].startswith("offsets: no audio is lost")
    assert main([*command, "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["shards"], facts["samples"], len(facts["findings"])) == (4, 24, 25)
    assert facts["findings"][0]["key"] == rows_of(broken)[0].key
    assert main(["verify", str(broken.parent / "absent")]) == 2


@pytest.fixture(autouse=True)
def _closed_members(whole: Path) -> Iterator[None]:
    """The set that the tests share stays as it is."""
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    yield
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


ROWS_THAT_CANNOT_BE: list[tuple[str, Callable[[list[Any]], list[Any]], str]] = [
    ("frames", lambda values: [None, *values[1:]], "nulls in the fixed columns"),
    ("shard", lambda values: [*values[:-1], "other.tar"], "rows are of shard"),
    ("frames", lambda values: [0, *values[1:]], "clips of impossible lengths"),
    ("frames", lambda values: [1 << 62, *values[1:]], "clips of impossible lengths"),  # as a plan refuses them
    ("offset", lambda values: [value + 512 for value in values], "without gaps from byte 0"),
    ("offset", lambda values: [*values[:-1], values[-1] + 512], "without gaps from byte 0"),
    ("seconds", lambda values: [values[0] + 1e-9, *values[1:]], "seconds are not frames"),
    ("key", lambda values: ["another", *values[1:]], "key_hash is not"),
]


@pytest.mark.parametrize(("column", "change", "problem"), ROWS_THAT_CANNOT_BE)
def test_rows_that_cannot_be_are_told_though_their_file_is_whole(
    sample_set: Path, column: str, change: Callable[[list[Any]], list[Any]], problem: str
) -> None:
    shard = json.loads((sample_set / MANIFEST).read_bytes())["shards"][0]["name"]
    table = read_rows_sidecar(open_store(sample_set), shard)
    assert isinstance(table, pa.Table)
    assert problem_with_packed(table, shard) is None
    place, kind = table.column_names.index(column), table.schema.field(column).type
    wrong = table.set_column(place, column, pa.array(change(table.column(column).to_pylist()), kind))
    assert problem in str(problem_with_packed(wrong, shard))
    assert first_difference(table, wrong) is not None
    wider = table.set_column(place, column, table.column(column).cast("binary" if kind == pa.string() else "float"))
    assert "columns are" in str(problem_with_packed(wider, shard))
    assert first_difference(table, wider) == "columns differ"
    nested = table.append_column("nested", pa.array([[1]] * len(table)))
    assert "has a type that is none of" in str(problem_with_packed(nested, shard))


@pytest.mark.parametrize(("file", "reason"), [(PART, "index"), (ROWS, "rows")])
def test_a_few_bytes_that_would_be_many_rows_are_not_decoded(broken: Path, file: str, reason: str) -> None:
    row = pa.parquet.read_table(broken / ROWS).slice(0, 1)
    pa.parquet.write_table(row.take(np.zeros(30_000, np.int64)), broken / file)
    told = {(one.reason, one.message) for one in ss.verify(broken).findings if one.file == file}
    size = (broken / file).stat().st_size
    assert told == {(reason, f"30000 rows cannot be in {size} bytes, as each has a hash of its own")}


def test_a_sample_is_two_plain_files_and_nothing_behind_them(whole: Path) -> None:
    row = middle_row(whole)
    data = (whole / SHARD).read_bytes()[row.offset : row.offset + row.size]
    assert row_of(data, SHARD, row.offset).key == row.key
    link = tarfile.TarInfo("link.flac")
    link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
    for other, complaint in ((data + member("more.txt", b""), "expected KEY.CODEC"), (link.tobuf() + data, "plain")):
        with pytest.raises(SampleError, match=complaint) as error:
            row_of(other, SHARD, row.offset)
        assert error.value.reason == "tar"


def test_a_hash_that_comes_twice_is_found_whatever_it_begins_with() -> None:
    hashes = np.arange(16, dtype=np.uint64) << np.uint64(60)
    once = hashes + np.uint64(1)
    assert _repeated([hashes, np.concatenate([once, hashes[::-1]])]).tolist() == hashes.tolist()


def test_a_store_that_cannot_be_reached_is_no_damaged_file() -> None:
    """Though the error for it is a ValueError, as many are that Arrow raises."""
    with pytest.raises(UsageError, match=r"^no store can be reached$"), arrow_errors(DamagedFile):
        raise UsageError("no store can be reached")


def test_members_are_where_the_helpers_say(whole: Path) -> None:
    row = middle_row(whole)
    audio, header = members(whole, row)
    content = (whole / SHARD).read_bytes()
    assert content[audio : audio + 4] == b"fLaC"
    assert content[header:].startswith(f"{row.key}.json".encode())
