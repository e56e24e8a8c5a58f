from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch

from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes import Lexicon, Phonemize, UnfoldChunkBySec, WordTokenizer

LINES = """A  AH0
A  EY1
WATER\tW AO1 T ER0

OWL  AW1 L
"""


@pytest.fixture
def lexicon(tmp_path: Path) -> Lexicon:
    (tmp_path / "lexicon.txt").write_text(LINES)
    (tmp_path / "more.txt").write_text("water X\nfox F AA1 K S\n")
    return Lexicon.from_file(tmp_path / "lexicon.txt", tmp_path / "more.txt")


def test_the_first_pronunciation_counts(lexicon: Lexicon) -> None:
    assert len(lexicon) == 4
    (sample,) = Phonemize(lexicon=lexicon)([{"text": "a Water  OWL"}])
    assert sample["phonemes"] == "AH0 W AO1 T ER0 AW1 L"
    ids = WordTokenizer.encode(Phonemize(lexicon=lexicon).tokenizer, sample["phonemes"])  # type: ignore[arg-type]
    assert sample["tokens"].tolist() == ids
    assert (2 not in ids, len(ids), ids[-1]) == (True, 8, 1)


def test_a_word_that_the_lexicon_lacks(lexicon: Lexicon) -> None:
    data = [{"transcription": "A DUCK"}]
    with pytest.raises(SampleError, match=r"the lexicon lacks 'DUCK'.*unknown=.keep") as caught:
        list(Phonemize(lexicon=lexicon)(data))
    assert caught.value.reason == "unknown_word"
    (kept,) = Phonemize(lexicon=lexicon, unknown="keep", eos=False)(data)
    assert (kept["phonemes"], kept["tokens"][1]) == ("AH0 <unk>", 2)


def test_names_of_s3prl(lexicon: Lexicon) -> None:
    pipe = Phonemize(lexicon=lexicon, text_name="words", phonemized_text_name="p", output_text_name="y")  # type: ignore[call-arg]
    (sample,) = pipe([{"words": "A"}])
    assert (sample["p"], sample["y"].tolist()) == ("AH0", [11, 1])


def test_wrong_lexicons_are_refused(tmp_path: Path, lexicon: Lexicon) -> None:
    (tmp_path / "bad.txt").write_text("A AH0\nOWL\n")
    with pytest.raises(UsageError, match=r"bad.txt, line 2: the word 'OWL' has no phonemes"):
        Lexicon.from_file(tmp_path / "bad.txt")
    (tmp_path / "latin.txt").write_bytes(b"A AH0\nCAF\xe9 K AE F\n")
    with pytest.raises(UsageError, match=r"latin.txt, line 2: not UTF-8"):
        Lexicon.from_file(tmp_path / "latin.txt")
    with pytest.raises(UsageError, match="no such lexicon"):
        Lexicon.from_file(tmp_path / "absent.txt")
    with pytest.raises(UsageError, match=r"Lexicon\.from_file"):
        Phonemize(lexicon="lexicon.txt")  # type: ignore[arg-type]
    with pytest.raises(ChainError, match="Phonemize comes after UnfoldChunkBySec"):
        Phonemize(lexicon=lexicon)(UnfoldChunkBySec()([{"wav": torch.zeros(9), "sample_rate": 1}]))
    assert pickle.loads(pickle.dumps(lexicon)).fingerprint == lexicon.fingerprint != Lexicon({"A": "EY1"}).fingerprint
