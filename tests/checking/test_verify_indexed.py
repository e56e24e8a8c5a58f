"""`verify` on tars made elsewhere and indexed where they lie."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from damage import Row, flip, found, remove_part, rows_of
from tars import clip, encoded, tar

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import UsageError
from s3prl_stream.shards.layout import MANIFEST, part_name

TAR = "b.tar"


def write_tars(folder: Path) -> Path:
    """Three tars, one with a stray file between its samples and a broken clip."""
    folder.mkdir(parents=True)
    for name in ("a", "b", "c"):
        members = [one for number in range(6) for one in clip(f"{name}/{number}", 900 + 50 * number, "flac", n=number)]
        members[4:4] = [("notes.md", b"between"), (f"{name}/empty.flac", b"")]
        (folder / f"{name}.tar").write_bytes(tar(members))
    return folder


@pytest.fixture(scope="module", params=[False, True], ids=["headers", "checksums"])
def whole(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undamaged set, indexed by headers alone or with checksums."""
    folder = write_tars(tmp_path_factory.mktemp("indexed") / "set")
    ss.index_shards(folder, full=request.param)
    return folder


def with_checksums(folder: Path) -> bool:
    return bool(json.loads((folder / MANIFEST).read_bytes())["indexed"]["full"])


def of_tar(folder: Path) -> list[Row]:
    return [row for row in rows_of(folder) if row.shard == TAR]


@pytest.mark.parametrize("full", [False, True])
def test_a_sound_set_has_no_findings(whole: Path, full: bool) -> None:
    steps: list[tuple[str, int, int]] = []
    report = ss.verify(whole, full, progress=lambda *step: steps.append(step))
    assert report.findings == []
    assert (report.shards, report.samples) == (3, 18)
    assert report.num_bytes == sum(path.stat().st_size for path in whole.glob("*.tar"))
    assert steps == [("checking", done, 3) for done in (1, 2, 3)]


def test_an_index_elsewhere_with_prefixed_keys(tmp_path: Path) -> None:
    tars = write_tars(tmp_path / "tars")
    shards = ss.index_shards(tars, tmp_path / "index", prefix_keys=True)
    assert ss.verify(shards, full=True).findings == []
    row = rows_of(tmp_path / "index")[8]
    flip(tars / row.shard, row.offset + 130)
    assert found(ss.verify(tmp_path / "index", full=True)) == [(row.shard, row.key, "tar")]


def test_full_finds_what_a_stream_loses(broken: Path) -> None:
    rows = of_tar(broken)
    flip(broken / TAR, rows[1].offset + 512 + 400)  # audio
    flip(broken / TAR, rows[3].offset + 130)  # tar header
    report = ss.verify(broken, full=True)
    stream = ss.ShardStream(broken, epochs=1).load_audio()
    list(stream)
    damaged = {(one["shard"], one["key"], one["reason"]) for one in stream.source.damaged}
    assert set(found(report)) == damaged
    assert [(one.key, one.offset, one.size) for one in report.findings] == [
        (row.key, row.offset, row.size) for row in (rows[1], rows[3])
    ]
    assert ss.verify(broken, full=True, num_workers=1) == report
    reasons = [one.reason for one in report.findings]
    assert reasons == (["crc", "crc"] if with_checksums(broken) else ["decode", "tar"])
    assert all("s3prl-stream index" in one.advice and "repair" not in one.advice for one in report.findings)
    assert ss.verify(broken).is_sound


def test_quick_reads_the_ends_and_compares_sizes(broken: Path) -> None:
    rows = of_tar(broken)
    flip(broken / TAR, rows[0].offset + 130)
    os.truncate(broken / TAR, rows[-1].offset + 600)
    (broken / "c.tar").unlink()
    quick = found(ss.verify(broken))
    assert quick == [
        (TAR, None, "size"),
        (TAR, rows[0].key, "crc" if with_checksums(broken) else "tar"),
        (TAR, rows[-1].key, "truncated"),
        ("c.tar", None, "missing"),
    ]
    assert found(ss.verify(broken, full=True)) == quick


def test_a_clip_of_another_length_is_found(broken: Path) -> None:
    """Every byte is sound; the tar is not the one that was indexed."""
    content = (broken / TAR).read_bytes()
    start = content.index(b"fLaC")
    size = len(encoded("flac", 900))
    other = next(one for frames in range(899, 800, -1) if len(one := encoded("flac", frames)) <= size)
    (broken / TAR).write_bytes(content[:start] + other + bytes(size - len(other)) + content[start + size :])
    ((file, key, reason),) = found(ss.verify(broken, full=True))
    assert (file, key) == (TAR, of_tar(broken)[0].key)
    assert reason == ("crc" if with_checksums(broken) else "differs")


def test_a_damaged_index_is_found_in_its_file(broken: Path) -> None:
    remove_part(broken)
    assert {(one[0], one[2]) for one in found(ss.verify(broken))} == {(part_name(0), "index")}
    (broken / f"{TAR}.idx").write_bytes(np.arange(7, dtype="<u8").tobytes())
    rows = pq.read_table(broken / f"{TAR}.parquet")
    pq.write_table(rows.slice(1), broken / f"{TAR}.parquet")
    assert {(one[0], one[2]) for one in found(ss.verify(broken))} == {
        (part_name(0), "index"),
        (f"{TAR}.parquet", "rows"),
    }
    shutil.copy(broken / "a.tar.parquet", broken / f"{TAR}.parquet")
    assert (f"{TAR}.parquet", None, "rows") in found(ss.verify(broken, full=True))


def test_wrong_offsets_are_found_where_they_are_ours(broken: Path) -> None:
    (broken / f"{TAR}.idx").write_bytes(np.arange(7, dtype="<u8").tobytes())
    assert found(ss.verify(broken)) == [(f"{TAR}.idx", None, "offsets")]


def test_repair_says_what_to_do_instead(broken: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UsageError, match="s3prl-stream index"):
        ss.repair(broken, tmp_path / "out")
    assert not (tmp_path / "out").exists()
    assert main(["verify", str(broken), "--full", "--workers", "0"]) == 0
    flip(broken / TAR, of_tar(broken)[2].offset + 600)
    assert main(["verify", str(broken), "--full", "--workers", "0"]) == 1
    assert "a stream leaves damaged samples out" in capsys.readouterr().out
