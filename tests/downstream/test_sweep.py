"""Sweeps: the grid, its table, and that nothing is done twice."""

from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from downstream.synthetic import classes, texts

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.downstream.recipe import RECIPES, find_task
from s3prl_stream.downstream.scores import AXES, Score, Sweep
from s3prl_stream.downstream.streams import judged_stream
from s3prl_stream.shards.shardset import as_shard_set

TEST = "part == 'test'"
SMALL: dict[str, Any] = {"steps": 2, "lr": 1e-2, "balance": False, "device": "cpu", "quiet": True}


def score(seed: int, accuracy: float, **settings: str) -> Score:
    values = {**dict.fromkeys(AXES, "x"), "noise": "none", "snr": "", **settings}
    return Score(values, seed, 0.5 if settings.get("subset") == "10%" else 5.0, {"accuracy": accuracy}, "accuracy", "r")


KNOWN = Sweep(
    [
        score(0, 0.5, upstream="fbank80", subset="100%"),
        score(1, 0.7, upstream="fbank80", subset="100%"),
        score(0, 0.25, upstream="fbank80", subset="10%"),
        score(1, 0.25, upstream="fbank80", subset="10%"),
        score(0, 1.0, upstream="tera", subset="100%"),
    ]
)


def test_a_table_has_what_varies_and_the_spread_over_seeds(tmp_path: Path) -> None:
    assert KNOWN.table().splitlines() == [
        "| upstream | subset | hours | seeds | accuracy         |",
        "| ---------|--------|-------|-------|----------------- |",
        "| fbank80  | 100%   | 5     | 2     | 0.6000 +- 0.1414 |",
        "| fbank80  | 10%    | 0.5   | 2     | 0.2500 +- 0.0000 |",
        "| tera     | 100%   | 5     | 1     | 1.0000           |",
    ]
    assert Sweep([score(0, 0.5)]).table().splitlines()[0] == "| hours | seeds | accuracy |"
    KNOWN.write(tmp_path)
    with (tmp_path / "sweep.csv").open() as file:
        assert [row["accuracy"] for row in csv.DictReader(file)] == ["0.5", "0.7", "0.25", "0.25", "1.0"]
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert [row["mean"]["accuracy"] for row in rows] == pytest.approx([0.6, 0.25, 1.0])


HOURS, RATIO = "hours of audio", "signal-to-noise ratio, dB"


@pytest.mark.parametrize(
    ("scores", "label", "ticks", "places"),
    [
        (KNOWN.scores, HOURS, None, {"fbank80": [0.5, 5.0], "tera": [5.0]}),
        (
            [score(0, 0.1, snr="10"), score(0, 0.2), score(0, 0.3, snr="-5,0")],
            RATIO,
            ["-5,0", "10", "clean"],
            {"": [0, 1, 2]},
        ),
        ([score(0, 0.1, upstream="b"), score(0, 0.2, upstream="a")], "upstream", ["b", "a"], {"": [0, 1]}),
        ([score(0, 0.1)], "upstream", ["x"], {"": [0]}),
    ],
)
def test_a_picture_is_against_what_varies(scores: Any, label: str, ticks: Any, places: Any) -> None:
    panels, *axis = Sweep(scores).picture()
    assert axis == [label, ticks]
    assert [(one.title, one.label) for one in panels] == [("x", "accuracy")]
    assert {name: [place for place, *_ in points] for name, points in panels[0].curves.items()} == places


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid: dict[str, Any] = {
        "upstream": ["fbank80", "logmel80"], "noise": ["none", "gaussian"], "snr": [0.0, 20.0], "seeds": 1,
        "test_where": TEST, "out": tmp_path / "sweep", **SMALL,
    }  # fmt: skip
    first = ss.sweep("ks", classes(16), **grid)
    assert len(first.scores) == 6
    assert len({one.run for one in first.scores}) == 2  # noise is added to what is scored alone
    by_hand = ss.evaluate(first.scores[4].run, classes(16), where=TEST, noise="gaussian", snr=(0.0, 0.0), device="cpu")
    assert first.scores[4].figures == by_hand.figures
    assert (by_hand.utterances, first.scores[0].settings["upstream"]) == (4, "fbank80")
    trained = json.loads((Path(first.scores[0].run) / "losses.jsonl").read_text().splitlines()[0])
    seconds = {
        key: length / 16_000
        for batch in ss.Loader(judged_stream(as_shard_set(classes(16)), where="part == 'train'"))
        for key, length in zip(batch["key"], batch["wav_len"].tolist(), strict=True)
    }
    assert trained["seconds"] == pytest.approx(sum(seconds.values()))  # what is scored is not trained on
    assert first.scores[0].hours == pytest.approx(sum(seconds.values()) / 3600)
    assert (tmp_path / "sweep/sweep.png").read_bytes().startswith(b"\x89PNG")

    calls: list[Any] = []
    for name, done in (("train", ss.train), ("evaluate", ss.evaluate)):
        monkeypatch.setattr(
            f"s3prl_stream.downstream.sweep.{name}",
            lambda *a, name=name, done=done, **k: (calls.append(name), done(*a, **k))[1],
        )
    assert ss.sweep("ks", classes(16), **grid) == first
    assert calls == []
    again = ss.sweep("ks", classes(16), **{**grid, "subset": ["100%", "50%"], "noise": "none"})
    assert calls == ["train", "evaluate"] * 2  # the halves
    assert [one.settings["subset"] for one in again.scores] == ["100%", "50%"] * 2
    calls.clear()
    other = ss.sweep("ks", classes(12), **{**grid, "noise": "none", "upstream": "fbank80"})
    assert calls == ["train", "evaluate"]  # other data under the same name
    assert other.scores[0].run != first.scores[0].run


