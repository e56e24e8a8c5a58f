"""The command line: the frozen set of its options, and one clear line for a newcomer's mistakes."""

from __future__ import annotations

import argparse
import ast
import importlib
import inspect
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from s3prl_stream.cli import COMMANDS, build_parser, main, named

PACK = (
    "OUT --channel --codec --cut-at --engine --json --licence --max-seconds --min-seconds --name --refuse --restart "
    "--sample-rate --seed --shard-mb --split-seconds --threshold --trust-headers --workers"
)
PLANNED = (
    "SET --balance --batch-seconds --batch-size --chunk-seconds --crop-seconds --json --run --seed --subset "
    "--temperature --weights --where"
)
SURFACE = {
    "pack librispeech": f"{PACK} ROOT --split",
    "pack folder": f"{PACK} ROOT --label-from --pattern --table",
    "pack manifest": f"{PACK} ROOT --audio-root --columns-from",
    "pack librilight": f"{PACK} ROOT --split --voice-seconds",
    "pack ljspeech": f"{PACK} ROOT",
    "pack rttm": f"{PACK} ROOT --rttm",
    "pack voxpopuli": f"{PACK} ROOT --language --part --segments --split",
    "pack voxceleb1": f"{PACK} ROOT --iden-split --split --task --trials",
    "pack speechcommands": f"{PACK} ROOT --classes --split --test-root",
    "pack fluentspeechcommands": f"{PACK} ROOT --split",
    "pack audiosnips": f"{PACK} ROOT --all-speakers --split",
    "pack iemocap": f"{PACK} ROOT --emotions",
    "pack quesst14": f"{PACK} ROOT --language --split",
    "pack commonvoice": f"{PACK} ROOT --language --split",
    "pack librimix": f"{PACK} ROOT --mix --rttm --split",
    "pack musan": f"{PACK} ROOT --kind",
    "pack rirs": f"{PACK} ROOT --label --part",
    "pack esc50": f"{PACK} ROOT --esc10",
    "pack fsd50k": f"{PACK} ROOT --split",
    "pack kaldi": f"{PACK} ROOT --audio-root --pipes-into --recordings",
    "pack lhotse": f"{PACK} ROOT --audio-root --only-channel",
    "pack huggingface": f"{PACK} ROOT --key --split --unpack-into",
    "index": "TARS --durations --full --json --name --out --prefix-keys --workers",
    "inspect": "SET --json --top",
    "verify": "SET --full --json --workers",
    "repair": "SET OUT --json --workers",
    "subset": "SET OUT --json --name --shard-mb --subset --where --workers",
    "plan": f"{PLANNED} --blocks --old --whole-epoch",
    "which": f"{PLANNED} --batch --html",
    "view": f"{PLANNED.replace(' --json', '')} --batch --html",
    "pretrain": (
        "RECIPE --attention-dropout --batch-seconds --checkpoint-every --config --crop-seconds --data --device "
        "--dropout --encoder --exclude --ffn-size --heads --hidden-size --init --json --layers --lr --norm --out "
        "--seed --set --skip-batches --steps --subset --teacher --temperature --update-batches --valid-share "
        "--valid-where --weights --where --workers"
    ),
    "report": "RUN_FOLDER --data --json",
    "train": (
        "TASK --batch-seconds --batch-size --cache --cache-gb --checkpoint-every --crop-seconds --data --device "
        "--evaluate-every --finetune --head --json --label --lexicon --lr --noise --normalize --out --precision --seed "
        "--set --snr --steps --subset --temperature --tokenizer --update-batches --upstream --valid --valid-where "
        "--weights --where --workers"
    ),
    "evaluate": "TRAINED --cache --cache-gb --data --device --json --noise --snr --trials --where",
    "sweep": (
        "TASK --batch-seconds --batch-size --cache --cache-gb --checkpoint-every --crop-seconds --data --device "
        "--evaluate-every --finetune --head --json --label --lexicon --lr --noise --noisy-training --normalize --out "
        "--precision --seeds --set --snr --steps --subset --test --test-where --tokenizer --trials --update-batches "
        "--upstream --valid --valid-where --where --workers"
    ),
    "predict": "TRAINED FILES --data --device --json --where",
    "search": (
        "--data --device --document-label --json --label --layer --noise --queries --queries-where --snr --upstream "
        "--where"
    ),
    "extract": (
        "--batch-seconds --data --device --dtype --json --layers --name --out --shard-mb --subset --upstream --where "
        "--workers"
    ),
    "export": "PRETRAINED OUT",
    "probe": "--center --data --device --holdout --json --label --seeds --test-where --upstream --where",
    "chaos-serve": "--faults --json --log --port --seed --upstream",
    "quickstart": "--data --label-from --out --pattern --steps --table",
}
"""Every option of every command. A new one is a decision: add it here, and a line to CHANGELOG.md."""


