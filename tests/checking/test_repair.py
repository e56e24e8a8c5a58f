"""`repair`: exactly the damaged samples are gone, and nothing else has changed."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from damage import (
    Row,
    bad_sectors,
    batches_of,
    flip_audio,
    flip_first_header,
    flip_json,
    flip_second_header,
    found,
    pack_clips,
    remove_part,
    rename_sample,
    rows_of,
    without,
    zero_a_disk_block,
)
from damage_to_files import (
    ON_FILES,
    SHARD,
    cut,
    garbage_left_out,
    in_manifest,
    middle_row,
    no_manifest,
    of_another_shard,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tars import files_below

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.shards.layout import MANIFEST, QUALITY_COLUMNS, SHARDS_PER_PART


def samples_of(folder: Path) -> list[tuple[str, bytes]]:
    """Key and bytes of every sample in the order of the set."""
    tars = {path.name: path.read_bytes() for path in folder.glob("*.tar")}
    return [(row.key, tars[row.shard][row.offset : row.offset + row.size]) for row in rows_of(folder)]


def left_out(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "left_out.jsonl").read_text().splitlines()]


def check(whole: Path, out: Path, lost: set[str], *, index_is_lost: bool = False) -> None:
    """A sound set of all samples but those that are lost."""
    report = ss.verify(out, full=True)
    assert report.is_sound, report.findings
    assert samples_of(out) == [(key, data) for key, data in samples_of(whole) if key not in lost]
    before, after = ss.open_shards(whole).table(), ss.open_shards(out).table()
    kept = [number for number, key in enumerate(before.column("key").to_pylist()) if key not in lost]
    untouched = [name for name in before.column_names if name != "offset"]
    if index_is_lost:  # and with it what was measured of the sources
        untouched = [name for name in untouched if name not in QUALITY_COLUMNS]
    assert after.select(untouched).equals(before.take(kept).select(untouched).combine_chunks())
    assert {line["key"] for line in left_out(out)} == lost
    assert not [path for path in out.iterdir() if path.name.startswith(".") or path.name.endswith(".partial")]


@pytest.mark.parametrize(
    "damage",
    [flip_audio, flip_json, flip_first_header, flip_second_header, zero_a_disk_block],
    ids=lambda f: f.__name__,
)
def test_a_damaged_sample_is_found_and_left_out_and_no_other(
    whole: Path, broken: Path, tmp_path: Path, damage: Callable[[Path, Row], None]
) -> None:
    rows = rows_of(broken)
    hit = [rows[0], rows[9], rows[-1]]
    for row in hit:
        damage(broken, row)
    findings = ss.verify(broken, full=True).findings
    assert [(one.file, one.key, one.offset, one.size, one.reason) for one in findings] == [
        (row.shard, row.key, row.offset, row.size, "crc") for row in hit
    ]
    assert all("repair" in one.advice and "CRC-32C" in one.message for one in findings)
    before = files_below(broken)
    report = ss.repair(broken, tmp_path / "out")
    assert files_below(broken) == before
    assert (report.lost, report.num_lost, report.samples) == ({"crc": 3}, 3, len(rows) - 3)
    assert (report.shards_rewritten, report.shards_as_they_were, report.shards_lost) == (3, 1, [])
    check(whole, tmp_path / "out", {row.key for row in hit})
    assert [(line["key"], line["audio"], line["kind"], line["reason"]) for line in left_out(tmp_path / "out")] == [
        (row.key, row.shard, "damaged", "crc") for row in hit
    ]
    assert all(
        f"byte {row.offset}: CRC-32C" in line["message"]
        for row, line in zip(hit, left_out(tmp_path / "out"), strict=True)
    )
    manifest = json.loads((tmp_path / "out" / MANIFEST).read_bytes())
    assert manifest["counts"]["damaged"] == 3
    assert "corpus_hash" not in manifest
    stream = batches_of(tmp_path / "out")[0]
    assert sorted(row for _, rows in stream for row in rows) == sorted(
        row for _, rows in without(batches_of(whole)[0], {row.key for row in hit}) for row in rows
    )


LOST: dict[str, Callable[[list[Row]], list[Row]]] = {
    "cut": lambda rows: [row for row in rows if row.shard == SHARD][3:],
    "without_shard": lambda rows: [row for row in rows if row.shard == SHARD],
}
"""What damage to a file costs; damage to the others costs no sample."""


@pytest.mark.parametrize("damage", ON_FILES, ids=lambda f: f.__name__)
def test_damage_to_a_file_is_found_in_that_file_and_costs_no_more_than_it_must(
    whole: Path, broken: Path, tmp_path: Path, damage: Callable[[Path], None]
) -> None:
    damage(broken)
    for full in (False, True):
        findings = ss.verify(broken, full).findings
        assert {(one.file, one.reason) for one in findings} == ON_FILES[damage][full]
        assert all(one.message and one.advice and "\n" not in str(one) for one in findings)
    report = ss.repair(broken, tmp_path / "out")
    lost = {row.key for row in LOST.get(damage.__name__, lambda rows: [])(rows_of(whole))}
    assert {one.key for one in findings if one.reason == "truncated"} == (lost if damage is cut else set())
    assert report.num_lost == len(lost)
    if damage.__name__ == "left_out_with_one_more":
        assert [line["key"] for line in left_out(tmp_path / "out")] == ["a"]
        (tmp_path / "out" / "left_out.jsonl").write_text("")
        in_manifest("counts", json.loads((whole / MANIFEST).read_bytes())["counts"])(tmp_path / "out")
    check(whole, tmp_path / "out", lost)
    before, after = ss.open_shards(whole), ss.open_shards(tmp_path / "out")
    assert (before.fingerprint == after.fingerprint) == (not lost)
    if not lost:  # a running job goes on with the repaired set
        assert batches_of(whole)[0] == batches_of(tmp_path / "out")[0]


def test_an_index_that_is_lost_is_made_from_the_tars(whole: Path, broken: Path, tmp_path: Path) -> None:
    shutil.rmtree(broken / "index")
    for path in [*broken.glob("*.parquet"), *broken.glob("*.idx")]:
        path.unlink()
    assert ss.repair(broken, tmp_path / "out").num_lost == 0
    check(whole, tmp_path / "out", set(), index_is_lost=True)
    assert samples_of(tmp_path / "out") == samples_of(whole)
    # of a shard without index whose SHA-256 has changed, nothing says which samples are sound
    path = broken / SHARD
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    report = ss.repair(broken, tmp_path / "second")
    in_it = [row.key for row in rows_of(whole) if row.shard == SHARD]
    assert (report.lost, report.shards_lost) == ({"index_lost": len(in_it)}, [SHARD])
    assert samples_of(tmp_path / "second") == [one for one in samples_of(whole) if one[0] not in in_it]
    assert f"it held {len(in_it)} samples" in left_out(tmp_path / "second")[0]["message"]
    assert ss.verify(tmp_path / "second", full=True).is_sound


@settings(
    max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None
)
@given(st.data())
def test_one_changed_byte_anywhere_costs_at_most_its_sample(whole: Path, tmp_path: Path, data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(sorted(one.relative_to(whole).as_posix() for one in whole.rglob("*.*[a-z]"))))
    content = (whole / name).read_bytes()
    at = data.draw(st.integers(0, max(len(content) - 1, 0)))
    changed = content[:at] + bytes([data.draw(st.integers(0, 255))]) + content[at + 1 :]
    if re.search(rb'"format_version": [2-9]', changed):
        return  # a set of the future is refused
    for folder in ("set", "out"):
        shutil.rmtree(tmp_path / folder, ignore_errors=True)
    shutil.copytree(whole, tmp_path / "set", copy_function=os.link)
    (tmp_path / "set" / name).unlink()
    (tmp_path / "set" / name).write_bytes(changed)
    ss.repair(tmp_path / "set", tmp_path / "out")
    owner = {
        row.key
        for row in rows_of(whole)
        if (row.shard, changed != content) == (name, True) and row.offset <= at < row.offset + row.size
    }
    check(whole, tmp_path / "out", owner)


def test_everything_at_once(whole: Path, broken: Path, tmp_path: Path) -> None:
    rows = rows_of(whole)
    cut(broken)
    flip_json(broken, rows[0])
    (broken / "set-000002.tar").unlink()
    remove_part(broken)
    no_manifest(broken)
    report = ss.repair(broken, tmp_path / "out")
    lost = [rows[0], *[row for row in rows if row.shard == SHARD][3:]]
    lost += [row for row in rows if row.shard == "set-000002.tar"]
    assert report.shards_lost == ["set-000002.tar"]
    assert set(report.lost) == {"crc", "truncated", "missing"}
    check(whole, tmp_path / "out", {row.key for row in lost})


def test_a_shard_in_the_place_of_another(whole: Path, broken: Path, tmp_path: Path) -> None:
    of_another_shard(broken)
    lost = {row.key for row in rows_of(whole) if row.shard == SHARD}
    assert not ss.verify(broken).is_sound
    assert {one.key for one in ss.verify(broken, full=True).findings if one.key} == lost
    ss.repair(broken, tmp_path / "out")
    check(whole, tmp_path / "out", lost)


@pytest.mark.parametrize("without_index", [False, True])
def test_of_a_key_that_stands_twice_the_first_sample_stays(broken: Path, tmp_path: Path, without_index: bool) -> None:
    """Two whole, sound shards with one key between them: every checksum is right."""
    other, own = next(row.key for row in rows_of(broken) if row.shard == "set-000000.tar"), middle_row(broken)
    rename_sample(broken, own, other)
    for full in (False, True):
        (one,) = ss.verify(broken, full).findings
        assert (one.file, one.key, one.offset, one.reason) == (SHARD, other, own.offset, "duplicate_key")
        assert "set-000000.tar" in one.message
    expected = samples_of(broken)
    if without_index:
        shutil.rmtree(broken / "index")
        for path in broken.glob("*.parquet"):
            path.unlink()
    report = ss.repair(broken, tmp_path / "out")
    assert report.lost == {"duplicate_key": 1}
    assert ss.verify(tmp_path / "out", full=True).is_sound
    second = max(number for number, (key, _) in enumerate(expected) if key == other)
    assert samples_of(tmp_path / "out") == expected[:second] + expected[second + 1 :]


def test_what_was_left_out_before_stays_listed(whole: Path, broken: Path, tmp_path: Path) -> None:
    flip_audio(broken, rows_of(broken)[4])
    assert ss.repair(broken, tmp_path / "out").num_lost == 1
    flip_audio(tmp_path / "out", rows_of(tmp_path / "out")[-1])  # a rewritten or a linked shard: both are ours to hurt
    ss.repair(tmp_path / "out", tmp_path / "again")
    check(whole, tmp_path / "again", {rows_of(whole)[4].key, rows_of(whole)[-1].key})


def test_sound_shards_take_no_space_on_the_same_disk(whole: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(whole, tmp_path / "set")
    flip_audio(broken, middle_row(broken))
    ss.repair(broken, tmp_path / "out")
    for path in broken.glob("*.tar"):
        assert path.samefile(tmp_path / "out" / path.name) == (path.name != SHARD)
    check(whole, tmp_path / "out", {middle_row(whole).key})


def test_bad_sectors_cost_their_samples(
    whole: Path, broken: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = middle_row(broken)
    bad_sectors(monkeypatch, broken, row)
    assert found(ss.verify(broken, full=True)) == [(SHARD, row.key, "unreadable")]
    assert ss.repair(broken, tmp_path / "out").lost == {"unreadable": 1}
    check(whole, tmp_path / "out", {row.key})
    bad_sectors(monkeypatch, broken, row, error=errno.EACCES)  # says nothing about the data
    for look in (lambda: ss.verify(broken, full=True), lambda: ss.repair(broken, tmp_path / "second")):
        with pytest.raises(ShardError, match="Permission denied"):
            look()
    assert not (tmp_path / "second" / MANIFEST).exists()


def test_nothing_is_left(broken: Path, tmp_path: Path) -> None:
    for row in rows_of(broken):
        flip_audio(broken, row)
    with pytest.raises(ShardError, match="not one sound sample"):
        ss.repair(broken, tmp_path / "out")
    assert not (tmp_path / "out" / MANIFEST).exists()


def test_out_must_be_empty_and_the_set_is_never_changed(whole: Path, broken: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    places = [(broken, "a set"), (whole, "a set"), (tmp_path / "other", "other files, such as file")]
    for name in (SHARD, "notes.txt"):  # not left by a repair; beside what a repair has left
        (tmp_path / name).mkdir()
        (tmp_path / name / name).write_text("mine")
        places.append((tmp_path / name, f"other files, such as {name}"))
    (tmp_path / "notes.txt/.packing.json").touch()
    for out, holds in places:
        with pytest.raises(UsageError, match=f"holds {holds}"):
            ss.repair(broken, out)
        assert all((out / out.name).read_text() == "mine" for out, _ in places[3:])
    with pytest.raises(UsageError, match="num_workers is -1"):
        ss.repair(broken, tmp_path / "out", num_workers=-1)
    with pytest.raises(UsageError, match="no shard set here"):
        ss.repair(tmp_path / "other", tmp_path / "out")


def test_a_repair_that_was_killed_is_begun_anew(whole: Path, broken: Path, tmp_path: Path) -> None:
    """Killed for real, in a process of its own, after two shards."""
    flip_audio(broken, rows_of(broken)[0])
    out = tmp_path / "out"
    program = f"""
