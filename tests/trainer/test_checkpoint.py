"""Checkpoints are whole or absent, and load without running code."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from full_disk import files_of_at_most
from open_files import open_below

from s3prl_stream.errors import StateError, StreamError
from s3prl_stream.trainer.checkpoint import (
    Checkpoint,
    list_checkpoints,
    load_checkpoint,
    newest_checkpoint,
    save_checkpoint,
    write_json,
)


def checkpoint(step: int) -> Checkpoint:
    return Checkpoint({"step": step, "loader": {"b": step}}, {"w": torch.full((2,), float(step))}, {"m": [step]})


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(7), keep=2)
    loaded = load_checkpoint(folder)
    assert loaded.state == {"step": 7, "loader": {"b": 7}}
    assert torch.equal(loaded.weights["w"], torch.tensor([7.0, 7.0]))
    assert loaded.optimizer == {"m": [7]}


def test_the_newest_are_kept(tmp_path: Path) -> None:
    (tmp_path / "checkpoints" / "step-00000007-mine").mkdir(parents=True)  # somebody's copy
    for step in (5, 10, 100_000_000, 200_000_000):
        save_checkpoint(tmp_path, checkpoint(step), keep=2)
    assert [load_checkpoint(folder).state["step"] for folder in list_checkpoints(tmp_path)] == [
        100_000_000,
        200_000_000,
    ]
    assert newest_checkpoint(tmp_path).name == "step-200000000"
    assert open_below(tmp_path) == []


def test_an_unfinished_one_is_not_seen_and_not_in_the_way(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=2)
    left = tmp_path / "checkpoints" / ".unfinished-step-00000002"
    left.mkdir()
    (left / "model.pt").write_bytes(b"half")
    assert newest_checkpoint(tmp_path).name == "step-00000001"
    assert load_checkpoint(save_checkpoint(tmp_path, checkpoint(2), keep=2)).state["step"] == 2
    assert not left.exists()


def test_a_failure_while_writing_leaves_the_old_one(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), keep=1)
    with pytest.raises(ValueError, match="Out of range"):
        save_checkpoint(tmp_path, Checkpoint({"step": 2, "seconds": float("nan")}, {}, {}), keep=1)
    assert load_checkpoint(newest_checkpoint(tmp_path)).state["step"] == 1
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-00000001"]


def test_a_full_disk_is_named_and_leaves_nothing(tmp_path: Path) -> None:
    """A limit on the size of files stands for it; torch tells of both by a RuntimeError."""
    big = Checkpoint({"step": 2}, {"w": torch.zeros(100_000)}, {})
    with (
        files_of_at_most(50_000),
        pytest.raises(StreamError, match=r"model\.pt: cannot be written .* Is the disk full\?"),
    ):
        save_checkpoint(tmp_path, big, keep=1)
    assert list((tmp_path / "checkpoints").iterdir()) == []


def test_a_file_that_cannot_be_written_whole_stays_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "run.json"
    write_json(file, "old")
    with files_of_at_most(10), pytest.raises(OSError, match="too large"):
        write_json(file, "new " * 10)
    assert file.read_text() == '"old"\n'
    assert list(tmp_path.iterdir()) == [file]


def test_a_kill_while_one_is_deleted_leaves_no_half_under_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(path: Path, *, ignore_errors: bool = False) -> None:
        if path.exists() and not ignore_errors:
            raise KeyboardInterrupt

    save_checkpoint(tmp_path, checkpoint(1), keep=1)
    monkeypatch.setattr(shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        save_checkpoint(tmp_path, checkpoint(2), keep=1)
    assert [path.name for path in list_checkpoints(tmp_path)] == ["step-00000002"]


def test_damage_and_code_are_refused_by_name(tmp_path: Path) -> None:
    folder = save_checkpoint(tmp_path, checkpoint(1), keep=1)
    torch.save({"w": Path}, folder / "model.pt")
    with pytest.raises(StateError, match=r"model\.pt: cannot be loaded"):
        load_checkpoint(folder)
    (folder / "state.json").write_text("{")
    with pytest.raises(StateError, match=r"state\.json: cannot be read"):
        load_checkpoint(folder)
    (folder / "state.json").unlink()
    with pytest.raises(StateError, match=r"state\.json: cannot be read .*No such file"):
        load_checkpoint(folder)
