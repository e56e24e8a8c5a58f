"""Tars in an object store or on a web server, indexed by ranged reads of their headers, and streamed from there."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from apart import in_child
from chaos.obstore_client import obstore_process
from chaos.ranged_server import served
from integration.servers import Rgw
from made_elsewhere import WRITERS, some_clips
from streams import delivered
from tars import clip, files_below, offsets, tar

import s3prl_stream as ss
from s3prl_stream.chaos import Cut, Unavailable
from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.indexing.foreign import index_tars
from s3prl_stream.stores.store import open_store

NUM_TARS, NUM_CLIPS, FRAMES = 2, 20, 60_000


def make_tars(folder: Path, with_offsets: bool = False) -> Path:
    """120 kB of sound a clip, the small file behind it."""
    folder.mkdir()
    for shard in range(NUM_TARS):
        members = [clip(f"k{shard}{number:02d}", FRAMES + number, text=f"t{number}") for number in range(NUM_CLIPS)]
        path = folder / f"x-{shard}.tar"
        path.write_bytes(tar(one for pair in members for one in pair))
        if with_offsets:
            sizes = [sum(512 + -(-len(content) // 512) * 512 for _, content in pair) for pair in members]
            offsets(path, [sum(sizes[:number]) for number in range(NUM_CLIPS)], path.stat().st_size)
    return folder


def epoch(shards: Any, num_workers: int = 0) -> list[Any]:
    stream = ss.ShardStream(shards, epochs=1, max_batch_seconds=20.0, run=2).load_audio(dtype="int16")
    return [delivered(batch) for batch in ss.Loader(stream, num_workers=num_workers)]


@in_child
def test_headers_only_and_the_same_set_as_from_the_disk(tmp_path: Path) -> None:
    local = ss.index_shards(make_tars(tmp_path / "tars"), tmp_path / "a", name="s")
    with served(tmp_path / "tars") as (url, proxy, _):
        remote = ss.index_shards(f"{url}/x-{{0..1}}.tar", tmp_path / "b", name="s")
        gets = [one for one in proxy.requests if one.method == "GET" and one.status == 206]
        read = sum(one.bytes_sent for one in gets)
        assert read < 0.35 * local.members[0].num_bytes, read  # of clips of 120 kB; 32 kB a clip
        assert len(gets) <= NUM_TARS * (NUM_CLIPS + 2)  # one request a clip
        assert remote.table().equals(local.table())
        assert remote.fingerprint == local.fingerprint
        assert remote.is_remote
        assert epoch(remote) == epoch(local)


@in_child
def test_empty_clips_and_an_empty_tar_on_a_server_without_head(tmp_path: Path) -> None:
    """The first clip and the last of a tar have no bytes."""
    (tmp_path / "tars").mkdir()
    for codec in ("flac", "opus"):
        one, other = clip("b", 3000, codec), [(f"{key}.{codec}", b"") for key in "ac"]
        (tmp_path / f"tars/{codec}.tar").write_bytes(tar([other[0], *one, other[1]]))
    (tmp_path / "tars/z.tar").touch()
    local = ss.index_shards(tmp_path / "tars", tmp_path / "a", name="s", prefix_keys=True)
    with served(tmp_path / "tars") as (url, _, server):
        for server.head_status, server.sends_empty_whole in ((405, True), (405, False), (None, True)):
            out = tmp_path / f"{server.head_status}{server.sends_empty_whole}"
            remote = ss.index_shards(f"{url}/{{flac,opus,z}}.tar", out, name="s", prefix_keys=True)
            assert epoch(remote) == epoch(local)
            reasons = [json.loads(line)["reason"] for line in (out / "left_out.jsonl").read_text().splitlines()]
            assert reasons == ["empty"] * 4 + ["not_a_tar"]


@in_child
def test_offsets_say_what_to_fetch_ahead(tmp_path: Path) -> None:
    local = ss.index_shards(make_tars(tmp_path / "tars", with_offsets=True), tmp_path / "a", name="s")
    with served(tmp_path / "tars") as (url, proxy, _):
        remote = ss.index_shards(f"{url}/x-{{0..1}}.tar", tmp_path / "b", name="s")
        gets = [one for one in proxy.requests if one.method == "GET" and one.status == 206]
        assert len(gets) <= NUM_TARS * (NUM_CLIPS + 2), [one.range for one in gets]  # nothing twice
        assert sum(one.bytes_sent for one in gets) < 0.7 * local.members[0].num_bytes
        assert remote.table().equals(local.table())


@in_child
def test_faults_of_the_store_change_nothing(tmp_path: Path) -> None:
    local = ss.index_shards(make_tars(tmp_path / "tars"), tmp_path / "a", name="s", full=True)
    with served(tmp_path / "tars", [Unavailable(), Cut(5000), None] * 40) as (url, _, server):
        remote = ss.index_shards(f"{url}/x-{{0..1}}.tar", tmp_path / "b", name="s", full=True)
        assert remote.fingerprint == local.fingerprint
        assert epoch(remote) == epoch(local)
        server.objects["/set/x-1.tar"] = server.objects["/set/x-1.tar"][:-1] + b"x"
        with pytest.raises(ShardError, match="changed since it was first read"):
            epoch(remote)
        del server.objects["/set/x-0.tar"], server.objects["/set/x-1.tar"]
        with pytest.raises(UsageError, match=r"none of 1 tars can be indexed.*no such file"):
            ss.index_shards(f"{url}/x-0.tar", tmp_path / "c")


@in_child
def test_in_order_over_http(tmp_path: Path) -> None:
    with served(make_tars(tmp_path / "tars")) as (url, _, __):
        with pytest.warns(UserWarning, match="without resume"):
            stream = ss.SequentialTars(f"{url}/x-{{0..1}}.tar")
        keys = [f"k{shard}{number:02d}" for shard in range(NUM_TARS) for number in range(NUM_CLIPS)]
        assert [sample["key"] for sample in stream] == keys


def test_what_a_web_server_cannot_do(tmp_path: Path) -> None:
    for tars, match in (
        ("http://127.0.0.1:9/set/x.tar", "takes no files"),
        ("http://127.0.0.1:9/set/*.tar", "does not list"),
        ("http://127.0.0.1:9/set", "does not list"),
        ("http://me:secret@127.0.0.1:9/x.tar", "has a query or a password"),
        ("http://127.0.0.1:9/x.tar?token=secret", "has a query or a password"),
        (["http://127.0.0.1:9/x.tar", "http://127.0.0.1:8/x.tar"], "several stores"),
        (["http://127.0.0.1:9/x.tar", "y.tar"], "a disk and of a store"),
        ("ftp://host/x.tar", "unknown kind of store"),
    ):
        with pytest.raises(UsageError, match=match) as caught:
            index_tars(tars)
        assert "secret@" not in str(caught.value)
        assert "=secret" not in str(caught.value)


@in_child
def test_a_manifest_from_elsewhere_points_to_no_folder_of_this_machine(tmp_path: Path) -> None:
    ss.index_shards(make_tars(tmp_path / "tars"), tmp_path / "index")
    with served(tmp_path / "index") as (url, _, __), pytest.raises(ShardError, match="a folder of this machine"):
        ss.open_shards(url)


# ---- a real object store ----------------------------------------------------------------------


def index_in_store(environment: dict[str, str], folder: Path, url: str, out: Path) -> tuple[Any, ...]:
    """Upload tars, index them beside, elsewhere and by stars, in a process of its own; what each set holds."""
    os.environ.update(environment)
    store = open_store(url)
    for path in folder.iterdir():
        store.upload(path, f"deep/{path.name}")
    beside = ss.index_shards(f"{url}/deep", name="s")
    elsewhere = ss.index_shards(f"{url}/deep/x-*.tar", out, name="s", num_workers=2)
    moved = ss.index_shards(f"{url}/*/x-{{0,1}}.tar", f"{url}/index", name="s")
    again = ss.index_shards(f"{url}/deep", name="s")
    files = sorted(name for name, _ in store.list("deep/"))
    return (
        [one.fingerprint for one in (beside, elsewhere, again)],
        [epoch(beside), epoch(elsewhere, 2), epoch(moved)],
        files,
    )


@pytest.mark.slow
def test_beside_the_tars_in_a_real_store(rgw: Rgw, tmp_path: Path) -> None:
    local = ss.index_shards(make_tars(tmp_path / "tars"), tmp_path / "a", name="s")
    with obstore_process() as process:
        prints, epochs, files = process(
            index_in_store, rgw.environment(), tmp_path / "tars", "s3://test/foreign", tmp_path / "b"
        )
    assert prints == [local.fingerprint] * 3
    assert epochs[:2] == [epoch(local)] * 2  # without workers, and with two
    assert len(epochs[2]) == len(epochs[0])
    tars = [f"x-{number}.tar" for number in range(NUM_TARS)]
    sidecars = [f"{name}{suffix}" for name in tars for suffix in ("", ".idx", ".parquet")]
    assert files == sorted(
        f"deep/{name}" for name in (*sidecars, "manifest.json", "left_out.jsonl", "index/part-00000.parquet")
    )


@pytest.mark.slow
@in_child
def test_folders_of_nemo_energon_and_lhotse_in_a_bucket(
    tmp_path: Path, sample_set: Path, rgw: Rgw, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgw.set_environment(monkeypatch)
    clips = some_clips(sample_set)
    for kind in ("nemo", "energon", "shar"):
        WRITERS[kind](tmp_path / kind, clips)
        store = open_store(f"s3://test/your-shards/{kind}")
        for name in files_below(tmp_path / kind):
            store.upload(tmp_path / kind / name, name)
        local = ss.index_shards(tmp_path / kind, name=kind)
        remote = ss.index_shards(f"s3://test/your-shards/{kind}", name=kind)
        assert remote.table().equals(local.table())
        assert len(remote) == len(clips)
        assert epoch(remote) == epoch(local)