import os, s3prl_stream as ss
ss.repair({str(broken)!r}, {str(out)!r}, progress=lambda step, done, total: done == 2 and os.kill(os.getpid(), 9))
"""
    assert subprocess.run([sys.executable, "-c", program]).returncode == -signal.SIGKILL
    assert (out / SHARD).exists()
    with pytest.raises(UsageError, match="never finished"):
        ss.verify(out)
    with pytest.raises(UsageError, match="holds other files"):  # not taken for what a killed pack has left
        ss.pack([ss.Utterance("key", whole / "no.flac")], out)
    (out / ".repairing/set-000099.tar.parquet.partial").touch()
    ss.repair(broken, out)
    check(whole, out, {rows_of(whole)[0].key})
    (out / "file").write_text("mine")
    (out / ".repairing").mkdir()  # as a kill after the last file leaves it
    (out / ".packing.json").touch()
    with pytest.raises(UsageError, match="holds a set"):
        ss.repair(broken, out)
    assert {path.name for path in out.iterdir() if path.name.startswith(".")} == set()
    assert (out / "file").read_text() == "mine"


def test_two_repairs_into_one_folder(broken: Path, tmp_path: Path) -> None:
    """The second would remove what the first has written."""
    complaints = []

    def again(*_: object) -> None:
        with pytest.raises(ss.StateError) as complaint:
            ss.repair(broken, tmp_path / "out")
        complaints.append(str(complaint.value))

    report = ss.repair(broken, tmp_path / "out", progress=again)
    assert report.samples
    assert complaints
    assert all(one.startswith(f"{tmp_path / 'out'}: process {os.getpid()} of ") for one in complaints)
    assert ss.verify(tmp_path / "out", full=True).is_sound


def test_neither_findings_nor_the_result_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    pack_clips(tmp_path / "set", shard_mb=0.012)
    rows = rows_of(tmp_path / "set")
    for row in rows[::5]:
        flip_audio(tmp_path / "set", row)
    (tmp_path / "set/set-000018.tar").unlink()
    remove_part(tmp_path / "set")
    seen: list[tuple[str, int, int]] = []
    one = ss.verify(tmp_path / "set", full=True)
    assert ss.verify(tmp_path / "set", True, num_workers=2, progress=lambda *step: seen.append(step)) == one
    assert len(one.findings) == 7
    assert seen == [("checking", done, one.shards) for done in range(1, one.shards + 1)]
    assert ss.verify(tmp_path / "set", num_workers=2) == ss.verify(tmp_path / "set")
    ss.repair(tmp_path / "set", tmp_path / "one")
    report = ss.repair(tmp_path / "set", tmp_path / "two", num_workers=2, progress=lambda *step: seen.append(step))
    assert files_below(tmp_path / "one") == files_below(tmp_path / "two")
    total = len({row.shard for row in rows})
    assert [one for one in seen if one[0] == "repairing"] == [("repairing", n, total) for n in range(1, total + 1)]
    kept = report.shards_as_they_were + report.shards_rewritten
    assert (kept + len(report.shards_lost), seen[-1]) == (total, ("indexing", kept, kept))
    assert SHARDS_PER_PART < kept < 2 * SHARDS_PER_PART
    assert ss.verify(tmp_path / "two", full=True).is_sound


def test_the_command_says_what_is_lost(broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: str) -> tuple[int, str]:
        return main(["repair", str(broken), *words, "--workers", "0"]), capsys.readouterr().out

    garbage_left_out(broken)
    status, shown = run(str(tmp_path / "a"))
    assert (status, shown.splitlines()[-1]) == (0, "no sample was lost; index and manifest are new")
    row = middle_row(broken)
    flip_audio(broken, row)
    without_shard_names = [row.key for row in rows_of(broken) if row.shard == "set-000000.tar"]
    (broken / "set-000000.tar").unlink()
    status, shown = run(str(tmp_path / "b"))
    assert status == 1
    assert f"lost: {len(without_shard_names) + 1} samples (1 crc, {len(without_shard_names)} missing)" in shown
    assert f"  {SHARD}: {row.key}: byte {row.offset}: CRC-32C" in shown
    status, shown = run(str(tmp_path / "c"), "--json")
    facts = json.loads(shown)
    assert (status, facts["lost"]["missing"], facts["shards_lost"]) == (1, len(without_shard_names), ["set-000000.tar"])
    assert run(str(tmp_path / "c"))[0] == 2
