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
from s3prl_stream.downstream.grid import Cell, cell_data, make_cell, noises_of
from s3prl_stream.downstream.recipe import RECIPES, find_task
from s3prl_stream.downstream.scores import AXES, Score, Sweep
from s3prl_stream.downstream.streams import judged_stream
from s3prl_stream.shards.shardset import ShardSet, as_shard_set
from s3prl_stream.tasks.verification import Trial
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.vocabulary import CharacterTokenizer

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
    without_noise = Sweep([score(0, 0.5), score(0, 0.25, snr="5", noise="n")]).table().splitlines()
    assert [line.split(" | ")[:2] for line in without_noise[2:]] == [["| none ", "-  "], ["| n    ", "5  "]]
    assert Sweep([score(0, 0.5)]).table().splitlines()[0] == "| hours | seeds | accuracy |"
    KNOWN.write(tmp_path := tmp_path / "new/folder")
    with (tmp_path / "sweep.csv").open() as file:
        cells = list(csv.DictReader(file))
    assert [row["accuracy"] for row in cells] == ["0.5", "0.7", "0.25", "0.25", "1.0"]
    assert {name: cells[3][name] for name in ("seed", "hours", "subset", "run")} == {
        "seed": "1", "hours": "0.5", "subset": "10%", "run": "r",
    }  # fmt: skip
    rows = json.loads((tmp_path / "sweep.json").read_text())["rows"]
    assert [row["mean"]["accuracy"] for row in rows] == pytest.approx([0.6, 0.25, 1.0])


def test_tasks_with_figures_of_their_own_share_a_table(tmp_path: Path) -> None:
    """The figure that counts stands first; what a task does not have is empty."""
    words = Score({**score(0, 0).settings, "task": "asr"}, 0, 1.0, {"cer": 0.125, "wer": 0.5}, "wer", "r")
    both = Sweep([score(0, 0.5), words])
    assert both.table().splitlines() == [
        "| task | hours | seeds | accuracy | wer    | cer    |",
        "| -----|-------|-------|----------|--------|------- |",
        "| x    | 5     | 1     | 0.5000   | -      | -      |",
        "| asr  | 1     | 1     | -        | 0.5000 | 0.1250 |",
    ]
    both.write(tmp_path)
    with (tmp_path / "sweep.csv").open() as file:
        assert [(row["accuracy"], row["cer"]) for row in csv.DictReader(file)] == [("0.5", ""), ("", "0.125")]
    panels, *axis = both.picture()
    assert [(one.title, one.label, one.curves) for one in panels] == [
        ("x", "accuracy", {"": [(0, 0.5, 0.0)]}), ("asr", "wer", {"": [(1, 0.5, 0.0)]})
    ]  # fmt: skip
    assert axis == ["task", ["x", "asr"]]


HOURS, RATIO = "hours of audio", "signal-to-noise ratio, dB"


@pytest.mark.parametrize(
    ("scores", "label", "ticks", "places"),
    [
        (
            KNOWN.scores,
            HOURS,
            None,
            {"fbank80": [(0.5, 0.25, 0.0), (5.0, 0.6, 0.02**0.5)], "tera": [(5.0, 1.0, 0.0)]},
        ),
        (
            [
                *(score(0, 0.1, snr="10", noise="n"), score(0, 0.2), score(0, 0.3, snr="-5,20", noise="n")),
                *(score(0, 0.4, upstream="y"), score(0, 0.5, snr="10", noise="n", upstream="y")),
            ],
            RATIO,
            ["-5,20", "10", "clean"],
            {"x": [(0, 0.3, 0.0), (1, 0.1, 0.0), (2, 0.2, 0.0)], "y": [(1, 0.5, 0.0), (2, 0.4, 0.0)]},
        ),
        (
            [score(0, 0.1, subset="10%", snr="10"), score(0, 0.2, snr="20"), score(0, 0.3, subset="10%")],
            HOURS,
            None,
            {"10": [(0.5, 0.1, 0.0)], "20": [(5.0, 0.2, 0.0)], "-": [(0.5, 0.3, 0.0)]},
        ),
        (
            [score(0, 0.1, upstream="b", data="d"), score(0, 0.2, upstream="a", data="d"), score(0, 0.3, upstream="a")],
            "upstream",
            ["b", "a"],
            {"d": [(0, 0.1, 0.0), (1, 0.2, 0.0)], "x": [(1, 0.3, 0.0)]},
        ),
        ([score(0, 0.1)], "upstream", ["x"], {"": [(0, 0.1, 0.0)]}),
    ],
)
def test_a_picture_is_against_what_varies(scores: Any, label: str, ticks: Any, places: Any) -> None:
    panels, *axis = Sweep(scores).picture()
    assert axis == [label, ticks]
    assert [(one.title, one.label) for one in panels] == [("x", "accuracy")]
    assert panels[0].curves.keys() == places.keys()
    for name, points in panels[0].curves.items():
        assert points == [pytest.approx(point) for point in places[name]]