def options_of(parser: argparse.ArgumentParser, name: str) -> dict[str, set[str]]:
    """Command -> its options and, in capitals, its positional arguments; commands with commands inside are opened."""
    inner = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    if inner:
        choices = inner[0].choices.items()
        return {words: found for word, sub in choices for words, found in options_of(sub, f"{name} {word}").items()}
    shown = (action for action in parser._actions if not isinstance(action, argparse._HelpAction))
    return {name: {action.option_strings[-1] if action.option_strings else action.dest.upper() for action in shown}}


@pytest.mark.parametrize("command", COMMANDS)
def test_options_are_the_frozen_ones(command: str) -> None:
    frozen = {name: set(words.split()) for name, words in SURFACE.items() if name.split()[0] == command}
    everything = build_parser(command)
    choices = next(action for action in everything._actions if isinstance(action, argparse._SubParsersAction)).choices
    assert options_of(choices[command], command) == frozen


def names_read(function: Callable[..., Any]) -> set[str]:
    """What a function of `cli` reads of `args`, with the functions and the tables of `cli` that it uses."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(inspect.getsource(function))):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "args":
            found.add(node.attr)
        elif isinstance(node, ast.Tuple | ast.Call):  # of names to be looked up one by one
            parts = node.elts if isinstance(node, ast.Tuple) else node.args if calls_named(node) else []
            found |= {one.value for one in parts if isinstance(one, ast.Constant) and isinstance(one.value, str)}
        elif isinstance(node, ast.Name) and node.id != function.__name__:
            used = function.__globals__.get(node.id)
            if inspect.isfunction(used) and used.__module__.startswith("s3prl_stream.cli"):
                found |= names_read(used)
            elif isinstance(used, dict | tuple):
                names = {*used, *used.values()} if isinstance(used, dict) else used
                found |= {str(one).replace("-", "_") for one in names}
    return found


def calls_named(node: ast.Call) -> bool:
    return isinstance(node.func, ast.Name) and node.func.id == named.__name__


@pytest.mark.parametrize("command", COMMANDS)
def test_no_option_is_forgotten(command: str) -> None:
    """Each is read by what the command runs."""
    found = names_read(importlib.import_module(f"s3prl_stream.cli.{command.replace('-', '_')}").run)
    commands = next(one for one in build_parser(command)._actions if isinstance(one, argparse._SubParsersAction))
    parser = commands.choices[command]
    if command == "pack":  # each corpus has options of its own, which it names itself
        corpora = next(one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
        parser = corpora.choices["rttm"]
        found.add("rttm")
    assert {one.dest for one in parser._actions} - {"help"} <= found


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    assert all(f"    {command}" in shown for command in COMMANDS)


def complaint(arguments: list[str | Path], capsys: pytest.CaptureFixture[str]) -> str:
    """The only line that a command prints which exits 2."""
    try:
        status: object = main([str(word) for word in arguments])
    except SystemExit as stop:
        status = stop.code
    shown = capsys.readouterr()
    lines = shown.err.splitlines()
    assert (status, shown.out, len(lines)) == (2, "", 1), shown.err
    assert lines[0].startswith("s3prl-stream")
    return lines[0]


@pytest.fixture
def recordings(tmp_path: Path) -> Path:
    """A folder with one second of quiet noise."""
    folder = tmp_path / "recordings"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(-100, 100, 16_000).astype(np.int16)
    soundfile.write(folder / "one.wav", noise, 16_000)
    return folder


@pytest.mark.parametrize(
    "command",
    [
        *("pack folder no/such/place OUT", "inspect no/such/place", "plan no/such/place", "verify no/such/place"),
        *("which no/such/place --batch 0", "view no/such/place", "quickstart --data no/such/place --out OUT"),
        *("report no/such/place", "evaluate no/such/place --data OUT", "predict no/such/place --data OUT"),
        "export no/such/place OUT",
    ],
)
def test_a_missing_folder(command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint([tmp_path / "out" if word == "OUT" else word for word in command.split()], capsys)
    assert re.search("no/such/place: .*no such folder", line)
    assert ("or the output folder of `s3prl-stream pretrain`" in line) is command.startswith(("which", "view"))


def test_no_audio_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.txt").write_text("no sound here")
    assert "no audio" in complaint(["pack", "folder", tmp_path / "empty", tmp_path / "set"], capsys)
    assert not (tmp_path / "set" / "manifest.json").exists()


def test_a_wrong_split_names_those_that_are_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "corpus" / "train-clean-100" / "19" / "198").mkdir(parents=True)
    words = ["pack", "librispeech", tmp_path / "corpus", tmp_path / "set", "--split", "train-clean-10"]
    line = complaint(words, capsys)
    assert "train-clean-10" in line
    assert "train-clean-100" in line


def test_an_output_folder_that_holds_another_set(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    assert main(["pack", "folder", str(recordings), str(out), "--seed", "1", "--workers", "0"]) == 0
    before = (out / "manifest.json").read_bytes()
    capsys.readouterr()
    assert str(out) in complaint(["pack", "folder", recordings, out, "--seed", "2"], capsys)
    assert (out / "manifest.json").read_bytes() == before


@pytest.mark.parametrize("steps", ["abc", "1.5", "0", "-3"])
def test_steps_that_are_no_count(
    steps: str, sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[str | Path] = ["pretrain", "tera", "--data", sample_set, "--out", tmp_path / "run", "--steps", steps]
    assert "steps" in complaint(words, capsys)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "where", ["__import__('os').system('true')", "len(text) > 3", "speaker = 'ada'", "no_such == 1"]
)
def test_a_where_that_is_no_comparison(where: str, sample_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    complaint(["plan", sample_set, "--where", where], capsys)


def test_options_that_are_for_others(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: list[str | Path] = ["pretrain", "npc", "--data", sample_set, "--out", tmp_path / "run", "--steps", "1"]
    assert "--heads: recipe npc has no such setting; `--set help`" in complaint([*words, "--heads", "3"], capsys)
    words = ["quickstart", "--data", sample_set, "--out", tmp_path / "out", "--label-from", "folder"]
    assert "is a packed set; --label-from is for a folder of audio files" in complaint(words, capsys)


def test_a_setting_of_a_sweep_that_is_an_axis_too(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words: list[str | Path] = ["sweep", "ks", "--data", sample_set, "--upstream", "logmel80", "--label", "digit"]
    words += ["--test-where", "speaker == 'hugh'", "--out", tmp_path / "sweep", "--set", "head=no_such"]
    assert "head 'no_such' is unknown" in complaint(words, capsys)


def test_an_unknown_recipe(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words: list[str | Path] = ["pretrain", "tear", "--data", sample_set, "--out", tmp_path / "run", "--steps", "1"]
    assert "tera" in complaint(words, capsys)


def test_a_run_of_other_data(
    sample_set: Path, recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sizes = ["--steps", "1", "--hidden-size", "16", "--layers", "1", "--heads", "2", "--ffn-size", "16"]
    assert main(["pack", "folder", str(recordings), str(tmp_path / "set"), "--workers", "0"]) == 0
    run = ["--out", str(tmp_path / "run"), *sizes]
    assert main(["pretrain", "tera", "--data", str(tmp_path / "set"), *run]) == 0
    capsys.readouterr()
    assert "data was" in complaint(["pretrain", "tera", "--data", sample_set, *run], capsys)


def test_a_command_that_does_not_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert "invalid choice: 'pakc'" in complaint(["pakc"], capsys)
    assert "COMMAND" in complaint([], capsys)


def test_what_the_system_says_is_one_line(
    sample_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("")
    for out in (tmp_path / "file/inside", Path("/proc/none"), tmp_path / ("long" * 100)):
        assert main(["subset", str(sample_set), str(out), "--subset", "1%", "--workers", "1"]) == 1
        shown = capsys.readouterr()
        assert (shown.out, shown.err.count("\n")) == ("", 1)
        assert str(out) in shown.err
    monkeypatch.setattr(sys, "stdout", None)  # as of a process that was started without one
    assert main(["inspect", str(sample_set)]) == 0


def test_a_full_disk_is_one_line_that_says_what_to_do(
    sample_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    full = open("/dev/full", "w")  # noqa: SIM115  # closing it fails, too
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", full)
        assert main(["inspect", str(sample_set)]) == 1
    with pytest.raises(OSError, match="No space left"):
        full.close()
    said = "s3prl-stream: a file: No space left on device. Make room, and give the same command again.\n"
    assert capsys.readouterr().err == said


def test_words_that_no_command_takes(sample_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert complaint(["inspect", sample_set, "--bogus"], capsys).endswith(
        "inspect: unrecognized arguments: --bogus. See `s3prl-stream inspect --help`."
    )
    # Python before 3.13 takes no files behind options either, as in `predict RUN --json FILE`
    assert "before the options" in complaint(["evaluate", "run", "--data", "a", "b"], capsys)
    assert "before the options" not in complaint(["repair", "a", "b", "c"], capsys)


def test_a_closed_pipe_is_quiet(sample_set: Path) -> None:
    command = f"'{sys.executable}' -m s3prl_stream inspect '{sample_set}' | head -n 1"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_a_locale_without_utf8_is_told() -> None:
    environment = {**os.environ, "LC_ALL": "C", "PYTHONUTF8": "0"}
    command = [sys.executable, "-m", "s3prl_stream", "--version"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stderr.startswith("s3prl-stream: Python reads names of files as ascii here")
    assert done.stderr.endswith("Set PYTHONUTF8=1.\n")
