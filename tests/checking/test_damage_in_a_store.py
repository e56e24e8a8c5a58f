"""`verify` and `repair` where a set lies in an object store or behind a web server.

Each test runs in a child process: one that has used obstore must not fork.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from apart import in_child
from chaos.ranged_server import serving
from damage import batches_of, flip_audio, flip_json, pack_clips, remove_part, rows_of
from damage_to_files import cut, flip_the_end, middle_row, no_manifest, short_offsets, without_offsets, without_shard
from integration.servers import Rgw
from streams import delivered
from tars import clip, files_below, tar

import s3prl_stream as ss
from s3prl_stream.chaos import ChaosProxy, Cut, Unavailable
from s3prl_stream.checking import repair as repairing
from s3prl_stream.checking.verify import VerifyReport
from s3prl_stream.errors import MissingFile, ShardError, UsageError
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.stores.object_store import ObjectStore
from s3prl_stream.stores.store import open_store


def fresh_set(folder: Path) -> Path:
    pack_clips(folder / "set")
    return folder / "set"


def facts(report: VerifyReport) -> Any:
    """All but the place of the set, which messages of errors name."""
    findings = [one._replace(message="") for one in report.findings]
    return (*report._replace(url="", findings=[]), findings)


@pytest.mark.slow
@in_child
def test_a_web_server_is_verified_and_repaired_like_a_disk(tmp_path: Path) -> None:
    whole = fresh_set(tmp_path)
    broken = shutil.copytree(whole, tmp_path / "broken")
    flip_json(broken, rows_of(broken)[0])
    cut(broken)
    remove_part(broken)
    (broken / "set-000002.tar").unlink()
    with serving() as server:
        for folder in (whole, broken):
            server.put(folder)
            for full in (False, True):
                here, there = ss.verify(folder, full), ss.verify(f"{server.url}/set", full)
                assert facts(here) == facts(there)
                assert here.is_sound == (folder is whole)
        local = ss.repair(broken, tmp_path / "one")
        remote = ss.repair(f"{server.url}/set", tmp_path / "two", num_workers=1)
        assert remote._replace(url="", out="") == local._replace(url="", out="")
        assert files_below(tmp_path / "one") == files_below(tmp_path / "two")
        del server.objects["/set/manifest.json"]
        with pytest.raises(ShardError, match=r"manifest\.json is damaged \(missing\), and a web server does not list"):
            ss.verify(f"{server.url}/set")
        with pytest.raises(UsageError, match="takes no files"):
            ss.repair(broken, f"{server.url}/out")


@in_child
def test_a_store_that_is_away_is_no_damage(tmp_path: Path) -> None:
    """Neither is a faulty line."""
    whole = fresh_set(tmp_path)
    with serving() as server:
        server.put(whole)
        with ChaosProxy(server.url, [Unavailable(), Cut(), Unavailable(), None, Cut()] * 4) as proxy:
            assert ss.verify(f"{proxy.url}/set", full=True).is_sound
        for names in ("*.tar", "*.tar.parquet", "*.jsonl"):
            with ChaosProxy(server.url, f"503@{names}:1") as proxy:
                for action in (
                    lambda: ss.verify(f"{proxy.url}/set", full=True),
                    lambda: ss.repair(f"{proxy.url}/set", tmp_path / "out"),
                ):
                    with pytest.raises(ShardError, match="after 20 attempts"):
                        action()
    assert not (tmp_path / "out" / "manifest.json").exists()


@in_child
def test_a_set_in_a_store_is_verified_and_repaired_within_it(tmp_path: Path) -> None:
    """Through obstore, over a folder."""
    whole = fresh_set(tmp_path)
    for number, damage in enumerate((cut, flip_the_end, without_shard, short_offsets, remove_part, no_manifest)):
        folder = tmp_path / str(number)
        broken = shutil.copytree(whole, folder / "broken")
        damage(broken)
        expected = ss.repair(broken, folder / "local")
        (folder / "stored").mkdir()
        stored = ShardFolder(ObjectStore(whole.as_uri()))  # opened before the damage
        stored.store = ObjectStore(broken.as_uri())
        assert facts(ss.verify(stored, full=True)) == facts(ss.verify(broken, full=True)), damage
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(repairing, "open_store", lambda url: ObjectStore(Path(url).as_uri()))
            report = ss.repair(stored, folder / "stored")
        assert report._replace(url="", out="") == expected._replace(url="", out="")
        assert files_below(folder / "stored") == files_below(folder / "local")
        shutil.rmtree(folder)


@in_child
def test_a_file_that_is_lost_is_named_with_what_to_do(tmp_path: Path) -> None:
    """In a store rows are read from beside the tar, not from the index parts."""
    broken = fresh_set(tmp_path)
    folder = ShardFolder(ObjectStore(broken.as_uri()))
    for name in ("set-000001.tar", "set-000001.tar.parquet"):
        (broken / name).unlink()
    with pytest.raises(MissingFile, match=r"set-000001\.tar\.parquet: cannot be read \(not there\).*repair` makes it"):
        folder.rows(1)
    with pytest.raises(MissingFile, match=r"set-000001\.tar: cannot be read at byte 0 \(not there: .*\)\. Restore the"):
        folder.read_bytes("set-000001.tar", 0, 10, -1, "here")


@in_child
def test_tars_made_elsewhere_behind_a_web_server(tmp_path: Path) -> None:
    tars = tar([one for number in range(9) for one in clip(f"c{number}", 900 + 50 * number, "flac", n=number)])
    with serving() as server:
        server.objects["/set/a.tar"] = tars
        ss.index_shards(f"{server.url}/set/a.tar", tmp_path / "index")
        assert ss.verify(tmp_path / "index", full=True).is_sound
        row = rows_of(tmp_path / "index")[4]
        server.objects["/set/a.tar"] = tars[: row.offset + 130] + b"?" + tars[row.offset + 131 :]
        assert ss.verify(tmp_path / "index").is_sound
        (found,) = ss.verify(tmp_path / "index", full=True).findings
        assert (found.file, found.key, found.offset, found.reason) == ("a.tar", row.key, row.offset, "tar")
        del server.objects["/set/a.tar"]
        assert [one.reason for one in ss.verify(tmp_path / "index").findings] == ["missing"]


@pytest.mark.slow
@in_child
def test_a_set_in_a_bucket_is_repaired_into_the_bucket(tmp_path: Path, rgw: Rgw) -> None:
    """What is in the gateway, and what a stream gets from there, is what a repair on a disk gives."""
    os.environ.update(rgw.environment())
    broken = fresh_set(tmp_path)
    lost = {row.key for row in rows_of(broken) if row.shard == "set-000002.tar"} | {middle_row(broken).key}
    everything = batches_of(broken)[0]
    flip_audio(broken, middle_row(broken))
    without_offsets(broken)
    (broken / "set-000002.tar").unlink()
    local = ss.repair(broken, tmp_path / "local")
    folder = f"s3://{rgw.bucket}/{tmp_path.name}"
    bucket = open_store(f"{folder}/broken")
    for name, _ in open_store(broken).list():
        bucket.upload(broken / name, name)
    for full in (False, True):
        assert facts(ss.verify(f"{folder}/broken", full)) == facts(ss.verify(broken, full))
    report = ss.repair(f"{folder}/broken", f"{folder}/out", num_workers=2)
    assert report._replace(url="", out="") == local._replace(url="", out="")
    out = open_store(f"{folder}/out")
    assert {name: out.read_whole(name, at_most=1 << 30) for name, _ in out.list()} == files_below(tmp_path / "local")
    assert ss.verify(f"{folder}/out", full=True, num_workers=2).is_sound
    loader = ss.Loader(ss.ShardStream(f"{folder}/out", epochs=1, max_batch_seconds=3.0, run=1).load_audio())
    rows = [row for batch in loader for row in delivered(batch)[1]]
    assert sorted(rows) == sorted(row for _, rows in everything for row in rows if row[0] not in lost)
    with pytest.raises(UsageError, match="holds a set"):
        ss.repair(f"{folder}/broken", f"{folder}/out")
