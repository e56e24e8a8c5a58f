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


@pytest.fixture(scope="module")
def tool(repository: Path) -> Any:
    return load_tool(repository, "task_table")


def test_its_options_are_those_of_sweep(repository: Path) -> None:
    settings = tomllib.loads((repository / "tools/task_table.toml").read_text("utf-8"))
    parser = build_parser("sweep")
    for row in settings["rows"]:
        words = ["sweep", row["task"], *shlex.split(row["options"]), *shlex.split(settings["common"])]
        args = parser.parse_args([*words, "--upstream", settings["baseline"][row["features"]], "--out", "x"])
        assert args.test_where is not None
        assert (args.subset, args.seeds, args.noise[0]) == (["100%", "10%"], 3, "none")
    named = {row["task"] for row in settings["rows"]}
    assert named == {"ks", "sid", "er", "ic", "asv", "pr", "sd", "asr", "sf"}  # QbE is the tenth
    assert settings["search"]["chosen_on"] != settings["search"]["scored_on"]


SMALL = """
common = "--device cpu --seeds 2 --subset 100% 10% --noise none gaussian --snr 5 --steps 1 --set balance=False"
[baseline]
frames = "fbank"
pooled = "fbank80"
[[rows]]
name = "KS, sample"
task = "ks"
features = "pooled"
options = '''--data "{set}" --label digit --test-where "speaker == 'hugh'"'''
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
    rows = json.loads((tmp_path / "out/KS-sample/sweep.json").read_text("utf-8"))["rows"]
    few = next(row for row in rows if row["settings"]["subset"] == "10%" and row["settings"]["upstream"] == "logmel80")
    assert lines[3][5] == f"{few['mean']['accuracy']:.1%} +- {few['spread']['accuracy']:.1%}"
    assert lines[5][3] == "1.000 (state 0)"  # each word is found
    assert "12 of 12" not in shown.err  # 2 upstreams, 2 amounts, 2 noises, 2 seeds
    assert "16 of 16" in shown.err
    written = {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("losses.jsonl")}
    assert tool.main() == 0
    assert capsys.readouterr().out == shown.out
    assert {file: file.stat().st_mtime_ns for file in (tmp_path / "out").rglob("losses.jsonl")} == written
