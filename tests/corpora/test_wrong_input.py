"""A newcomer's mistakes in front of `pack`: one clear line, an exit status, and no half-made set."""

from __future__ import annotations

import argparse
import inspect
import json
import os
import re
from pathlib import Path

import pytest
from corpora import layouts
from corpora.trees import listed, tree

from s3prl_stream import corpora
from s3prl_stream.cli import main
from s3prl_stream.corpora import CORPORA
from s3prl_stream.corpora.corpus import Corpus
from s3prl_stream.corpora.splits import root_folder
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
    with pytest.raises(UsageError, match=r"^None is no path\. (ROOT|FILE) is "):
        list(corpus.utterances(None))


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda corpus: corpus.name)
def test_an_option_of_another_type(corpus: Corpus, tmp_path: Path) -> None:
    for name in list(inspect.signature(corpus.utterances).parameters)[1:]:
        with pytest.raises(UsageError, match=rf"^{corpus.name}: {name}: 1\.5 is not "):
            corpus.utterances(tmp_path, **{name: 1.5})


def test_a_root_may_be_any_kind_of_path(tmp_path: Path) -> None:
    (tmp_path / "corpus").mkdir()
    with os.scandir(tmp_path) as found:
        assert root_folder(next(found), "recordings") == tmp_path / "corpus"  # type: ignore[arg-type]


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
    clip = root / "en/clips/common_voice_en_1.mp3"
    assert (
        f"two utterances have the key 'common_voice_en_1': {clip} (number 1 of the list) and {clip} (number 3 of the "
        "list). Keys must be unique: take one of the two out of the list, or give" in complaint(capsys, *words)
    )
    rows = [{"audio": "a.wav", "id": "x", "start": start, "end": 1} for start in (0, 0.5)]
    twice = tree(tmp_path / "twice", {"m.jsonl": "".join(json.dumps(row) + "\n\n" for row in rows), "a.wav": ""})
    line = complaint(capsys, "pack", "manifest", twice / "m.jsonl", tmp_path / "set")
    assert f"a.wav from 0 s to 1 s ({twice}/m.jsonl, line 1) and " in line
    assert f"a.wav from 0.5 s to 1 s ({twice}/m.jsonl, line 3). Keys must be unique: rename one file" in line


TWICE = [
    ("audiosnips", "all.iob.snips.txt", "Amy-snips-valid-3 BOS no EOS\tO O Stop\n", "line 4: 'Amy-snips-valid-3'"),
    ("iemocap", "Session1/dialog/EmoEvaluation/Ses01F_impro01.txt",
     "[6.2901 - 8.2357]\tSes01F_impro01_M000\tang\t[2.5000, 3.0000, 1.5000]\n", "line 6: 'Ses01F_impro01_M000'"),
    ("iemocap", "Session1/dialog/transcriptions/Ses01F_impro01.txt",
     "Ses01F_impro01_F000 [006.2901-008.2357]: Pardon?\n", "line 4: 'Ses01F_impro01_F000'"),
    ("kaldi", "text", "ben-1 word\n", "line 4: 'ben-1'"),
    ("lhotse", "y_recordings.jsonl", '{"id": "a", "sources": []}\n', "line 1: 'a'"),
    ("lhotse", "y_supervisions.jsonl", '{"id": "s1", "recording_id": "b", "start": 0, "duration": 1}\n', "1: 's1'"),
    ("librilight", "SPEAKERS.TXT", "10 | M | train-clean-100 | 1 | N\n", "line 2: '10'"),
    ("librispeech", "dev-clean/1/2/1-2.trans.txt", "1-2-0000 TWO\n", "line 3: '1-2-0000'"),
    ("ljspeech", "metadata.csv", "LJ1-1|another|text\n", "line 3: 'LJ1-1'"),
    ("manifest", "m.json", '{"a.wav": {"text": "x"}, "b.wav": {}, "a.wav": {"text": "y"}}', "are called 'a.wav'"),
    ("musan", "music/fma/ANNOTATIONS", "music-fma-0000 jazz N other\n", "line 3: 'music-fma-0000'"),
    ("rirs", "real_rirs_isotropic_noises/noise_list",
     "--noise-id x RIRS_NOISES/real_rirs_isotropic_noises/a_rir.wav\n",
     "rir_list, line 1: 'real_rirs_isotropic_noises/a_rir.wav'"),
    ("voxceleb1", "iden_split.txt", "3 id10001/aaa/00001.wav\n", "line 6: 'id10001-aaa-00001'"),
    ("voxceleb1", "vox1_meta.csv", "id10001\tB\tf\tIndia\tdev\n", "line 3: 'id10001'"),
    ("voxceleb1", "wav/id10001/aaa/00001.wav", "", "are one utterance"),
]  # fmt: skip
SPLITS = {"librilight": "1h", "librispeech": "dev-clean"}


