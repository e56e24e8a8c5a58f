"""Stores: the same bytes wherever a set lies, and none of a file that was replaced under its reader."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import tempfile
import threading
from pathlib import Path

import pytest

from s3prl_stream.errors import MissingFile, ShardError, UsageError
from s3prl_stream.stores import local_store as stores
from s3prl_stream.stores.local_store import MAX_OPEN_FILES, LocalStore
from s3prl_stream.stores.store import is_remote, open_store

NOBODY = 65_534
CONTENT = bytes(range(256)) * 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "index").mkdir()
    (tmp_path / "a.tar").write_bytes(CONTENT)
    (tmp_path / "index/part").write_bytes(CONTENT[:100])
    (tmp_path / "b.tar.partial").write_bytes(b"half of it")
    return tmp_path


def test_a_url_is_told_from_a_path() -> None:
    for url in ("s3://bucket/set", "gs://b/x", "az://b/x", "http://h/x", "HTTPS://h/x"):
        assert is_remote(url)
    for path in ("set", "/data/set", "a:b/c", "file:///data/set", "FILE:///data/set", Path("s3/set")):
        assert not is_remote(path)
    assert open_store("file:///data/my%20set").url == "/data/my set"


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("ftp://host/set", "ftp://: unknown kind"),
        ("s3:///set", "no bucket"),
        ("s3://key:word@/set", r"^s3:///set: no bucket"),
        ("http://[x/set", "not a URL"),
    ],
)
def test_a_url_of_nothing_known_is_a_usage_error(url: str, found: str) -> None:
    with pytest.raises(UsageError, match=found):
        open_store(url)


def test_a_folder_is_read_by_name_and_position(folder: Path) -> None:
    store = open_store(folder)
    assert store.size("a.tar") == len(CONTENT)
    assert store.size("none.tar") is None
    assert store.read("a.tar", 100, 50) == CONTENT[100:150]
    assert store.read("a.tar", len(CONTENT) - 5, 50) == CONTENT[-5:]
    assert store.read_whole("index/part", at_most=100) == CONTENT[:100]
    assert store.list() == [("a.tar", len(CONTENT)), ("index/part", 100)]
    assert store.list("index/") == [("index/part", 100)]
    with pytest.raises(ShardError, match="100 bytes, expected at most 99"):
        store.read_whole("index/part", at_most=99)
    for read in (lambda: store.read("none", 0, 1), lambda: store.read_whole("none", at_most=1)):
        with pytest.raises(MissingFile, match=r"none: cannot be read.*No such file"):
            read()


def test_files_are_written_whole_and_removed(folder: Path) -> None:
    store = open_store(folder)
    store.write("new/file", b"one")
    assert store.read("new/file", 0, 3) == b"one"
    store.upload(folder / "a.tar", "new/file")  # what a store writes itself is no change behind its back
    assert store.read("new/file", 0, 3) == CONTENT[:3]
    store.delete("new/file")
    store.delete("new/file")
    assert store.size("new/file") is None
    open_store(folder).write("new/file", b"another's")  # of what it has removed itself a store holds nobody to anything
    assert store.read("new/file", 0, 9) == b"another's"
    store.delete("new/file")
    assert [path.name for path in (folder / "new").iterdir()] == []
    (folder / "new/file.partial").hardlink_to(folder / "a.tar")  # as a kill between a link and its renaming leaves it
    store.write("new/file", b"one")
    (folder / "new/file.partial").hardlink_to(folder / "a.tar")
    store.upload(folder / "a.tar", "new/file")
    assert [(folder / name).read_bytes() for name in ("a.tar", "new/file")] == [CONTENT] * 2


def test_of_several_that_create_a_file_one_does(folder: Path) -> None:
    store = LocalStore(folder)
    assert [store.create("new/claim", content) for content in (b"one", b"two")] == [True, False]
    assert (folder / "new/claim").read_bytes() == b"one"
    assert [path.name for path in (folder / "new").iterdir()] == ["claim"]


def test_what_is_no_file_is_not_listed_and_what_may_not_be_looked_at_is_said(folder: Path) -> None:
    (folder / "gone").symlink_to("nowhere")
    (folder / "loop").symlink_to("loop")
    (folder / "linked").symlink_to(folder / "index")
    os.mkfifo(folder / "pipe")
    store = LocalStore(folder)
    assert [name for name, _ in store.list()] == ["a.tar", "index/part"]
    assert [store.size(name) for name in ("gone", "loop", "pipe", "index", "a.tar/x")] == [None] * 5
    assert LocalStore(folder / "absent").list() == []
    with tempfile.TemporaryDirectory() as closed:  # where nobody else may look, root would have to be
        (Path(closed) / "inner").mkdir()
        (Path(closed) / "inner/file").touch()
        (Path(closed) / "inner").chmod(0o000)
        Path(closed).chmod(0o755)
        was_root = os.geteuid() == 0
        if was_root:
            os.seteuid(NOBODY)
        try:
            for look in (LocalStore(closed).list, lambda: LocalStore(closed).size("inner/file")):
                with pytest.raises(ShardError, match=r"cannot be read.*Permission denied"):
                    look()
        finally:
            if was_root:
                os.seteuid(0)


@pytest.mark.parametrize("in_place", [True, False])
def test_a_file_replaced_between_two_openings_is_refused(
    folder: Path, in_place: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stores, "MAX_OPEN_FILES", 1)
    store = LocalStore(folder)
    assert store.read("a.tar", 0, 10) == CONTENT[:10]
    changed = folder / ("a.tar" if in_place else "other")
    os.utime(changed, ns=(1, 1)) if in_place else changed.write_bytes(CONTENT)
    changed.replace(folder / "a.tar")
    assert store.read("a.tar", 0, 10) == CONTENT[:10]  # the open file is the one that was opened
    store.read("index/part", 0, 1)  # lets go of it
    with pytest.raises(ShardError, match=r"a\.tar: replaced since it was opened"):
        store.read("a.tar", 0, 10)
    with pytest.raises(ShardError, match=r"a\.tar: replaced since it was opened"):
        store.path("a.tar")
    assert LocalStore(folder).read("a.tar", 0, 10) == CONTENT[:10]


def test_files_are_closed_at_the_end_of_the_interpreter(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the names of modules are gone; pytest fails on what `__del__` would complain of."""
    store = LocalStore(folder)
    store.read("a.tar", 0, 1)
    file = store._open.get("a.tar", lambda: store._opened("a.tar"))
    descriptor = file.descriptor
    monkeypatch.setattr(stores, "os", None)
    store._open.forget("a.tar")
    del file
    monkeypatch.undo()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)


