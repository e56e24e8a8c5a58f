"""Packing into an object store: the bytes of the local set, the manifest last, nobody's files touched."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from apart import in_child
from tars import noise_files

import s3prl_stream as ss
from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.stores.object_store import ObjectStore
from s3prl_stream.stores.store import open_store


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 recordings of half a second."""
    return noise_files(tmp_path_factory.mktemp("recordings"), 30, 8000)


def pack(recordings: Path, out: str | Path, **settings: Any) -> ss.ShardSet:
    return ss.pack(ss.corpora.folder(recordings), out, **{"shard_mb": 0.02, **settings})


def files(url: str | Path) -> dict[str, bytes]:
    store = open_store(url)
    return {name: store.read_whole(name, at_most=1 << 20) for name, _ in store.list()}


@in_child
def test_a_set_in_a_store_is_the_local_one_byte_for_byte(recordings: Path, tmp_path: Path) -> None:
    local = pack(recordings, tmp_path / "speech")
    assert local.num_shards > 16  # more than one index part
    tempfile.tempdir = str(tmp_path)
    remote = pack(recordings, "memory:///corpora/speech")
    assert remote.fingerprint == local.fingerprint
    assert files("memory:///corpora/speech") == files(tmp_path / "speech")
    assert [path.name for path in tmp_path.iterdir()] == ["speech"]  # no scratch is left
    before = open_store("memory:///corpora/speech").list()
    assert len(pack(recordings, "memory:///corpora/speech")) == 30  # this very set: nothing is done
    assert open_store("memory:///corpora/speech").list() == before
    with pytest.raises(UsageError, match=r"memory:///corpora/speech holds another set: it was packed with seed=0"):
        pack(recordings, "memory:///corpora/speech", seed=1)
    assert [sample["key"] for sample in ss.ShardStream(remote, epochs=1, run=1)] == [
        sample["key"] for sample in ss.ShardStream(local, epochs=1)
    ]


@in_child
def test_the_manifest_comes_last_and_a_pack_that_failed_goes_on(recordings: Path, tmp_path: Path) -> None:
    written: list[str] = []
    upload, write = ObjectStore.upload, ObjectStore.write

    def failing(self: ObjectStore, path: Path, name: str) -> None:
        if name == "speech-000004.tar":
            raise ShardError("the store is full")
        written.append(name)
        upload(self, path, name)

    def noted(self: ObjectStore, name: str, content: bytes) -> None:
        written.append(name)
        write(self, name, content)

    ObjectStore.upload, ObjectStore.write = failing, noted  # type: ignore[method-assign]
    try:
        with pytest.raises(ShardError, match="the store is full"):
            pack(recordings, "memory:///killed/speech")
        assert "speech-000003.tar" in written
        before = list(written)
        with pytest.raises(UsageError, match="no shard set here"):
            ss.open_shards("memory:///killed/speech")
        store = open_store("memory:///killed/speech")
        write(store, "notes.txt", b"the user's own")  # type: ignore[arg-type]
        ObjectStore.upload = lambda self, path, name: (written.append(name), upload(self, path, name))[1]  # type: ignore[method-assign]
        written.clear()
        pack(recordings, "memory:///killed/speech")
        assert not [name for name in written if name in before and name.endswith(".tar")]
        assert written[-3:] == ["left_out.jsonl", "report.json", "manifest.json"]
    finally:
        ObjectStore.upload, ObjectStore.write = upload, write  # type: ignore[method-assign]
    pack(recordings, tmp_path / "speech")
    assert files("memory:///killed/speech") == {**files(tmp_path / "speech"), "notes.txt": b"the user's own"}


@in_child
def test_nobodys_files_are_touched(recordings: Path) -> None:
    ObjectStore("memory:///full").write("other/file", b"mine")
    with pytest.raises(UsageError, match=r"memory:///full holds other files, such as other/file"):
        pack(recordings, "memory:///full")
    assert files("memory:///full") == {"other/file": b"mine"}
    with pytest.raises(UsageError, match="a web server takes no files"):
        pack(recordings, "http://127.0.0.1:9/set")


@in_child
def test_the_command_line_packs_and_inspects_urls(recordings: Path, tmp_path: Path) -> None:
    from contextlib import redirect_stdout
    from io import StringIO

    from s3prl_stream.cli import main

    def run(*words: str) -> dict[str, Any]:
        with redirect_stdout(StringIO()) as out:
            assert main([*words, "--json"]) == 0
        return json.loads(out.getvalue().splitlines()[0])

    url = "memory:///by-command/speech"
    packed = run("pack", "folder", str(recordings), url, "--workers", "0", "--shard-mb", "0.1")
    assert (packed["out"], packed["samples"]) == (url, 30)
    assert run("inspect", url)["samples"] == 30
    assert run("plan", url)["clips_selected"] == 30
    assert run("which", url, "--batch", "0")["set"] == "speech"
    assert run("verify", url, "--workers", "0", "--full")["findings"] == []
