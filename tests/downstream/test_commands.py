"""The commands train, evaluate, predict and search, in one process, on the sample set and on packed recordings."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from downstream.synthetic import RATE, tone

import s3prl_stream as ss
from s3prl_stream.cli import build_parser, main
from s3prl_stream.cli.train import snr_from, training_settings
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.vocabulary import WordTokenizer

USED = "speaker in ('bruno', 'hugh', 'jonah') and digit is not None"
KS = ["train", "ks", "--upstream", "logmel80", "--device", "cpu"]


@pytest.fixture(scope="module")
def trained(sample_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run on digits of the sample set."""
    out = tmp_path_factory.mktemp("runs") / "ks"
    words = [*KS, "--data", str(sample_set), "--label", "digit"]
    words += ["--where", USED, "--valid-where", "speaker == 'hugh'", "--steps", "30", "--lr", "1e-2", "--normalize"]
    words += ["--evaluate-every", "10", "--set", "balance=False", "--set", "head.hidden_size=32", "--out", str(out)]
    assert main(words) == 0
    return out


def test_train_and_evaluate(
    trained: Path, sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = json.loads((trained / "run.json").read_text())
    assert settings["recipe_head_settings"] == {"hidden_size": 32}
    assert settings["valid_where"] == "speaker == 'hugh'"
    words = ["evaluate", str(trained), "--data", str(sample_set), "--device", "cpu"]
    of_hugh = ["--where", "speaker == 'hugh' and digit is not None"]
    assert main([*words, *of_hugh, "--cache", str(tmp_path / "kept"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    metrics = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    assert result["figures"]["accuracy"] == pytest.approx(max(line["valid_accuracy"] for line in metrics))
    assert result["figures"]["accuracy"] > 0.3  # ten digits
    none = ["--cache", str(tmp_path / "none"), "--cache-gb", "0"]
    assert main([*words, "--where", USED, "--noise", "gaussian", "--snr", "-10", *none]) == 0
    assert "accuracy" in capsys.readouterr().out
    assert {path.relative_to(tmp_path).parts[0] for path in tmp_path.rglob("*.bin")} == {"kept"}


def test_the_report_draws_the_weights_of_layers(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(trained)]) == 0
    page = (trained / "report/index.html").read_text()
    for name in ("layer_weights.png", "metrics.png"):
        assert name in page
        assert (trained / "report" / name).read_bytes().startswith(b"\x89PNG")


def test_the_same_command_says_that_it_is_done(
    trained: Path, sample_set: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*KS, "--data", str(sample_set), "--label", "digit"]
    words += ["--where", USED, "--valid-where", "speaker == 'hugh'", "--steps", "30", "--lr", "1e-2", "--normalize"]
    words += ["--set", "balance=False", "--set", "head.hidden_size=32", "--out", str(trained)]
    assert main(words) == 0
    assert "30 steps are done already" in capsys.readouterr().out
    for rank in ("1", "second"):  # of torchrun's processes: one summary, whole and once
        with monkeypatch.context() as patch:
            patch.setenv("RANK", rank)
            assert main([*words, "--json"]) == 0
        assert capsys.readouterr().out == ""
    assert main([*words, "--subset", "50%"]) == 2
    assert "subset was None, is '50%'" in capsys.readouterr().err


def test_clips_without_a_label_or_of_unknown_classes_are_counted(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digit = json.loads((trained / "run.json").read_text())["task_config"]["categories"][0]
    for number in range(6):
        soundfile.write(tmp_path / f"{number}.wav", 0.3 * tone(400 + 900 * number, 0.4), RATE)
    (tmp_path / "table.csv").write_text(f"file,digit\n0.wav,{digit}\n1.wav,\n2.wav,\n3.wav,77\n4.wav,88\n5.wav,77\n")
    assert main(["pack", "manifest", str(tmp_path / "table.csv"), str(tmp_path / "set"), "--workers", "1"]) == 0
    capsys.readouterr()
    assert main(["evaluate", str(trained), "--data", str(tmp_path / "set"), "--device", "cpu"]) == 0
    told = capsys.readouterr().out
    assert "4 utterances, 2 more have no label\n" in told
    assert "of classes that were not trained on, so that they count as missed:\n  2 77\n  1 88\n" in told


def test_what_is_not_trained_on_is_counted(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [*KS, "--data", str(sample_set), "--label", "digit"]
    words += ["--where", "speaker == 'hugh'", "--steps", "1", "--set", "min_seconds=0.4", "--out", str(tmp_path)]
    rows = [row for row in _rows(sample_set) if row["speaker"] == "hugh"]
    without = sum(row["digit"] is None for row in rows)
    short = sum(row["digit"] is not None and row["seconds"] <= 0.4 for row in rows)
    assert 0 < without < without + short < len(rows)
    assert main(words) == 0
    assert f"\nnot trained on: {without} without digit, {short} not above 0.4 s\n" in capsys.readouterr().out


def test_predict(trained: Path, sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("0.wav", "1.aiff", ".hidden.wav")):
        soundfile.write(tmp_path / name, 0.3 * tone(400 + 900 * number, 0.4), RATE)
    assert main(["predict", str(trained), str(tmp_path), "--device", "cpu"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[0] for line in lines] == [str(tmp_path / "0.wav"), str(tmp_path / "1.aiff")]
    assert main(["predict", str(trained), "--data", str(sample_set), "--json", "--device", "cpu"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    digits = json.loads((trained / "run.json").read_text())["task_config"]["categories"]
    assert len(rows) > 100
    assert {row["answer"] for row in rows} | {line[1] for line in lines} <= set(digits)
    part = ["--data", str(sample_set), "--where", "speaker == 'hugh'", "--json", "--device", "cpu"]
    assert main(["predict", str(trained), *part]) == 0
    of_hugh = {row["key"] for row in _rows(sample_set) if row["speaker"] == "hugh"}
    found = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert found == [row for row in rows if row["key"] in of_hugh]
    [newest] = (trained / "checkpoints").iterdir()
    assert main(["predict", str(newest), *part]) == 0  # any checkpoint may be named
    assert len(capsys.readouterr().out.splitlines()) == len(found)
    for words in ([], [str(tmp_path / "none.wav")], [str(tmp_path), "--where", "take == 0"]):
        assert main(["predict", str(trained), *words]) == 2
    told = capsys.readouterr().err
    assert "no such file" in told
    assert "--where selects clips of --data SET" in told


def test_what_cannot_be_read_is_told(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A damaged clip or file costs itself, and the exit status says that one is missing."""
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", 0.3 * tone(400 + 900 * number, 0.4), RATE)
    _set_with_a_damaged_clip(tmp_path)
    assert main(["predict", str(trained), "--data", str(tmp_path / "set"), "--json", "--device", "cpu"]) == 1
    shown = capsys.readouterr()
    assert len(shown.out.splitlines()) == 2
    assert "1 of 3 clips could not be read" in shown.err
    train = [*KS, "--data", str(tmp_path / "set"), "--label", "number", "--seed", "3", "--set", "balance=False"]
    train += ["--out", str(tmp_path / "run")]
    for steps, told in ((1, "1 steps, "), (2, "steps 2 to 2, ")):
        assert main([*train, "--steps", str(steps)]) == 0
        shown = capsys.readouterr()
        assert shown.out.startswith(f"{tmp_path}/run: {told}")
        assert "\n1 clips were left out: longer than a batch may be (--batch-seconds), or not usable\n" in shown.out
    assert json.loads((tmp_path / "run/run.json").read_text())["seed"] == 3
    (tmp_path / "notes.wav").write_text("no sound")
    files = [str(tmp_path / name) for name in ("0.wav", "notes.wav", "1.wav")]
    assert main(["predict", str(trained), *files, "--device", "cpu"]) == 1
    shown = capsys.readouterr()
    assert [line.split("\t")[0] for line in shown.out.splitlines()] == [files[0], files[2]]
    assert shown.err.startswith(f"1 of 3 files could not be read\n  {files[1]}: ")
    assert shown.err.count(files[1]) == 1


def test_speaker_scores_are_of_pairs(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = str(tmp_path / "asv")
    words = ["train", "asv", "--data", str(sample_set), "--upstream", "logmel80", "--device", "cpu", "--steps", "2"]
    words += ["--set", "min_seconds=0.0", "--set", "head.hidden_size=16", "--set", "head.last_size=16", "--out", run]
    words += ["--set", "crop_seconds=none", "--set", "head.spec_augment=false"]  # as in TOML; Python's words do too
    assert main([*words, "--where", USED, "--set", "head.project_size=16", "--set", "task.embedding_size=8"]) == 0
    settings = json.loads((tmp_path / "asv/run.json").read_text())
    assert (settings["recipe_crop_seconds"], settings["recipe_head_settings"]["spec_augment"]) == (None, False)
    for number in range(3):
        noise = np.random.default_rng(number).normal(size=8000) * 0.1
        soundfile.write(tmp_path / f"{number}.wav", noise, RATE)
    capsys.readouterr()
    files = [str(tmp_path / f"{number}.wav") for number in range(3)]
    assert main(["predict", run, *files, "--device", "cpu"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[:2] for line in lines] == [files[:2], files[::2], files[1:]]
    assert all(-1.0001 <= float(line[2]) <= 1.0001 for line in lines)
    trials = tmp_path / "trials.txt"
    keys = [row["key"] for row in _rows(sample_set)]
    trials.write_text(f"1 {keys[0]} {keys[0]}\n0 {keys[0]} {keys[1]}\n")
    words = ["evaluate", run, "--data", str(sample_set), "--trials", str(trials), "--json", "--device", "cpu"]
    assert main(words) == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["figures"]["trials"], shown["utterances"]) == (2.0, 2)  # of more than 100
    broken, one, other = _set_with_a_damaged_clip(tmp_path)
    words = ["evaluate", run, "--data", str(tmp_path / "set"), "--device", "cpu", "--trials", str(trials)]
    trials.write_text(f"1 {one} {one}\n0 {one} {other}\n1 {other} {broken}\n0 {broken} {one}\n")
    assert main([*words, "--json"]) == 1  # the clip costs its trials alone
    shown = json.loads(capsys.readouterr().out)
    assert (shown["figures"]["trials"], shown["damaged"], shown["utterances"]) == (2.0, 1, 2)
    assert shown["figures"]["equal_error_rate"] == 0.0
    assert shown["trials_not_scored"] == [[True, other, broken], [False, broken, one]]
    assert main(words) == 1
    assert f"2 of 4 trials could not be scored:\n  1 {other} {broken}\n  0 {broken} {one}\n" in capsys.readouterr().out
    trials.write_text(f"1 {one} {broken}\n0 {broken} {other}\n")
    assert main(words) == 2
    assert (
        "none of the 2 trials can be scored, as clips of them could not be used; the first: " in capsys.readouterr().err
    )
    assert main([*words, "--where", "seconds > 99"]) == 2
    assert "where='((seconds > 99) and key in trials)' selects none of the 3 samples" in capsys.readouterr().err
    trials.write_text(f"1 {one} nobody\n0 {broken} {other}\n")
    assert main(words) == 2
    assert "1 keys, such as 'nobody', are not among the utterances" in capsys.readouterr().err


def test_search(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["search", "--queries", str(sample_set), "--upstream", "logmel80", "--device", "cpu", "--label", "digit"]
    words += ["--queries-where", "speaker == 'bruno' and digit < 3"]
    documents = ["--data", str(sample_set), "--where", "speaker == 'bruno'"]
    assert main([*words, *documents, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["max_twv"] > 0.5  # each query is among the documents too
    spoken = [row["digit"] for row in _rows(sample_set) if row["speaker"] == "bruno" and row["digit"] is not None]
    assert (result["queries"], result["documents"]) == (sum(digit < 3 for digit in spoken), len(spoken))
    for number in range(3):
        soundfile.write(tmp_path / f"{number}.wav", 0.3 * tone(400 + 900 * number, 0.4), RATE)
    _set_with_a_damaged_clip(tmp_path)
    noise = ["--noise", "gaussian", "--snr", "-60", "--layer", "0"]
    assert main([*words, "--data", str(tmp_path / "set"), "--document-label", "number", *noise]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith(
        f"{result['queries']} queries in 2 documents, 1 clips could not be read\n  layer  0  max. TWV "
    )
    assert main([*words, *documents, *noise, "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["max_twv"] < result["max_twv"] / 2
    assert main([*words, *documents, "--layer", "1"]) == 2
    assert "layer 1: this upstream has hidden states 0 to 0" in capsys.readouterr().err


EVERY_OPTION: dict[str, tuple[str, Any]] = {
    "steps": ("steps", 1), "lr": ("lr", 0.5), "batch-size": ("max_batch_size", 2), "workers": ("num_workers", 8),
    "batch-seconds": ("max_batch_seconds", 3.0), "update-batches": ("update_batches", 4), "where": ("where", "a > 1"),
    "crop-seconds": ("crop_seconds", 5.0), "evaluate-every": ("evaluate_every", 6), "cache": ("cache", "kept"),
    "valid-where": ("valid_where", "b < 2"), "cache-gb": ("cache_gigabytes", 7.0), "device": ("device", "meta"),
    "precision": ("precision", "bf16"), "checkpoint-every": ("checkpoint_every", 9),
}  # fmt: skip
"""Option -> (setting, value)."""


def test_what_options_are_short_for(sample_set: Path, tmp_path: Path) -> None:
    words = ["train", "ic", "--data", "a", "--upstream", "fbank", "--out", "b", "--label", "action,object"]
    assert training_settings(build_parser("train").parse_args(words))["label"] == ["action", "object"]
    Lexicon({"ab": "K"}).save(tmp_path / "words.txt")
    tokenizer = WordTokenizer(["K"])
    tokenizer.save(tmp_path / "tokenizer")
    words += ["--tokenizer", str(tmp_path / "tokenizer"), "--lexicon", str(tmp_path / "words.txt")]
    words += ["--valid", str(sample_set), "--set", "head.hidden_size=64", "--normalize", "--finetune"]
    for option, (_, value) in EVERY_OPTION.items():
        words += [f"--{option}", str(value)]
    settings = training_settings(build_parser("train").parse_args(words))
    assert settings.pop("tokenizer") == tokenizer
    assert settings.pop("lexicon").fingerprint == Lexicon({"ab": "K"}).fingerprint
    assert [member.name for member in settings.pop("valid").members] == ["sample"]
    assert settings == {
        **dict(EVERY_OPTION.values()), "label": ["action", "object"], "head.hidden_size": 64, "normalize": True,
        "finetune": True,
    }  # fmt: skip
    assert (snr_from("-5"), snr_from("3,20")) == ((-5.0, -5.0), (3.0, 20.0))


def test_settings_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    beside = ["--data", "no/set", "--upstream", "fbank", "--set", "help", "--out", str(tmp_path / "out")]
    assert main(["train", "sd", *beside]) == 0
    listed = capsys.readouterr().out
    lines = [line.split(" = ") for line in listed.splitlines()]
    shown = {name.strip(): value for name, value in lines}
    assert (shown["lr"], shown["head.bidirectional"], shown["subset"]) == ("0.0001", "False", "none")
    assert (shown["task.num_speakers"], shown["task.median_frames"]) == ("2", "11")
    assert not {"name", "kind", "head.pooling", "task.frame_seconds"} & shown.keys()
    assert main(["sweep", "sd", "ks", *beside]) == 0
    assert capsys.readouterr().out == listed
    assert main(["train", "ks", *beside, "--head", "linaer"]) == 2
    assert "head 'linaer' is unknown; there are linear" in capsys.readouterr().err


def test_wrong_use_is_told_in_one_line(trained: Path, sample_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = ["--data", str(sample_set)]
    train = ["train", "ks", *data, "--upstream", "fbank80", "--label", "digit", "--out", str(trained.parent / "x")]
    cases = {
        "evaluate --snr: without --noise": ["evaluate", str(trained), *data, "--snr", "3"],
        "train --snr: without --noise": [*train, "--snr", "3"],
        "--set lr: 'fast' is not a number": [*train, "--set", "lr=fast"],
        "--set steps: 1.5 is not a whole number": [*train, "--set", "steps=1.5"],
        "--set out: there is no such setting": [*train, "--set", "out=y"],
        "--set balanced: there is no such setting; did you mean balance?": [*train, "--set", "balanced=1"],
        "--set labels: 'digit' is not": [*train, "--set", "labels=digit"],
        "is a run of `s3prl-stream train`; give one of": [*train, "--upstream", str(trained)],
        "is a run of `s3prl-stream train`; give one of `s3prl-stream pretrain`": [
            *("which", str(trained), str(sample_set), "--batch", "0"),
        ],
        "give the output folder of `s3prl-stream train`": ["evaluate", str(sample_set), *data],
        "--snr loud": ["evaluate", str(trained), *data, "--noise", "gaussian", "--snr", "loud"],
        "trials are for speaker verification": ["evaluate", str(trained), *data, "--trials", __file__],
        "give NAME=VALUE": ["train", "ks", *data, "--upstream", "fbank", "--out", "x", "--set", "balance"],
        "no run.json": ["evaluate", str(trained.parent), *data],
        "sample has 'seconds' in its index alone, not with its clips; these have accent, digit,": [
            *("train", "asr", *data, "--upstream", "fbank80", "--label", "seconds", "--out", str(trained.parent / "x")),
        ],
        "task ks: none of the clips of sample that may be trained on has digit; look": [
            *train,
            "--where",
            "digit is None",
        ],
        "task ks: all clips of sample that may be trained on have one digit, '7'": [*train, "--where", "digit == 7"],
        "cannot be evaluated: a column is compared with a value of another kind": [*train, "--where", "take == 'one'"],
        "label= (--label): 'digit' of sample holds int64, expected text": [
            *("train", "asr", *data, "--upstream", "fbank80", "--label", "digit", "--out", str(trained.parent / "x")),
        ],
        "task frames: none of the clips of sample that may be trained on has segments": [
            *("train", "frames", *data, "--upstream", "fbank80", "--out", str(trained.parent / "x")),
        ],
        "got an unexpected keyword argument 'margin'; it takes label, categories": [*train, "--set", "task.margin=1"],
        "task sd: num_speakers: True is not a whole number": [
            *("train", "sd", *data, "--upstream", "fbank80", "--out", str(trained.parent / "x")),
            *("--set", "task.num_speakers=true"),
        ],
        "holds a run of `s3prl-stream train`; give another output folder": [
            *("pretrain", "tera", *data, "--out", str(trained), "--steps", "1", "--hidden-size", "8", "--heads", "2"),
            *("--layers", "1", "--ffn-size", "8"),
        ],
    }
    for said, words in cases.items():
        assert main(words if words[0] == "which" else [*words, "--device", "cpu"]) == 2, said
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert said in error or "trials are for" in said, error


def _set_with_a_damaged_clip(folder: Path) -> list[str]:
    """Packs three files there into "set" and returns the keys, the damaged one first."""
    clips = [ss.Utterance(key=str(number), audio=folder / f"{number}.wav", number=number) for number in range(3)]
    ss.pack(clips, folder / "set", num_workers=0)
    with next((folder / "set").glob("*.tar")).open("r+b") as file:
        file.seek(1024)
        file.write(bytes(64))
    return [row["key"] for row in sorted(_rows(folder / "set"), key=lambda row: row["offset"])]


def _rows(sample_set: Path) -> list[dict[str, Any]]:
    from s3prl_stream.shards.shardset import open_shards

    rows: list[dict[str, Any]] = open_shards(str(sample_set)).table().to_pylist()
    return rows