def _read_in_child(store: LocalStore, queue: multiprocessing.SimpleQueue[bytes]) -> None:
    queue.put(store.read("a.tar", 3, 4))


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_folder_goes_to_other_processes(folder: Path, method: str) -> None:
    store = LocalStore(folder)
    store.read("a.tar", 0, 1)
    context = multiprocessing.get_context(method)
    queue = context.SimpleQueue()
    child = context.Process(target=_read_in_child, args=(store, queue))
    child.start()
    assert queue.get() == CONTENT[3:7]
    child.join()
    assert pickle.loads(pickle.dumps(store)).read("a.tar", 3, 4) == CONTENT[3:7]


def test_files_are_read_from_several_threads_while_others_let_go_of_them(tmp_path: Path) -> None:
    names = [f"{number:03d}" for number in range(2 * MAX_OPEN_FILES)]
    for name in names:
        (tmp_path / name).write_text(name)
    files = LocalStore(tmp_path)
    wrong: list[str] = []

    def read_all(step: int) -> None:
        for at in range(0, 3 * len(names) * step, step):
            name = names[at % len(names)]
            if files.read(name, 0, 3) != name.encode():
                wrong.append(name)

    threads = [threading.Thread(target=read_all, args=(step,)) for step in (1, 3, 5, 7)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
