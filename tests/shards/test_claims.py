"""Claims: one of many gets a shard, the dead lose theirs, and nobody looks at a clock."""

from __future__ import annotations

import functools
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from apart import in_child

from s3prl_stream.errors import StateError
from s3prl_stream.packing.packplan import CLIPS, LEFT_OUT_BEFORE, PackPlan
from s3prl_stream.packing.workfolder import read_plan, remove_empty_folders, write_plan
from s3prl_stream.shards import claims as claiming
from s3prl_stream.shards.claims import Claims, is_known_dead, new_owner
from s3prl_stream.shards.scratch import scratch_folder, scratch_of_one
from s3prl_stream.stores.local_store import LocalStore
from s3prl_stream.stores.store import open_store


def others_machine(name: str = "elsewhere") -> str:
    return f"{name}.boot.4026.77.00ff"


def dead_here() -> str:
    """An owner of this machine that has ended."""
    program = "from s3prl_stream.shards.claims import new_owner; print(new_owner())"
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()


def check_claims(url: str | Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With real signs of life; the clock that they are held against is the test's, which waits for nothing."""
    now = 0.0
    monkeypatch.setattr(claiming, "BEAT_SECONDS", 0.01)
    monkeypatch.setattr(claiming, "time", SimpleNamespace(monotonic=lambda: now, sleep=time.sleep))
    store = open_store(url)

    def signs() -> dict[str, int]:
        return dict(store.list(".packing/alive/"))

    with Claims(url, others_machine("one")) as one, Claims(url, others_machine("two")) as two:
        assert one.take("000001")
        assert one.take("000001")  # it is ours already
        assert not two.take("000001")
        assert two.take("000002")
        for _ in range(4):  # longer than a lease: both live
            assert one.of_others() == {"000002"}
            assert two.of_others() == {"000001"}
            seen = signs()
            while any(signs()[name] == seen[name] for name in seen):
                time.sleep(0.01)
            now += 0.6 * claiming.LEASE_SECONDS
        assert not one.is_alone()
        one.give_back("000001")
        assert two.take("000001")
    assert not [name for name, _ in store.list(".packing/")]  # ended as they should
    store.write(f".packing/alive/{others_machine('killed')}", b"12")
    store.write(".packing/claims/000007", others_machine("killed").encode())
    store.write(".packing/claims/000008", b"who has no sign of life")
    with Claims(url, others_machine("one")) as one:
        assert not one.take("000007")
        assert one.of_others() == {"000007"}  # seen for the first time: it may live
        assert one.take("000008")
        now += claiming.LEASE_SECONDS
        assert not one.is_alone()
        now += 1.0
        assert one.of_others() == set()
        assert one.is_alone()
        assert one.take("000007")


def test_claims_on_a_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_claims(tmp_path, monkeypatch)


@in_child
def test_claims_in_a_store() -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        check_claims("memory:///claims", monkeypatch)


@in_child
def test_in_a_store_one_at_a_time_whatever_their_machines(tmp_path: Path) -> None:
    """What keeps them apart is in the store: neither machines nor their temporary folders are one."""
    one, other = (open_store(f"memory:///apart/{name}") for name in ("one", "other"))
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(claiming, "BEAT_SECONDS", 0.01)
        for name in ("here", "there"):
            (tmp_path / name).mkdir()
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "here"))
        with scratch_of_one(one, ".made") as folder, scratch_of_one(other, ".made"):
            monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "there"))
            refused = pytest.raises(StateError, match=rf"^memory:///apart/one: process {os.getpid()} of \S+ works in")
            with refused, scratch_of_one(one, ".made"):
                pass
            assert folder.is_dir()
        one.write(f".made/alive/{others_machine('killed')}", b"12")
        one.write(".made/claims/all", others_machine("killed").encode())
        monkeypatch.setattr(claiming, "LEASE_SECONDS", 0.05)
        with scratch_of_one(one, ".made") as folder:
            assert not list(folder.iterdir())
        assert not [*tmp_path.glob("*/*"), *one.list(), *other.list()]


