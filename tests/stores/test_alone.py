"""Two processes in one folder of a run: the second is refused before it has changed anything."""

from __future__ import annotations

import errno
import fcntl
import shutil
from pathlib import Path
from typing import Any

import pytest
from downstream.synthetic import classes
from run_folders import worked_in_by_another
from small_recipes import pretrain_small

import s3prl_stream as ss
from s3prl_stream.recipes.run_folder import SETTINGS
from s3prl_stream.stores.alone import LOCK, alone_in


def test_a_folder_in_which_another_process_trains_is_refused_and_left_as_it_is(
    sample_set: Path, tmp_path: Path
) -> None:
    """Two would mix their logs, and neither could go on; run.json of the one at work became that of the refused one."""

    def pretrained(steps: int) -> Any:
        return pretrain_small("apc", sample_set, tmp_path / "apc", steps=steps, where="digit < 1")

    def trained(steps: int) -> Any:
        return ss.train("ks", classes(), upstream="fbank80", out=tmp_path / "ks", steps=steps, device="cpu", quiet=True)

    runs = {"apc": pretrained, "ks": trained}
    folders = [tmp_path / name for name in runs]
    for name, run in runs.items():
        assert run(1).last_step == 1, name
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file() and path.name != ".lock"}
    assert {folder / SETTINGS for folder in folders} <= before.keys()
    with worked_in_by_another(*folders) as pid:
        for run in runs.values():
            with pytest.raises(ss.StateError, match=rf": process {pid} of \S+ works in this folder"):
                run(2)
    assert {path: path.read_bytes() for path in before} == before
    for name, run in runs.items():
        assert run(2).first_step == 1, name


def test_a_run_that_was_killed_before_its_settings_were_written_begins(sample_set: Path, tmp_path: Path) -> None:
    for left in (".lock", ".unfinished-run.json"):
        (tmp_path / left).touch()
    assert pretrain_small("apc", sample_set, tmp_path, steps=1, where="digit < 1").last_step == 1


def test_where_a_file_system_has_no_locks_nobody_is_kept_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_locks(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "lockf", no_locks)
    with alone_in(tmp_path / "run"):
        assert (tmp_path / "run" / LOCK).is_file()


def test_a_lock_that_its_owner_removed_keeps_nobody_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who has opened it a moment before, and locks it a moment after, would be alone in a folder that is gone."""
    really_locked = fcntl.lockf

    def removed_before(*lock: Any) -> None:
        shutil.rmtree(tmp_path / "run")
        really_locked(*lock)

    monkeypatch.setattr(fcntl, "lockf", removed_before)
    with pytest.raises(ss.StateError, match="another process works in this folder"), alone_in(tmp_path / "run"):
        pass


def test_a_bucket_is_no_folder_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder called s3: was made where the command was given, and the run was lost with the machine."""
    monkeypatch.chdir(tmp_path)
    of_task: dict[str, Any] = {
        "upstream": "fbank80",
        "steps": 1,
        "device": "cpu",
        "quiet": True,
        "out": "s3://test/run",
    }
    for begin in (
        lambda: ss.pretrain("apc", classes(), steps=1, out="s3://test/run", device="cpu"),
        lambda: ss.train("ks", classes(), **of_task),
        lambda: ss.sweep("ks", classes(), test_where="loud == 'yes'", **of_task),
    ):
        with pytest.raises(ss.UsageError, match="s3://test/run: is no folder of this machine"):
            begin()
    assert not list(tmp_path.iterdir())
