"""The quickstart: it finds what to probe, and its verdict on two runs can be trusted."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import UsageError
from s3prl_stream.quickstart import Task, _compare, _draw, find_task, quickstart


def write_noises(folder: Path, names: list[str], seconds: float = 1.0) -> None:
    folder.mkdir(parents=True)
    for number, name in enumerate(names):
        noise = np.random.default_rng(number).normal(0, 1000, round(16_000 * seconds)).astype(np.int16)
        soundfile.write(folder / f"{name}.wav", noise, 16_000)


def test_the_sample_is_probed_for_digits_of_unheard_voices(sample_set: Path) -> None:
    task = find_task(sample_set)
    assert task is not None
    assert task.label == "digit"
    option, held_out = task.options
    assert option == "--holdout"
    voices = set(held_out.removeprefix("speaker=").split(","))
    assert len(voices) == 3
    assert voices < set(ss.open_shards(sample_set).table()["speaker"].to_pylist())


@pytest.mark.parametrize(
    ("names", "pattern", "task"),
    [
        (["a", "b"], None, None),
        (["x-1", "y-1"], "{speaker}-{take}", Task("speaker", ())),
        (["x-1", "x-2"], "{speaker}-{take}", None),
        (["x-dog", "y-cat"], "{speaker}-{label}", Task("label", ())),
    ],
)
def test_what_there_is_to_probe_in_a_folder(
    names: list[str], pattern: str | None, task: Task | None, tmp_path: Path
) -> None:
    write_noises(tmp_path / "audio", names)
    ss.pack(ss.corpora.folder(tmp_path / "audio", pattern=pattern), tmp_path / "set")
    assert find_task(tmp_path / "set") == task


def test_the_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    run = [(1, 0.5), (2, 0.25), (3, 0.125)]
    assert _compare(run, list(run), 3)
    assert not _compare(run, [(1, 0.5), (2, 0.25 + 2**-54), (3, 0.125)], 3)
    assert "1 of 3 losses differ, the first at step 2" in capsys.readouterr().out
    assert not _compare(run, [*run[:2], run[1]], 3)  # a step twice, one missing
    assert not _compare(run[:2], run[:2], 3)  # both short


def test_too_few_steps_are_refused(sample_set: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="at least 4"):
        quickstart(sample_set, tmp_path / "out", steps=3)


def test_without_matplotlib_all_but_the_pictures_is_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert _draw(tmp_path, tmp_path, tmp_path, tmp_path, killed_after=2) == []
    assert capsys.readouterr().out == "None: pictures need matplotlib: pip install 's3prl-stream[plots]'\n"


@pytest.mark.slow
def test_the_main_job_on_a_folder_of_audio(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    write_noises(tmp_path / "audio", [f"{name}-{take}" for name in "abcde" for take in range(4)], seconds=3.0)
    words = ["--data", str(tmp_path / "audio"), "--out", str(tmp_path / "out"), "--pattern", "{speaker}-{take}"]
    assert main(["quickstart", *words, "--steps", "10"]) == 0
    shown = capfd.readouterr().out
    assert "Yes: all 10 losses are equal, bit for bit." in shown
    assert "speaker: 5 classes" in shown
    for picture in ("loss.png", "reconstruction.png"):
        assert (tmp_path / "out" / picture).read_bytes().startswith(b"\x89PNG")
