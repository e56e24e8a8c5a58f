"""Packing real recordings, through the command line as a user would."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s3prl_stream.audio.decode import decode
from s3prl_stream.cli import main
from s3prl_stream.shards.shardset import open_shards


def test_librispeech_comes_back_through_webdataset_sample_for_sample(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pack", "librispeech", str(real_data / "LibriSpeech"), str(tmp_path / "set"), "--split", "train-clean-100"]
    assert main([*words, "--workers", "0", "--shard-mb", "10"]) == 0
    out = capsys.readouterr().out
    assert "248 samples, 0.87 h in 6 shards" in out
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        read = list(
            webdataset.WebDataset([str(p) for p in sorted((tmp_path / "set").glob("*.tar"))], shardshuffle=False)
        )
    assert len({sample["__key__"] for sample in read}) == len(read) == 248
    for sample in read:
        key = sample["__key__"]
        speaker, chapter, _ = key.split("-")
        source = real_data / "LibriSpeech/train-clean-100" / speaker / chapter / f"{key}.flac"
        wav, sample_rate = decode(sample["flac"], "flac")
        expected, expected_rate = soundfile.read(source, dtype="int16")
        assert sample_rate == expected_rate
        np.testing.assert_array_equal(wav[:, 0], expected)
        assert json.loads(sample["json"]) == {"chapter": chapter, "speaker": speaker, "split": "train-clean-100"}


def test_the_damaged_wake_words_are_listed_and_the_rest_is_a_set(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["pack", "folder", str(real_data / "wakewords"), str(tmp_path / "set"), "--label-from", "folder"]
    arguments += ["--workers", "0"]
    assert main(arguments) == 1
    out = capsys.readouterr().out
    damaged = {f"alexa/{number}.flac" for number in (127, 142, 144, 229, 275, 32, 33, 34)}
    assert "760 samples" in out
    assert "damaged: 8" in out
    for name in damaged:
        assert any(name in line and "(decode)" in line for line in out.splitlines())
    listed = [json.loads(line) for line in (tmp_path / "set/left_out.jsonl").read_bytes().splitlines()]
    assert {"/".join(Path(line["audio"]).parts[-2:]) for line in listed} == damaged
    shards = open_shards(tmp_path / "set")
    assert len(shards) == 760
    assert set(shards.table().column("label").to_pylist()) == {"alexa", "computer", "jarvis", "view_glass"}
    # The same command again does nothing, and still says what is damaged.
    assert main([*arguments, "--json"]) == 1
    again = json.loads(capsys.readouterr().out)
    assert again["already_there"]
    assert len(again["damaged"]) == 8


def test_odd_files_are_packed_or_named_with_a_reason(
    real_data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["pack", "folder", str(real_data / "odd"), str(tmp_path / "set"), "--json", "--workers", "0"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert {one["key"]: one["reason"] for one in report["damaged"]} == {
        "cut_in_half": "decode",
        "no_frames": "empty",
        "text_not_audio": "decode",
        "zero_bytes": "empty",
    }
    listed = [json.loads(line) for line in (tmp_path / "set/left_out.jsonl").read_bytes().splitlines()]
    assert [(one["kind"], one["reason"]) for one in listed] == [("damaged", one["reason"]) for one in report["damaged"]]
    assert all(one["message"] for one in listed)
    assert main(["verify", str(tmp_path / "set"), "--full", "--workers", "0"]) == 0
    rows = {row["key"]: row for row in open_shards(tmp_path / "set").table().to_pylist()}
    assert len(rows) == report["samples"] == 11
    assert rows["one_sample"]["frames"] == 1
    assert rows["float_8k"]["seconds"] == 1.0
    assert {"dots%2Ein%2Ethe%2Ename%2Ev1%2E5", "dots%2Ein%2Ethe%2Ename%2Ev1%2E6"} < rows.keys()
