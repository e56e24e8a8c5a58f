"""tools/task_table: its own file of settings is true, and its table says what the sweeps say."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from downstream.synthetic import PITCHES, RATE, tone
from tool_modules import load_tool

import s3prl_stream as ss
from s3prl_stream.cli import build_parser
from s3prl_stream.settings import tomllib
from s3prl_stream.tasks import KINDS, Best, CtcText
from s3prl_stream.tasks.ctc import METRICS
from s3prl_stream.tokenizers.vocabulary import CharacterTokenizer


@pytest.fixture(scope="module")
def tool(repository: Path) -> Any:
    return load_tool(repository, "task_table")


def test_its_options_are_those_of_sweep(repository: Path) -> None:
    settings = tomllib.loads((repository / "tools/task_table.toml").read_text("utf-8"))
    parser = build_parser("sweep")
    for row in settings["rows"]:
        words = ["sweep", row["task"], *shlex.split(row["options"]), *shlex.split(settings["common"])]
        args = parser.parse_args([*words, "--upstream", settings["baseline"][row["features"]], "--out", "x"])
        assert (args.where, args.test_where, args.lr) == (None, None, None)  # these are the tool's
        assert (args.subset, args.seeds, args.noise[0]) == (["100%", "10%"], 3, "none")
    named = {row["task"] for row in settings["rows"]}
    assert named == {"ks", "sid", "er", "ic", "asv", "pr", "sd", "asr", "sf"}  # QbE is the tenth
    assert {"scored_on", "chosen_on", "rates"} <= settings["defaults"].keys()
    assert settings["search"]["chosen_on"] != settings["search"]["scored_on"]


def test_of_errors_the_lowest_is_best(tool: Any) -> None:
    known = [one.best for one in KINDS.values() if isinstance(one.best, Best)]
    tokenizer = CharacterTokenizer.from_texts(["ab"])
    known += [CtcText(tokenizer=tokenizer, metrics=[name]).best for name in METRICS if name != "slot_value_cer"]
    assert {one.name for one in known if one.kind == "lowest"} == tool.ERRORS
    assert {"accuracy", "slot_type_f1"} <= {one.name for one in known}


@pytest.mark.usefixtures("no_picture")
def test_a_rate_is_chosen_on_clips_that_are_neither_trained_on_nor_scored(
    tool: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = []
    for number in range(24):
        letter, file = "abcd"[number % 4], tmp_path / f"{number:02d}.wav"
        soundfile.write(file, 0.3 * tone(PITCHES[letter], 0.2 + 0.01 * number), RATE)
        clips.append(ss.Utterance(key=file.stem, audio=file, label=letter, number=number))
    ss.pack(clips, tmp_path / "set", num_workers=0)
    words = ["ks", "--data", str(tmp_path / "set"), "--device", "cpu", "--steps", "30", "--upstream", "fbank80"]
    words += ["--seeds", "2", "--subset", "100%", "50%", "--noise", "none", "gaussian"]
    row = {"name": "tones", "scored_on": "number < 8", "chosen_on": "number < 16", "rates": [1e-7, 3e-2, 1e-1]}
    assert tool.best_rate(row, words, tmp_path / "out") == 3e-2  # the first of equal ones
    assert ", 0.03: 1.0000, 0.1: 1.0000" in capsys.readouterr().err
    for rate in row["rates"]:
        (cell,) = json.loads((tmp_path / f"out/rate-{rate:g}/sweep.json").read_text("utf-8"))["cells"]
        assert cell["hours"] * 3600 == pytest.approx(sum(0.2 + 0.01 * number for number in range(16, 24)))
        (file,) = Path(cell["run"]).glob("scores/*.json")
        assert json.loads(file.read_text("utf-8"))["utterances"] == 8
    assert tool.best_rate({**row, "rates": [0.5]}, words, tmp_path / "none") == 0.5  # nothing to choose
    assert not (tmp_path / "none").exists()


SMALL = """
common = "--device cpu --seeds 2 --subset 100% 10% --noise none gaussian --snr 5 --steps 1 --set balance=False"
[defaults]
scored_on = "speaker == 'hugh'"
chosen_on = "speaker == 'bruno'"
[baseline]
frames = "fbank"
pooled = "fbank80"
[[rows]]
name = "KS, sample"
task = "ks"
features = "pooled"
rates = [1e-3, 1e-2]
options = '''--data "{set}" --label digit'''
[search]
name = "QbE"
features = "pooled"
queries = "{queries}"
documents = "{documents}"
chosen_on = "part == 'dev'"
scored_on = "part == 'test'"
noise = "gaussian"
snr = 5.0
"""


def pack_spoken(out: Path, texts: list[str], parts: list[str]) -> None:
    """A tone for each letter, silence between them; all of it in each part."""
    clips = []
    for part in parts:
        for number, text in enumerate(texts):
            waves = [tone(PITCHES.get(letter, 6_000), 0.1) for letter in text]
            file = out.with_name(f"{part}{number}.wav")
            silence = np.zeros(800)
            soundfile.write(file, 0.3 * np.concatenate([silence, *(one for w in waves for one in (w, silence))]), RATE)
            clips.append(ss.Utterance(key=file.stem, audio=file, text=text, part=part))
    ss.pack(clips, out, num_workers=0)


@pytest.mark.slow
def test_the_whole_of_it_and_again(
    tool: Any,
    sample_set: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pack_spoken(tmp_path / "queries", ["abc", "dab"], ["asked"])
    pack_spoken(tmp_path / "documents", ["dd abc dd", "cc dab cc", "dd cc", "bb aa", "cb ad"], ["dev", "test"])
    places = {name: str(tmp_path / name) for name in ("queries", "documents")}
    (tmp_path / "small.toml").write_text(SMALL.format(set=sample_set, **places), "utf-8")
    words = ["task_table", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out"), "--upstream", "logmel80"]
    monkeypatch.setattr(sys, "argv", words)
    assert tool.main() == 0
    shown = capsys.readouterr()
    lines = [line.strip("| ").split(" | ") for line in shown.out.splitlines()]
    assert [line[:3] for line in lines[2:]] == [
        *(["KS, sample", "accuracy", name] for name in ("fbank80", "logmel80")),
        *(["QbE", "max_twv", name] for name in ("fbank80", "logmel80")),
    ]
    rows = json.loads((tmp_path / "out/KS-sample/logmel80/sweep.json").read_text("utf-8"))["rows"]
    few = next(row for row in rows if row["settings"]["subset"] == "10%")
    assert lines[3][3] in ("0.001", "0.01")
    assert lines[3][6] == f"{few['mean']['accuracy']:.1%} +- {few['spread']['accuracy']:.1%}"
    assert lines[5][4] == "1.000 (state 0)"  # each word is found
    assert shown.err.count("8 of 8") == 2  # for each upstream: 2 amounts, 2 noises, 2 seeds
    assert shown.err.count("1 of 1: ") == 4  # 2 upstreams, 2 rates
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("losses.jsonl")}
    assert tool.main() == 0
    assert capsys.readouterr().out == shown.out
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("losses.jsonl")} == written