def test_what_is_done_is_not_done_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    grid: dict[str, Any] = {
        "upstream": ["fbank80", "logmel80"], "noise": ["none", "gaussian"], "snr": [0.0, 20.0], "seeds": 1,
        "test_where": TEST, "out": tmp_path / "sweep", **SMALL,
    }  # fmt: skip
    first = ss.sweep("ks", classes(16), **grid)
    assert len(first.scores) == 6
    names = [(one.settings["noise"], one.settings["snr"]) for one in first.scores]
    assert names == [("none", ""), ("gaussian", "0"), ("gaussian", "20")] * 2
    assert len({one.run for one in first.scores}) == 2  # noise is added to what is scored alone
    by_hand = ss.evaluate(first.scores[4].run, classes(16), where=TEST, noise="gaussian", snr=(0.0, 0.0), device="cpu")
    assert first.scores[4].figures == by_hand.figures
    assert (by_hand.utterances, first.scores[0].settings["upstream"]) == (4, "fbank80")
    told = [json.loads(file.read_text()) for file in (tmp_path / "sweep").rglob("scores/*.json")]
    assert [one["utterances"] for one in told] == [4] * 6
    assert all(one.settings in [cell["settings"] for cell in told] for one in first.scores)
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
    for file in (tmp_path / "sweep").rglob("scores/*.json"):
        file.write_text("{")
    with pytest.raises(ss.StateError, match=r"\.json: cannot be read \(not JSON: .*Remove this file, and the cell is"):
        ss.sweep("ks", classes(16), **grid)


@pytest.mark.usefixtures("no_picture")
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


def cell(
    shards: Any = None, *, task: Any = "ks", noise: Any = None, noisy_training: bool = False, fingerprint: str = "f",
    trials: Any = None, where: Any = None, test: Any = None, test_where: str | None = TEST, subset: str | None = None,
    seed: int = 0, snr: Any = (3.0, 20.0), **settings: Any,
) -> Cell:  # fmt: skip
    """A cell of one-valued axes."""
    data = cell_data(classes() if shards is None else shards, where, test, test_where, settings)
    (named_noise,) = noises_of(noise, snr)
    values = (task, data, ("fbank80", fingerprint), None, subset, named_noise, seed)
    return make_cell(Path("out"), settings, trials, values, noisy_training=noisy_training)


NOISY: dict[str, Any] = {"noise": "gaussian", "noisy_training": True}
TRAIN = "part == 'train'"
HELD_OUT = f"label == 'a' and {TRAIN}"
WORDS: dict[str, Any] = {"task": "pr", "shards": texts(), "test": texts(("ab",)), "test_where": None}
TEXT: dict[str, Any] = {**WORDS, "task": "asr"}
TWO = [ss.MemoryShards(classes()._samples, name) for name in ("one", "other")]
TRIALS: dict[str, Any] = {"task": "asv", "min_seconds": 0.0, "trials": [Trial(True, "clip00", "clip05")]}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({}, {"seed": 1}),
        ({}, {"fingerprint": "g"}),
        ({}, {"subset": "50%"}),
        ({}, {"lr": 1.0}),
        ({}, {"finetune": True}),
        ({}, {"where": TRAIN}),
        ({}, {"test_where": "label == 'a'"}),  # what is not scored is trained on
        ({}, {"shards": classes(16)}),
        ({}, NOISY),
        (NOISY, {**NOISY, "snr": (5.0, 20.0)}),
        ({"valid": classes(8)}, {"valid": classes(7)}),
        ({"valid": classes(8)}, {"valid": classes(8), "evaluate_every": 7}),
        ({"valid_where": HELD_OUT}, {"valid_where": HELD_OUT, "evaluate_every": 7}),
        ({**WORDS, "lexicon": Lexicon({"ab": "K"})}, {**WORDS, "lexicon": Lexicon({"ab": "B"})}),
        ({**TEXT, "tokenizer": CharacterTokenizer("abk ")}, {**TEXT, "tokenizer": CharacterTokenizer("kab ")}),
        ({"shards": ShardSet(TWO, (0.5, 0.5))}, {"shards": ShardSet(TWO, (0.9, 0.1))}),
    ],
)  # fmt: skip
def test_what_makes_another_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert cell(**one).run == cell(**one).run
    assert cell(**one).run != cell(**other).run


