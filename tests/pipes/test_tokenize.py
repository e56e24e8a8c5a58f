from __future__ import annotations

from typing import Any

import pyarrow as pa
import pytest
import torch

import s3prl_stream as ss
from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes import CharacterTokenizer, EncodeText, NormWav, SlotTokenizer, texts_of, train_sentencepiece
from s3prl_stream.pipes.run_stages import run_batch
from s3prl_stream.pipes.stage import stages_of

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
    (half_known,) = EncodeText(tokenizer=CHARACTERS)([{"text": "AbBa"}])
    assert (half_known["tokens"] == 2).sum() == 2


def test_tokenizer_is_given_by_position_in_a_chain_and_stands_in_its_description() -> None:
    chain = NormWav()([{"wav": torch.zeros(3), "text": "A"}]).tokenize(CHARACTERS)
    assert CHARACTERS.fingerprint in str(chain)
    other = train_sentencepiece(["AB BA", "ABBA"], 8)
    assert EncodeText(tokenizer=other).describe() != EncodeText(tokenizer=CHARACTERS).describe()


def test_settings_are_given_by_name() -> None:
    with pytest.raises(UsageError, match="settings are given by name"):
        NormWav()([{"wav": torch.zeros(3), "text": "A"}]).tokenize(CHARACTERS, "text")  # type: ignore[misc]


TEXTS = ["THE OWL", "THE FOX AND THE OWL", "A FOX"]


@pytest.mark.parametrize(("vocab_type", "vocab_size"), [("character", None), ("word", 6), ("subword", 17), ("bpe", 18)])
def test_a_tokenizer_is_learned_from_the_texts_of_the_root(vocab_type: str, vocab_size: int | None) -> None:
    data = [{"transcription": text, "wav": torch.zeros(9)} for text in TEXTS]
    pipe = EncodeText(train_tokenizer=True, vocab_type=vocab_type, vocab_size=vocab_size, max_unknown_share=1.0)
    chain = pipe(NormWav()(data))
    tokenizer = chain.tokenizer
    assert tokenizer is not None
    assert vocab_size in (None, tokenizer.vocab_size)
    assert [sample["tokens"].tolist() for sample in chain] == [tokenizer.encode(text) for text in TEXTS]
    assert tokenizer.fingerprint in chain.describe()


def test_a_tokenizer_is_learned_from_the_selected_texts_of_a_stream() -> None:
    data = {
        str(number): {"wav": torch.zeros(1600), "text": text, "split": "test" if "A" in text.split() else "train"}
        for number, text in enumerate(TEXTS)
    }
    stream = ss.ShardStream(data, where="split == 'train'", epochs=1)
    chain = stream.load_audio().tokenize(train_tokenizer=True, vocab_type="word")
    assert chain.stage("tokenize").tokenizer.words == ("AND", "FOX", "OWL", "THE")
    (batch,) = ss.Loader(chain)
    assert sorted(batch["tokens_len"].tolist()) == [3, 6]
    with pytest.raises(UsageError, match=r"no column 'words'|takes 'words'"):
        stream.load_audio().tokenize(train_tokenizer=True, text="words")


def test_words_with_slots() -> None:
    tokenizer = SlotTokenizer(CharacterTokenizer(), ["time"])
    chain = EncodeText(tokenizer=tokenizer, tags="iob")([{"text": "AT NINE", "iob": "O time"}])
    assert [tokenizer.decode(sample["tokens"].tolist()) for sample in chain] == ["AT B-time NINE E-time"]
    for iob in ("O", "O place", None):
        with pytest.raises(SampleError) as caught:
            list(chain([{"text": "AT NINE", "iob": iob}]))
        assert caught.value.reason == "slots"
    for settings in ({"tokenizer": tokenizer}, {"tokenizer": CHARACTERS, "tags": "iob"}):
        with pytest.raises(UsageError, match="belong together"):
            EncodeText(**settings)  # type: ignore[arg-type]


def test_no_tokenizer_is_told_at_construction() -> None:
    with pytest.raises(UsageError, match="give tokenizer=, or train_tokenizer=True"):
        EncodeText()
    with pytest.raises(UsageError, match=r"vocab_type='phone'.*character, word, subword, bpe"):
        EncodeText(train_tokenizer=True, vocab_type="phone")
    with pytest.raises(UsageError, match="max_unknown_share=50 is no number from 0 to 1"):
        EncodeText(tokenizer=CHARACTERS, max_unknown_share=50)
    with pytest.raises(UsageError, match="not known before they are read"):
        EncodeText(train_tokenizer=True)(sample for sample in [{"text": "A"}])


class Set:
    def __init__(self, **columns: list[str | None]) -> None:
        self.columns = columns

    def table(self) -> pa.Table:
        return pa.table({"key": ["a", "b"], **self.columns})


def test_texts_of_a_set() -> None:
    assert texts_of(Set(text=["A B", None])) == ["A B"]
    assert texts_of(Set(transcription=["A", "B"])) == ["A", "B"]
    assert texts_of(Set(text=["A", "B"], words=["C", "D"]), "words") == ["C", "D"]
    with pytest.raises(UsageError, match=r"no column 'text' or 'transcription'.*It has: key, speaker"):
        texts_of(Set(speaker=["x", "y"]))
    with pytest.raises(UsageError, match="none of the 2 utterances"):
        texts_of(Set(text=[None, ""]))
