"""A newcomer's mistakes in front of `pack`: one clear line, an exit status, and no half-made set."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
from corpora import layouts
from corpora.trees import listed, tree

from s3prl_stream.cli import main
from s3prl_stream.corpora import CORPORA
from s3prl_stream.corpora.corpus import Corpus
from s3prl_stream.errors import UsageError


def complaint(capsys: pytest.CaptureFixture[str], *words: str | Path) -> str:
    """The only line of a command that exits with 2; nothing was written."""
    out = Path(words[3])
    assert main([str(word) for word in words]) == 2
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("s3prl-stream")]
    assert len(lines) == 1
    assert not (out / "manifest.json").exists()
    return lines[0]


WITH_SPLITS = [corpus.name for corpus in CORPORA if any(option.name == "split" for option in corpus.options)]


@pytest.mark.parametrize("name", sorted({*WITH_SPLITS} - {"huggingface"}))
def test_a_split_that_is_not_there(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = getattr(layouts, name)(tmp_path / "corpus")
    more = ["--part", "transcribed"] if name == "voxpopuli" else []
    line = complaint(capsys, "pack", name, root, tmp_path / "set", "--split", "trian", *more)
    assert re.search(r"no split 'trian'\. It has: \w+", line)


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_a_root_that_is_not_there(corpus: Corpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = complaint(capsys, "pack", corpus.name, tmp_path / "absent", tmp_path / "set")
    assert str(tmp_path / "absent") in line
    assert "no such" in line or "no manifest" in line


@pytest.mark.parametrize(
    ("name", "table"),
    [
        ("commonvoice", "en/train.tsv"),
        ("esc50", "meta/esc50.csv"),
        ("fluentspeechcommands", "data/train_data.csv"),
        ("fsd50k", "FSD50K.ground_truth/dev.csv"),
        ("voxpopuli", "unlabelled_data/unlabelled_v2.tsv"),
        ("huggingface", "train/metadata.csv"),
    ],
)
def test_a_table_without_a_column(name: str, table: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {table: "nothing,else\n1,2\n", "train/a.wav": ""}
    root = tree(tmp_path / "corpus", files) if name == "huggingface" else getattr(layouts, name)(tmp_path / "corpus")
    (root / f"{table}.gz").unlink(missing_ok=True)
    (root / table).write_text(files[table].replace(",", "\t" if table.endswith(".tsv") else ","))
    options = ["--language", "en", "--split", "train"] if name == "commonvoice" else []
    line = complaint(capsys, "pack", name, root, tmp_path / "set", *options)
    assert f"{table}, line 2: no column" in line


def test_two_utterances_of_one_key(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = layouts.commonvoice(tmp_path / "corpus")
    (root / "en/validated.tsv").write_bytes((root / "en/train.tsv").read_bytes())
    words = ("pack", "commonvoice", root, tmp_path / "set", "--language", "en", "--split", "train,validated")
    assert "two utterances have the key 'common_voice_en_1'" in complaint(capsys, *words)
    twice = tree(tmp_path / "twice", {"m.jsonl": 2 * (json.dumps({"audio": "a.wav", "id": "x"}) + "\n"), "a.wav": ""})
    assert "the key 'x'" in complaint(capsys, "pack", "manifest", twice / "m.jsonl", tmp_path / "set")


def test_audio_that_is_text_or_missing_costs_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(layouts.ljspeech(tmp_path / "corpus"), {"wavs/LJ1-1.wav": b"RIFF: not really\n"})
    with (root / "metadata.csv").open("a") as table:
        table.write("LJ1-3|gone|gone\n")
    assert main(["pack", "ljspeech", str(root), str(tmp_path / "set"), "--workers", "0", "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["samples"], {one["key"]: one["reason"] for one in report["damaged"]}) == (
        1,
        {"LJ1-1": "decode", "LJ1-3": "missing"},
    )
    assert main(["verify", str(tmp_path / "set"), "--full", "--workers", "0"]) == 0


def test_text_that_is_not_utf8_is_named_by_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree(
        layouts.librispeech(tmp_path / "corpus"), {"dev-clean/1/2/1-2.trans.txt": b"1-2-0000 OK\n1-2-0001 \xe9\n"}
    )
    line = complaint(capsys, "pack", "librispeech", root, tmp_path / "set", "--split", "dev-clean")
    assert "1-2.trans.txt, line 2: not UTF-8" in line


def test_the_example_of_contributing_is_a_corpus(repository: Path, tmp_path: Path) -> None:
    text = (repository / "CONTRIBUTING.md").read_text("utf-8")
    (example,) = re.findall(r'^```python\n("""Digits.*?)^```', text, re.MULTILINE | re.DOTALL)
    assert len(example.splitlines()) < 40
    namespace: dict[str, object] = {}
    exec(compile(example, "CONTRIBUTING.md", "exec"), namespace)
    corpus = namespace["DIGITS"]
    assert isinstance(corpus, Corpus)
    table = "file,digit,who,split\nnear/1.wav,7,ada,train\nfar/1.wav,3,bob,test\n"
    root = tree(tmp_path, {"digits.csv": table, "near/1.wav": ""})
    (one,) = listed(corpus.utterances(root, ["train"])).values()
    assert (one.key, one.metadata) == ("near/1", {"label": "7", "speaker": "ada", "split": "train"})
    with pytest.raises(UsageError, match=r"has no split 'dev'. It has: test, train"):
        corpus.utterances(root, "dev")


def test_options_of_corpora_are_words_of_their_functions() -> None:
    """Each is a keyword of the function, none hides one that every corpus has, and --help says what is listed."""
    import inspect

    from s3prl_stream.cli import build_parser

    parser = build_parser("pack")  # argparse refuses an option that stands twice
    assert isinstance(parser, argparse.ArgumentParser)
    for corpus in CORPORA:
        parameters = list(inspect.signature(corpus.utterances).parameters)
        assert [option.name for option in corpus.options if option.name not in parameters[1:]] == []
        assert "etadata" in corpus.about
        assert "Args:" not in corpus.about