@pytest.mark.parametrize(("name", "file", "lines", "message"), TWICE, ids=[f"{one[0]}-{one[1][-12:]}" for one in TWICE])
def test_of_two_that_say_different_things_of_one_name_none_wins(
    name: str, file: str, lines: str, message: str, tmp_path: Path
) -> None:
    root = getattr(layouts, name, lambda root: root)(tmp_path)
    there = (root / file).read_bytes() if (root / file).exists() else b""
    tree(root, {file: there + lines.encode()})
    corpus = next(one for one in CORPORA if one.name == name)
    options = {"split": SPLITS[name]} if name in SPLITS else {}
    with pytest.raises(UsageError) as error:
        list(corpus.utterances(root / file if name == "manifest" else root, **options))
    assert str(root) in str(error.value)
    assert message in str(error.value)


def test_the_same_said_twice_is_no_harm(tmp_path: Path) -> None:
    root = layouts.librispeech(tmp_path / "libri")
    with (root / "dev-clean/1/2/1-2.trans.txt").open("a") as transcript:
        transcript.write("1-2-0000 ONE TWO\n")
    assert len(listed(corpora.librispeech(root, "dev-clean"))) == 2
    root = layouts.audiosnips(tmp_path / "snips")
    lines = (root / "all.iob.snips.txt").read_text()
    (root / "all.iob.snips.txt").write_text(lines + lines)
    assert len(listed(corpora.audiosnips(root))) == 2
    root = layouts.voxceleb1(tmp_path / "vox")
    (root / "wav").symlink_to(root / "dev/wav")
    assert len(listed(corpora.voxceleb1(root))) == 5


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


def test_a_number_that_no_float_can_hold(tmp_path: Path) -> None:
    huge = "9" * 400
    recording = '{"sources": [{"type": "file", "source": "a.wav", "channels": [0]}]}'
    for corpus, line in (
        (corpora.manifest, f'{{"audio": "a.wav", "duration": {huge}}}'),
        (corpora.lhotse, f'{{"id": "a", "start": {huge}, "duration": 1, "channel": 0, "recording": {recording}}}'),
    ):
        (tmp_path / "x.jsonl").write_text(line)
        with pytest.raises(UsageError, match=r"x\.jsonl, line 1: \w+ is 9+, expected") as caught:
            list(corpus(tmp_path / "x.jsonl"))
        assert len(str(caught.value)) < 300


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
    from s3prl_stream.cli import build_parser

    parser = build_parser("pack")  # argparse refuses an option that stands twice
    assert isinstance(parser, argparse.ArgumentParser)
    for corpus in CORPORA:
        parameters = list(inspect.signature(corpus.utterances).parameters)
        assert [option.name for option in corpus.options if option.name not in parameters[1:]] == []
        assert "etadata" in corpus.about, f"{corpus.name}: the docstring does not name its metadata"
        assert "Args:" not in corpus.about
