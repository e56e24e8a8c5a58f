"""All ten tasks of SUPERB from packed sets of real recordings to a metric, on the command line.

The trainings are short and the heads small: what is tested is that each task learns from real speech, on clips that it
was not trained on where there are enough of them, and by heart where there are not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from integration.recordings import MAKERS

from s3prl_stream.cli import main

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

SMALL_RNN = [
    *("head.project_size=64", "head.hidden_size=64", "head.num_layers=1", "head.dropout=0.0"),
    "head.bidirectional=True",
]
TWO_SENTENCES = "key in ('arctic_a0001', 'arctic_a0002')"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("sets")


class Runner:
    """Packs what is asked for, trains and scores, all by the command line."""

    def __init__(self, data: Path, sets: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.data, self.sets, self.out, self.capsys = data, sets, out, capsys

    def set(self, name: str) -> str:
        path = self.sets / name
        if not (path / "manifest.json").exists():
            MAKERS[name](self.data, path)
        return str(path)

    def keys(self, name: str, every: int) -> str:
        """An expression for each so many'th clip of a set."""
        from s3prl_stream.shards.shardset import open_shards

        keys = sorted(row["key"] for row in open_shards(self.set(name)).table().to_pylist())
        return f"key in {tuple(keys[::every])}"

    def json_of(self, *words: str) -> dict[str, Any]:
        self.capsys.readouterr()
        assert main([*words, "--json", "--device", "cpu"]) == 0
        result: dict[str, Any] = json.loads(self.capsys.readouterr().out.splitlines()[-1])
        return result

    def train(self, task: str, name: str, *words: str, settings: list[str] | None = None) -> dict[str, Any]:
        run = ["train", task, "--data", self.set(name), "--upstream", "logmel80", "--normalize", "--out", str(self.out)]
        run += ["--cache", str(self.sets / "cache")]
        return self.json_of(*run, *words, *(word for one in settings or [] for word in ("--set", one)))

    def figures(self, name: str, *words: str) -> dict[str, float]:
        figures: dict[str, float] = self.json_of("evaluate", str(self.out), "--data", self.set(name), *words)["figures"]
        print(self.out.name, name, figures)
        return figures


