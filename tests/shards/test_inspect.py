"""`inspect`: hours by columns, durations, codecs, and what packing found, from the index alone."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from synthetic_index import make_synthetic_index

import s3prl_stream as ss
from s3prl_stream.cli import main

RATE = 16_000


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of two languages and two codecs: two clipped, one silent, one file that is text."""
    folder = tmp_path_factory.mktemp("mixed")
    rng = np.random.default_rng(0)
    rows = []
    for number in range(6):
        wav = rng.integers(-3000, 3000, RATE * (number + 1)).astype(np.int16)
        if number < 2:
            wav[::2] = np.where(wav[::2] > 0, 32767, -32768)
        elif number == 2:
            wav[:] = 0
        name = f"{number}.{'flac' if number % 2 else 'ogg'}"
        soundfile.write(folder / name, wav, RATE)
        rows.append({"audio": name, "language": "de" if number < 2 else "en", "split": "train" if number else None})
    (folder / "bad.flac").write_text("no sound")
    rows.append({"audio": "bad.flac", "language": "en", "split": "train"})
    (folder / "m.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = ss.corpora.WithFiles(ss.corpora.manifest(folder / "m.jsonl"), {"trials.txt": b"1 a b\n"})
    ss.pack(corpus, folder / "set", codec="original")
    return folder / "set"


def test_everything_as_json(mixed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(mixed), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["samples"] == 6
    assert facts["hours_by"]["language"] == pytest.approx({"en": 18 / 3600, "de": 3 / 3600})
    assert facts["hours_by"]["split"] == pytest.approx({"train": 20 / 3600, "(none)": 1 / 3600})
    assert facts["hours_by"]["codec"] == pytest.approx({"flac": 12 / 3600, "ogg": 9 / 3600})
    assert facts["codecs"] == {"flac": 3, "ogg": 3}
    assert facts["findings"]["clipped"]["samples"] == 2
    assert facts["findings"]["clipped"]["hours"] == pytest.approx(3 / 3600)
    assert facts["findings"]["silent"] == pytest.approx({"samples": 1, "hours": 3 / 3600})
    assert facts["damaged"] == 1
    assert facts["files"] == ["files/trials.txt"]
    report = json.loads((mixed / "report.json").read_bytes())["findings"]
    found = {name: one["samples"] for name, one in report.items() if one["samples"]}
    assert {name: one["samples"] for name, one in facts["findings"].items()} == found


def test_what_a_person_sees(mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(mixed)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "left out: 1 damaged" in lines
    assert "files: files/trials.txt" in lines
    assert any(line.split() == ["clipped", "0.05", "min", "2"] for line in lines)
    durations = [
        line.split()[:5]
        for line in lines[lines.index("durations") + 1 : lines.index("findings (words in the column findings)") - 1]
    ]
    assert durations == [
        ["1", "-", "2", "s", "1"],
        ["2", "-", "3", "s", "1"],
        ["3", "-", "4", "s", "1"],
        ["4", "-", "6", "s", "2"],
        ["6", "-", "8", "s", "1"],
    ]
    assert any(line.split() == ["flac", "0.20", "min"] for line in lines)  # by codec, because there are two
    ss.subset(mixed, tmp_path / "part", "50%", where="language == 'en'")
    assert main(["inspect", str(tmp_path / "part")]) == 0
    assert "subset: 50% where language == 'en', of set (" in capsys.readouterr().out


def test_several_sets_are_not_inspected_as_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in "ab":
        make_synthetic_index(tmp_path / name, 1, samples_per_shard=5, name=name)
    assert main(["inspect", f"{tmp_path}/{{a,b}}"]) == 2
    assert "2 sets; inspect them one by one" in capsys.readouterr().err