def test_a_cell_is_known_by_what_makes_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by how the work is done or a default is spelled; but by a recipe's defaults too, and by what its data say."""
    grid: dict[str, Any] = {"upstream": "fbank80", "seeds": 1, "test_where": TEST, "out": tmp_path, **SMALL}
    first = ss.sweep("ks", classes(), **grid)
    same = {"head": ["linear", None, "linear"], "subset": ["100%", None], "checkpoint_every": 7, "keep_checkpoints": 1}
    assert ss.sweep("ks", classes(), **grid, **same, tensorboard=False, max_batch_size=32) == first  # and no row twice
    recipe = find_task("ks")
    monkeypatch.setitem(RECIPES, "ks", dataclasses.replace(recipe, clip_norm=2.0))
    other_defaults = ss.sweep("ks", classes(), **grid)
    monkeypatch.setitem(RECIPES, "ks", recipe)
    relabelled = classes()
    samples = [
        {**sample, "label": "x" if sample["label"] == "a" else sample["label"]} for sample in relabelled._samples
    ]
    other_labels = ss.sweep("ks", ss.MemoryShards(samples), **grid)
    assert len({one.scores[0].run for one in (first, other_defaults, other_labels)}) == 3
    assert json.loads(next((tmp_path / "runs").glob("*/scores/*")).read_text())["version"] == ss.__version__


def test_two_sweeps_of_one_folder(tmp_path: Path) -> None:
    grid: dict[str, Any] = {"upstream": "fbank80", "seeds": 1, "test_where": TEST, "out": tmp_path, **SMALL}
    holds = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holds, tmp_path / ".lock"], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ss.StateError, match="works in this folder"):
            ss.sweep("ks", classes(), **grid)
        other.kill()
    assert len(ss.sweep("ks", classes(), **grid).scores) == 1


def test_the_limit_of_the_cache_holds_for_what_is_scored_too(tmp_path: Path) -> None:
    """A sweep in a larger cache than the usual one deleted the features of others, in a smaller one it filled it."""
    grid: dict[str, Any] = {"upstream": "fbank80", "seeds": 1, "test_where": TEST, **SMALL, "cache": tmp_path / "cache"}
    ss.sweep("ks", classes(), out=tmp_path / "sweep", **grid, cache_gigabytes=0.0)
    assert not list((tmp_path / "cache").rglob("*.bin"))


def test_what_is_scored_is_neither_trained_on_nor_chosen_by(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"upstream": "fbank80", "out": tmp_path, **SMALL}
    with pytest.raises(ss.UsageError, match="is trained on"):
        ss.sweep("ks", classes(), **settings)
    for where in (TEST, "label == 'a'"):
        with pytest.raises(ss.UsageError, match="weights would be chosen by them"):
            ss.sweep("ks", classes(), test_where=TEST, valid_where=where, **settings)
    for wrong, said in (
        ({"head": "linaer"}, "head 'linaer' is unknown"),
        ({"subset": ["50%", "half"]}, "no amount"),
        ({"seeds": 0}, "nothing to do"),
        ({"seed": 1}, "give seeds="),
        ({"upstream": ["fbank80", "no/such"]}, "no/such"),
        ({"learning_rate": 1.0}, "no setting 'learning_rate'"),
        ({"label": "colour"}, "no column 'colour'"),
        ({"test": texts()}, "no column 'label'"),
        ({"trials": [(True, "a", "b")]}, "task ks: trials are for speaker verification"),
    ):
        with pytest.raises(ss.UsageError, match=said):
            ss.sweep("ks", classes(), test_where=TEST, **{**settings, **wrong})
    assert not any(tmp_path.iterdir())  # all of it was said before anything was trained
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").touch()
    with pytest.raises(ss.UsageError, match="holds files but no sweep"):
        ss.sweep("ks", classes(), test_where=TEST, **{**settings, "out": tmp_path / "other"})
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["notes.txt"]
    shutil.rmtree(tmp_path / "other")
    assert ss.sweep("ks", classes(), test=classes(8), seeds=1, **settings).scores[0].hours > 0


def test_clips_that_are_missing_from_a_score_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "no.wav").write_text("no sound")
    samples = [*classes()._samples, {"key": "no", "wav_path": str(tmp_path / "no.wav"), "label": "a", "part": "test"}]
    grid: dict[str, Any] = {"upstream": "fbank80", "seeds": 1, "test_where": TEST, **SMALL, "quiet": False}
    ss.sweep("ks", ss.MemoryShards(samples), out=tmp_path / "out", **grid)
    assert "accuracy" in (told := capsys.readouterr().err)
    assert "1 clips could not be scored" in told


def test_the_command(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "ks", "--data", str(sample_set), "--label", "digit", "--where", "speaker == 'bruno'"]
    words += ["--test-where", "speaker == 'hugh'", "--upstream", "fbank80", "--steps", "1", "--seeds", "1", "--device"]
    words += ["cpu", "--set", "balance=False", "--out", str(tmp_path)]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.out == (tmp_path / "sweep.md").read_text()
    assert "1 of 1: ks " in shown.err
    assert main([*words, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["cells"][0]["settings"]["noise"] == "none"
    for wrong, said in (
        (["--snr", "5"], "--snr: without --noise"),
        (["--noise", "gaussian", "--snr", "x"], "--snr x:"),
    ):
        assert main([*words, *wrong]) == 2
        assert said in capsys.readouterr().err