def test_a_pack_that_was_killed_on_this_machine_is_known_at_once(tmp_path: Path) -> None:
    owner = dead_here()
    assert is_known_dead(owner)
    assert not is_known_dead(new_owner())
    assert not is_known_dead(others_machine())
    assert not is_known_dead(owner.replace(owner.split(".")[0], "elsewhere"))
    store = open_store(tmp_path)
    store.write(f".packing/alive/{owner}", b"1")
    store.write(".packing/claims/000003", owner.encode())
    with Claims(tmp_path, new_owner()) as claims:
        assert claims.of_others() == set()
        assert claims.take("000003")


def test_a_claim_that_is_given_back_and_taken_again_while_it_is_looked_at_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is gone when its owner is read, and there again before anything is made of that."""
    listing, read = LocalStore.list, Claims._owner_of

    def list_and_give_back(store: LocalStore, prefix: str = "") -> list[tuple[str, int]]:
        found = listing(store, prefix)
        if "claims" in prefix:
            two.give_back("000003")
        return found

    def read_and_take(claims: Claims, what: str) -> str | None:
        found = read(claims, what)
        if found is None:
            assert two.take(what)
        return found

    with Claims(tmp_path, others_machine("one")) as one, Claims(tmp_path, others_machine("two")) as two:
        assert [two.take("000003"), two.take("000004")] == [True, True]
        with monkeypatch.context() as patch:
            patch.setattr(LocalStore, "list", list_and_give_back)
            patch.setattr(Claims, "_owner_of", read_and_take)
            assert one.of_others() == {"000004"}
        assert not one.take("000003")


def test_a_claim_that_is_just_being_made_is_not_taken_for_that_of_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stands there for a moment without its owner."""
    store = open_store(tmp_path)
    for what in ("000003", "000004"):
        store.write(f".packing/claims/{what}", b"")

    def be_made(seconds: float) -> None:
        store.write(".packing/claims/000003", others_machine("two").encode())

    with Claims(tmp_path, others_machine("one")) as one, Claims(tmp_path, others_machine("two")):
        monkeypatch.setattr(claiming.time, "sleep", be_made)
        assert one.of_others() == {"000003"}
        assert one.take("000004")  # whose owner died while he made it


def test_the_claim_of_one_who_has_just_begun_is_not_taken_for_that_of_a_dead_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """He shows life when the living have been counted: one claim was free, one was that of somebody dead."""
    store, two, living = open_store(tmp_path), Claims(tmp_path, others_machine("two")), Claims._living

    def begin_then(claims: Claims) -> set[str]:
        alive = living(claims)
        with monkeypatch.context() as once:
            once.setattr(Claims, "_living", living)
            two.__enter__()
            two.of_others()
        assert [two.take("000003"), two.take("000004")] == [True, True]
        return alive

    store.write(".packing/claims/000004", b"who has no sign of life")
    with Claims(tmp_path, others_machine("one")) as one:
        with monkeypatch.context() as patch:
            patch.setattr(Claims, "_living", begin_then)
            one.of_others()
        assert one.of_others() == {"000003", "000004"}
        two.__exit__()


def test_a_claim_is_given_back_by_whoever_has_it_alone(tmp_path: Path) -> None:
    """One slept so long that his claims were given away; and the answer to how he took a third was lost."""
    store = open_store(tmp_path)
    with Claims(tmp_path, others_machine("two")) as two:
        with Claims(tmp_path, others_machine("one")) as one:
            for what in ("000001", "000002"):
                assert one.take(what)
                store.delete(f".packing/claims/{what}")
                assert two.take(what)
                assert not one.take(what)
            store.write(".packing/claims/000003", others_machine("one").encode())
            assert one.take("000003")
            one.give_back("000001")
        assert [name for name, _ in store.list(".packing/claims/")] == [
            ".packing/claims/000001", ".packing/claims/000002",
        ]  # fmt: skip


