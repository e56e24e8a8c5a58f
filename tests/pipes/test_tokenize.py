from __future__ import annotations

from typing import Any

import pytest
import torch

from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes import CharacterTokenizer, EncodeText, NormWav, train_sentencepiece
from s3prl_stream.pipes.stage import run_batch, stages_of

CHARACTERS = CharacterTokenizer()


def test_tokens_of_texts() -> None:
    (sample,) = EncodeText(tokenizer=CHARACTERS)([{"text": "AB"}])
    assert sample["tokens"].dtype == torch.int64
    assert sample["tokens"].tolist() == [5, 6, 1]
    assert sample["text"] == "AB"
    (sample,) = EncodeText(tokenizer=CHARACTERS, eos=False)([{"text": "AB"}])
    assert sample["tokens"].tolist() == [5, 6]


@pytest.mark.parametrize(
    ("sample", "settings"),
    [
        ({"text": "A"}, {}),
        ({"transcription": "A"}, {}),
        ({"text": "A", "transcription": "B"}, {}),
        ({"text": None, "transcription": "A"}, {}),
        ({"text": "B", "words": "A"}, {"text": "words"}),
    ],
)
def test_where_the_text_is_found(sample: dict[str, Any], settings: dict[str, Any]) -> None:
    (encoded,) = EncodeText(tokenizer=CHARACTERS, **settings)([sample])
    assert encoded["tokens"].tolist() == CHARACTERS.encode("A")


def test_chain_without_text_is_refused() -> None:
    data = [{"wav": torch.zeros(3), "words": "A"}]
    with pytest.raises(ChainError, match=r"takes 'text' or 'transcription'.*words.*Write text="):
        EncodeText(tokenizer=CHARACTERS)(data)
    with pytest.raises(ChainError, match=r"takes 'label'.*NormWav gives: .*words"):
        EncodeText(tokenizer=CHARACTERS, text="label")(NormWav()(data))


@pytest.mark.parametrize("text", [None, 3])
def test_sample_without_text_is_damage_of_that_sample(text: Any) -> None:
    chain = EncodeText(tokenizer=CHARACTERS)([{"text": "A"}])
    samples = [{"key": "good", "text": "A"}, {"key": "bad", "text": text}, {"key": "empty", "text": ""}]
    damaged: list[tuple[str, str]] = []
    done = run_batch(stages_of(chain), samples, lambda sample, error: damaged.append((sample["key"], error.reason)))
    assert [(sample["key"], sample["tokens"].tolist()) for sample in done] == [("good", [5, 1]), ("empty", [1])]
    assert damaged == [("bad", "no_text")]


def test_text_for_another_vocabulary_is_not_learned_in_silence() -> None:
    with pytest.raises(SampleError, match=r"0: 4 of 5 tokens .* not in the vocabulary") as caught:
        list(EncodeText(tokenizer=CHARACTERS)([{"text": "he is"}]))
    assert caught.value.reason == "unknown_text"
    (accepted,) = EncodeText(tokenizer=CHARACTERS, max_unknown_share=1.0)([{"text": "he is"}])
    assert (accepted["tokens"] == 2).sum() == 4
    (mostly_known,) = EncodeText(tokenizer=CHARACTERS)([{"text": "CAF\u00c9"}])
    assert (mostly_known["tokens"] == 2).sum() == 1


def test_tokenizer_is_given_by_position_in_a_chain_and_stands_in_its_description() -> None:
    chain = NormWav()([{"wav": torch.zeros(3), "text": "A"}]).tokenize(CHARACTERS)
    assert CHARACTERS.fingerprint in str(chain)
    other = train_sentencepiece(["AB BA", "ABBA"], 8)
    assert EncodeText(tokenizer=other).describe() != EncodeText(tokenizer=CHARACTERS).describe()


def test_what_is_no_tokenizer_is_refused() -> None:
    with pytest.raises(UsageError, match="'characters' is not a Tokenizer"):
        EncodeText(tokenizer="characters")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="settings are given by name"):
        NormWav()([{"wav": torch.zeros(3), "text": "A"}]).tokenize(CHARACTERS, "text")  # type: ignore[misc]