def test_what_makes_no_other_training() -> None:
    """How the work is done, and how often is looked at what is not there; a default, and the same in another object."""
    same = {"device": "cpu", "cache_gigabytes": 1.0, "num_workers": 2, "evaluate_every": 7, "subset": "100%"}
    for name, value in same.items():
        assert (cell(**{name: value}).run, cell(**{name: value}).file) == (cell().run, cell().file)
    assert cell(task=dataclasses.replace(find_task("ks"), name="my/own task")).run.parent == Path("out/runs")
    twins = [Lexicon({"ab": "K"}), Lexicon({"ab": "K"})]
    assert len({cell(**WORDS, lexicon=one).run for one in twins}) == 1


APART: dict[str, Any] = {"test": classes(8)}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (APART, {"test": classes(7)}),
        (APART, {**APART, "test_where": "label == 'a'"}),
        ({}, {"noise": "gaussian"}),
        ({"noise": "gaussian"}, {"noise": "gaussian", "snr": (0.0, 10.0)}),
        (TRIALS, {**TRIALS, "trials": [Trial(True, "clip05", "clip00")]}),
    ],
)  # fmt: skip
def test_what_makes_another_score_of_one_training(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert cell(**one).file == cell(**one).file
    assert cell(**one).run == cell(**other).run
    assert cell(**one).file != cell(**other).file


def test_hours_are_those_that_are_trained_on() -> None:
    """Not those of the validation part, nor what is scored, has no label or is too short."""
    rows = [{**row, "label": None} if row["key"] == "clip01" else row for row in classes()._samples]
    shards = ss.MemoryShards(rows)
    seconds = {row["key"]: len(row["wav"]) / 16_000 for row in rows}
    train = {row["key"] for row in rows if row["part"] == "train"}
    of_a = {row["key"] for row in rows if row["label"] == "a"}
    for settings, used in (
        ({}, train - {"clip01"}),
        ({"valid_where": HELD_OUT}, train - of_a - {"clip01"}),
        ({"valid": classes(8), "valid_where": "label == 'a'"}, train - {"clip01"}),
        ({"min_seconds": 0.25}, {key for key in train - {"clip01"} if seconds[key] > 0.25}),
        ({"task": "ic", "label": ["label", "loud"]}, train),  # a slot that is missing is a class
    ):
        assert cell(shards, **settings).hours * 3600 == pytest.approx(sum(seconds[key] for key in used)), settings
    assert cell(shards, subset="50%").hours == pytest.approx(cell(shards).hours / 2, rel=0.2)


def test_a_text_may_be_called_transcription_and_trials_need_no_labels() -> None:
    spoken = [
        {"transcription" if name == "text" else name: value for name, value in row.items()} for row in texts()._samples
    ]
    silent = {**spoken[0], "key": "silent", "transcription": None}
    found = [cell(ss.MemoryShards(some), task="asr", test_where="size is None") for some in (spoken, [*spoken, silent])]
    assert found[0].hours == found[1].hours > 0
    nobody = ss.MemoryShards([{name: row[name] for name in ("key", "wav")} for row in classes(7)._samples])
    assert cell(**TRIALS, test=nobody, test_where=None).hours > 0
    with pytest.raises(ss.UsageError, match="no column 'speaker'"):
        cell(**{**TRIALS, "trials": None}, test=nobody, test_where=None)


def test_a_cell_without_clips_is_refused_before_another_is_trained() -> None:
    """What is scored is looked at when the training is done, hours later."""
    for settings in ({"test_where": "part == 'tset'"}, {"test": classes(8), "test_where": "label == 'x'"}):
        with pytest.raises(ss.UsageError, match="task ks: no clips of memory are left to score; look at test_where="):
            cell(**settings)
    with pytest.raises(ss.UsageError, match="no clips of memory are left to score"):
        cell(label="loud", test_where="part == 'test' and loud is None")
    with pytest.raises(ss.UsageError, match="task asv: no clips of memory are left to train on; look at where="):
        cell(task="asv")  # they are shorter than 2 s


def test_names_of_the_axes() -> None:
    found = [(*named[:2], str(named[2])) for named in noises_of(["none", None, "gaussian"], [5, (0.0, 20.0)])]
    assert found[:2] == [("none", "", "None")] * 2
    assert found[2:] == [
        ("gaussian", "5", "gaussian at 5.0 to 5.0 dB"),
        ("gaussian", "0,20", "gaussian at 0.0 to 20.0 dB"),
    ]


@pytest.mark.usefixtures("no_picture")
def test_every_axis_may_be_a_list(tmp_path: Path) -> None:
    sets = [ss.MemoryShards(classes(8)._samples, name) for name in ("one", "other")]
    tasks = ["ks", "sid"]
    found = ss.sweep(tasks, sets, test=classes(), upstream="fbank80", seeds=1, out=tmp_path, **{**SMALL, "steps": 1})
    names = [(one.settings["task"], one.settings["data"], one.seed) for one in found.scores]
    assert names == [(task, name, 0) for task in tasks for name in ("one", "other")]


@pytest.mark.usefixtures("no_picture")
def test_trainings_that_keep_no_features_and_scores_of_trials(tmp_path: Path) -> None:
    """Noise in training, and an upstream that is trained, differ each time; the clean clips that are scored do not."""
    grid: dict[str, Any] = {"upstream": "fbank80", "seeds": 1, "test_where": TEST, **SMALL, "steps": 1}
    noisy = ss.sweep("ks", classes(), noise="gaussian", snr=5.0, noisy_training=True, out=tmp_path / "noisy", **grid)
    assert json.loads(Path(noisy.scores[0].run, "run.json").read_text())["noise"] == "gaussian at 5.0 to 5.0 dB"
    assert list((tmp_path / "noisy/cache").rglob("*.bin"))
    ss.sweep("ks", classes(), cache=tmp_path / "kept", out=tmp_path / "plain", **grid)
    assert (
        sum(len(file.read_text().splitlines()) for file in (tmp_path / "kept").rglob("*.jsonl")) == 12
    )  # of both parts
    assert not (tmp_path / "plain/cache").exists()
    tuned = ss.sweep("ks", classes(), finetune=True, cache=tmp_path / "none", out=tmp_path / "tuned", **grid)
    assert len(tuned.scores) == 1
    assert not (tmp_path / "none").exists()
    trials = [Trial(True, "clip00", "clip00"), Trial(False, "clip00", "clip05")]
    settings = {**grid, "min_seconds": 0.0, "head.hidden_size": 8, "head.last_size": 8, "task.embedding_size": 8}
    scored = ss.sweep("asv", classes(), trials=trials, out=tmp_path / "asv", **settings)
    assert scored.scores[0].figures["trials"] == 2.0


@pytest.mark.usefixtures("no_picture")
def test_two_sweeps_of_one_folder(tmp_path: Path) -> None:
    grid: dict[str, Any] = {"upstream": "fbank80", "seeds": 1, "test_where": TEST, "out": tmp_path, **SMALL}
    holds = "import fcntl, sys; f = open(sys.argv[1], 'a'); fcntl.lockf(f, fcntl.LOCK_EX); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", holds, tmp_path / ".lock"], stdin=-1, stdout=-1) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(ss.StateError, match="works in this folder"):
            ss.sweep("ks", classes(), **grid)
        other.kill()
    scores = ss.sweep("ks", classes(), **{**grid, "seeds": 2}).scores
    assert [one.seed for one in scores] == [0, 1]
    for one in scores:
        (told,) = Path(one.run).glob("scores/*.json")
        assert [json.loads(file.read_text())["seed"] for file in (told, Path(one.run, "run.json"))] == [one.seed] * 2