@pytest.fixture
def runner(real_data: Path, made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Runner:
    return Runner(real_data, made, tmp_path / "run", capsys)


def test_keyword_spotting(runner: Runner) -> None:
    fifth = runner.keys("wakewords", 5)
    words = ["--valid-where", fifth, "--steps", "240", "--lr", "3e-3", "--evaluate-every", "80", "--head", "hidden"]
    runner.train("ks", "wakewords", *words)
    assert runner.figures("wakewords", "--where", fifth)["accuracy"] > 0.75  # four words


def test_speaker_identification(runner: Runner) -> None:
    words = ["--where", "take >= 10", "--steps", "120", "--lr", "3e-3", "--update-batches", "1", "--batch-size", "32"]
    runner.train("sid", "fsdd", *words)
    assert runner.figures("fsdd", "--where", "take < 3")["accuracy"] > 0.95  # four speakers, takes that were not heard


def test_speaker_verification_on_a_list_of_trials(runner: Runner, tmp_path: Path) -> None:
    """Speakers who were not trained on, in pairs of a list; and of fsdd the takes that were not."""
    from s3prl_stream.shards.shardset import open_shards

    rows = open_shards(runner.set("libri_pieces")).table().to_pylist()
    unheard = sorted({row["speaker"] for row in rows})[-40:]
    where = f"speaker in {tuple(map(str, unheard))}".replace("'", '"')
    settings = ["min_seconds=1.0", "head.project_size=64", "head.hidden_size=64", "head.last_size=128"]
    words = ["--steps", "150", "--lr", "2e-3", "--update-batches", "1", "--batch-size", "32", "--crop-seconds", "2"]
    runner.train(
        "asv", "libri_pieces", *words, "--where", f"not ({where})", settings=[*settings, "task.embedding_size=64"]
    )
    keys = [
        (row["key"], row["speaker"]) for row in sorted(rows, key=lambda row: row["key"]) if row["speaker"] in unheard
    ]
    pairs = [(a, b) for place, a in enumerate(keys) for b in keys[place + 1 :]]
    lines = [f"{int(one == other)} {first} {second}" for (first, one), (second, other) in pairs]
    (tmp_path / "trials.txt").write_text("\n".join(lines) + "\n")
    figures = runner.figures("libri_pieces", "--where", where, "--trials", str(tmp_path / "trials.txt"))
    assert figures["trials"] == len(pairs)
    assert figures["equal_error_rate"] < 0.4


def test_speaker_verification_on_all_pairs_of_fsdd(runner: Runner) -> None:
    settings = ["min_seconds=0.0", "head.project_size=32", "head.hidden_size=32", "head.last_size=64"]
    words = ["--where", "take >= 10", "--steps", "150", "--lr", "3e-3", "--update-batches", "1", "--batch-size", "32"]
    runner.train("asv", "fsdd", *words, settings=[*settings, "task.embedding_size=32"])
    assert runner.figures("fsdd", "--where", "take < 3")["equal_error_rate"] < 0.25


def test_intent_classification(runner: Runner) -> None:
    label = "intent,slots_coffeeDrink,slots_roast,slots_size"
    few = runner.keys("barista", 10)
    words = ["--label", label, "--where", few, "--steps", "100", "--lr", "1e-2"]
    runner.train("ic", "barista", *words, "--head", "hidden")
    assert runner.figures("barista", "--where", few)["accuracy"] == 1.0  # by heart


def test_slot_filling(runner: Runner) -> None:
    few = runner.keys("barista", 40)
    words = ["--label", "slots_size,slots_roast,slots_coffeeDrink", "--where", few, "--steps", "200", "--lr", "1e-2"]
    runner.train("sf", "barista", *words, settings=[*SMALL_RNN, "head.spec_augment=False"])
    figures = runner.figures("barista", "--where", few)
    assert figures["slot_type_f1"] == 1.0
    assert figures["slot_value_cer"] == 0.0


def test_speech_recognition_of_words(runner: Runner) -> None:
    """yes and no: eight words a recording."""
    few = runner.keys("yesno", 8)
    settings = [*SMALL_RNN, "head.spec_augment=False", "task.vocabulary=words"]
    runner.train("asr", "yesno", "--where", few, "--steps", "250", "--lr", "1e-2", settings=settings)
    assert runner.figures("yesno", "--where", few)["wer"] < 0.05  # 64 words, nearly by heart


def test_speech_recognition_of_letters(runner: Runner) -> None:
    few = "seconds < 1.3"
    settings = [*SMALL_RNN, "head.spec_augment=False"]
    runner.train("asr", "kathleen", "--where", few, "--steps", "300", "--lr", "1e-2", settings=settings)
    assert runner.figures("kathleen", "--where", few)["cer"] == 0.0


LEXICON = """
AUTHOR AO1 TH ER0
OF AH1 V
THE DH AH0
DANGER D EY1 N JH ER0
TRAIL, T R EY1 L
PHILIP F IH1 L AH0 P
STEELS, S T IY1 L Z
ETC. EH0 T S EH1 T ER0 AH0
NOT N AA1 T
AT AE1 T
THIS DH IH1 S
PARTICULAR P ER0 T IH1 K Y AH0 L ER0
CASE, K EY1 S
TOM, T AA1 M
APOLOGIZED AH0 P AA1 L AH0 JH AY2 Z D
WHITTEMORE. W IH1 T AH0 M AO0 R
"""


def test_phoneme_recognition(runner: Runner, tmp_path: Path) -> None:
    (tmp_path / "lexicon.txt").write_text(LEXICON.strip() + "\n")
    words = ["--where", TWO_SENTENCES, "--lexicon", str(tmp_path / "lexicon.txt"), "--steps", "150", "--lr", "1e-2"]
    runner.train("pr", "kathleen", *words, "--head", "rnn", "--update-batches", "1", settings=SMALL_RNN)
    assert runner.figures("kathleen", "--where", TWO_SENTENCES)["per"] == 0.0


def test_diarization_of_mixtures(runner: Runner) -> None:
    held = "key in ('mix00', 'mix01', 'mix02', 'mix03')"
    settings = [*SMALL_RNN[1:], "head.project_size=None"]
    words = ["--steps", "250", "--lr", "5e-3", "--update-batches", "1"]
    runner.train("sd", "mixtures", *words, "--where", held, settings=settings)
    assert runner.figures("mixtures", "--where", held)["diarization_error_rate"] < 0.05  # by heart


def test_diarization_of_conversations(runner: Runner) -> None:
    where = "num_speakers > 0 and num_speakers < 4"
    settings = [*SMALL_RNN[1:], "head.project_size=None", "task.num_speakers=3", "task.collar_seconds=0.25"]
    words = ["--where", where, "--steps", "25", "--lr", "1e-2", "--update-batches", "1"]
    runner.train("sd", "diarization", *words, settings=settings)
    assert runner.figures("diarization", "--where", where)["diarization_error_rate"] < 0.4


def test_emotion_recognition_in_the_layout_of_iemocap(runner: Runner) -> None:
    words = ["--where", "session != 1", "--steps", "200", "--lr", "3e-3", "--head", "hidden"]
    words += ["--update-batches", "1", "--batch-size", "32"]
    runner.train("er", "iemocap_layout", *words)
    assert runner.figures("iemocap_layout", "--where", "session != 1")["accuracy"] == 1.0
    # of another speaker, with three in training: by chance
    assert runner.figures("iemocap_layout", "--where", "session == 1").keys() == {"accuracy"}


def test_query_by_example(runner: Runner) -> None:
    """The digits that were asked for are in the documents, which were joined from the very same recordings."""
    words = ["--queries", runner.set("queries"), "--data", runner.set("documents"), "--upstream", "logmel80"]
    result = runner.json_of("search", *words)
    assert (result["queries"], result["documents"]) == (10, 30)
    print("run search", result)
    assert result["max_twv"] == pytest.approx(0.8810, abs=0.005)