def test_who_lives_is_found_in_a_store_in_which_each_can_create(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_in_any_case(store: LocalStore, name: str, content: bytes) -> bool:
        store.write(name, content)
        return True

    monkeypatch.setattr(LocalStore, "create", write_in_any_case)
    for name in ("BEAT_SECONDS", "POLL_SECONDS"):
        monkeypatch.setattr(claiming, name, 0.01)
    with Claims(tmp_path, others_machine("two")) as two, Claims(tmp_path, others_machine("one")) as one:
        assert two.take_from_the_dead("all") is None
        assert one.take_from_the_dead("all") == others_machine("two")
        two.give_back("all")
        assert one.take_from_the_dead("all") is None


def test_who_is_waited_for_is_told_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Of another machine, where nobody here can see that it was killed."""
    for name, seconds in (("POLL_SECONDS", 0.001), ("LEASE_SECONDS", 0.2)):
        monkeypatch.setattr(claiming, name, seconds)
    store = open_store(tmp_path)
    store.write(f".packing/alive/{others_machine('killed')}", b"12")
    store.write(".packing/claims/all", others_machine("killed").encode())
    with Claims(tmp_path, others_machine("one")) as one:
        assert one.take_from_the_dead("all") is None
    told = "waiting for process 77 of killed; who shows no sign of life is given up after 0.2 s"
    assert caplog.messages == [f"{tmp_path}: {told}"]


def test_of_many_that_try_at_once_one_gets_it(tmp_path: Path) -> None:
    got: list[int] = []

    def take(number: int) -> None:
        for what in range(40):
            if open_store(tmp_path).create(f"claims/{what}", str(number).encode()):
                got.append(what)

    at_once(*(functools.partial(take, number) for number in range(8)))
    assert sorted(got) == list(range(40))
    assert len(os.listdir(tmp_path / "claims")) == 40  # and no half-written file is left


def at_once(*work: Callable[[], None]) -> None:
    """Begin all at the same moment; what one raises is raised."""
    barrier = threading.Barrier(len(work))

    def begin(one: Callable[[], None]) -> None:
        barrier.wait()
        one()

    with ThreadPoolExecutor(len(work)) as threads:
        for future in [threads.submit(begin, one) for one in work]:
            future.result()


def test_packs_that_begin_at_the_same_moment_do_not_rename_each_others_half_written_plans(tmp_path: Path) -> None:
    plan = PackPlan("set", {}, "", {}, "", 1, 0, [], {}, [1])

    def write(owner: str) -> None:
        store = LocalStore(tmp_path / "set")
        for _ in range(20):
            with scratch_folder(store, owner) as scratch:
                for name in (CLIPS, LEFT_OUT_BEFORE):
                    (scratch / name).touch()
                write_plan(store, plan, scratch)
                assert read_plan(LocalStore(tmp_path / "set")) == plan

    at_once(*(functools.partial(write, f"host.boot.pids.1.{number}") for number in range(3)))


def test_a_pack_that_ends_does_not_take_the_folders_of_one_that_begins(tmp_path: Path) -> None:
    begun = [False]

    def begin() -> None:
        try:
            for number in range(50):
                with scratch_folder(LocalStore(tmp_path / "set"), f"host.boot.pids.1.{number}"):
                    pass
                with Claims(tmp_path / "set", f"owner{number}") as claims:
                    assert claims.take("000000")
        finally:
            begun[0] = True

    def end() -> None:
        pauses = random.Random(0)
        while not begun[0]:
            remove_empty_folders(LocalStore(tmp_path / "set"))
            time.sleep(pauses.uniform(0, 1e-3))  # without, two threads of one interpreter can go on in step for ever

    at_once(begin, end)