def test_a_sweep_is_the_work_of_one_process(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second of torchrun's found the folder locked by the first, and ended it."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ss.UsageError, match=r"2 processes were started .* start it without torchrun"):
        ss.sweep("ks", classes(), upstream="fbank80", test_where=TEST, out=tmp_path / "out", **SMALL)
    assert not (tmp_path / "out").exists()


@pytest.mark.usefixtures("no_picture")
def test_the_limit_of_the_cache_holds_for_what_is_scored_too(tmp_path: Path) -> None:
    """A sweep in a larger cache than the usual one deleted the features of others, in a smaller one it filled it."""
    grid: dict[str, Any] = {"upstream": "fbank80", "seeds": 1, "test_where": TEST, **SMALL, "cache": tmp_path / "cache"}
    ss.sweep("ks", classes(), out=tmp_path / "sweep", **grid, cache_gigabytes=0.0)
    assert not list((tmp_path / "cache").rglob("*.bin"))


@pytest.mark.usefixtures("no_picture")
def test_what_is_scored_is_neither_trained_on_nor_chosen_by(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"upstream": "fbank80", "out": tmp_path, **SMALL}
    with pytest.raises(ss.UsageError, match="is trained on"):
        ss.sweep("ks", classes(), **settings)
    for where in (TEST, "label == 'a'"):
        with pytest.raises(ss.UsageError, match="weights would be chosen by them"):
            ss.sweep("ks", classes(), test_where=TEST, valid_where=where, **settings)
    with pytest.raises(ss.UsageError, match="weights would be chosen by them"):
        ss.sweep("ks", classes(), test=classes(8), valid=classes(8), **settings)
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
    (tmp_path / "file").touch()
    with pytest.raises(ss.UsageError, match="file: is a file; give a folder"):
        ss.sweep("ks", classes(), test_where=TEST, **{**settings, "out": tmp_path / "file"})
    (tmp_path / "file").unlink()
    (tmp_path / "lost+found").mkdir()  # a folder is nobody's work
    assert ss.sweep("ks", classes(), test=classes(8), seeds=1, **settings).scores[0].hours > 0


def test_what_is_missing_from_a_sweep_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clips that could not be scored, and the picture; the numbers are there all the same."""
    (tmp_path / "no.wav").write_text("no sound")
    samples = [*classes()._samples, {"key": "no", "wav_path": str(tmp_path / "no.wav"), "label": "a", "part": "test"}]
    grid: dict[str, Any] = {"upstream": "fbank80", "seeds": 1, "test_where": TEST, **SMALL, "quiet": False}
    ss.sweep("ks", ss.MemoryShards(samples), out=tmp_path / "out", **grid)
    assert " seed 0: accuracy" in (told := capsys.readouterr().err)
    assert "1 clips could not be scored" in told
    assert "no sweep.png" not in told
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    (tmp_path / "out/sweep.md").unlink()
    ss.sweep("ks", ss.MemoryShards(samples), out=tmp_path / "out", **{**grid, "quiet": True})
    assert capsys.readouterr().err.startswith("no sweep.png: ")
    assert (tmp_path / "out/sweep.md").is_file()


@pytest.mark.usefixtures("no_picture")
def test_the_command(sample_set: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["sweep", "ks", "--data", str(sample_set), "--label", "digit", "--where", "speaker == 'bruno'"]
    words += ["--test-where", "speaker == 'hugh'", "--upstream", "fbank80", "--steps", "1", "--seeds", "1", "--device"]
    words += ["cpu", "--set", "balance=False", "--out", str(tmp_path)]
    assert main(words) == 0
    shown = capsys.readouterr()
    assert shown.out == (tmp_path / "sweep.md").read_text()
    assert "1 of 1: ks " in shown.err
    assert main([*words, "--json"]) == 0
    settings = json.loads(capsys.readouterr().out)["cells"][0]["settings"]
    assert (settings["noise"], settings["data"]) == ("none", str(sample_set))
    assert main([*words, "--noise", "gaussian", "--snr", "5", "--noisy-training", "--json"]) == 0
    noisy = json.loads(capsys.readouterr().out)["cells"][0]["run"]
    assert json.loads(Path(noisy, "run.json").read_text())["noise"] == "gaussian at 5.0 to 5.0 dB"
    (tmp_path / "trials").write_text("1 a b\n")
    for wrong, said in (
        (["--snr", "5"], "--snr: without --noise"),
        (["--noise", "gaussian", "--snr", "x"], "--snr x:"),
        (["--test", str(whole)], "set has no column 'digit'"),
        (["--trials", str(tmp_path / "trials")], "task ks: trials are for speaker verification"),
    ):
        assert main([*words, *wrong]) == 2
        assert said in capsys.readouterr().err
