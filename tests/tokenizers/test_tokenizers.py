from __future__ import annotations

import pickle
from pathlib import Path

import pytest
from full_disk import files_of_at_most
from hypothesis import given
from hypothesis import strategies as st

from s3prl_stream.errors import UsageError
from s3prl_stream.tokenizers.load import load_tokenizer
from s3prl_stream.tokenizers.slots import SlotTokenizer
from s3prl_stream.tokenizers.subwords import SentencePieceTokenizer, train_sentencepiece
from s3prl_stream.tokenizers.tokenizer import EOS_ID, PAD_ID, UNK_ID, Tokenizer, collapse_repeats
from s3prl_stream.tokenizers.vocabulary import PHONEMES, CharacterTokenizer, WordTokenizer

TEXTS = [
    f"THE {colour} {animal} SAW {number} {thing} IN THE WATER"
    for colour in ("RED", "GREEN", "OLDER")
    for animal in ("FOX", "OWL", "HORSES")
    for number in ("ONE", "TWO", "SEVENTEEN")
    for thing in ("BOATS", "THINGS")
]


def subwords(kind: str = "unigram") -> SentencePieceTokenizer:
    return train_sentencepiece(TEXTS, 30, kind=kind)


TOKENIZERS = {
    "default": CharacterTokenizer(),
    "characters": CharacterTokenizer.from_texts(TEXTS),
    "unigram": subwords(),
    "bpe": subwords("bpe"),
    "words": WordTokenizer.from_texts(TEXTS),
    "character-slot": SlotTokenizer(CharacterTokenizer(), ["time", "place"]),
    "subword-slot": SlotTokenizer(subwords(), ["time", "place"]),
}


@pytest.mark.parametrize("tokenizer", TOKENIZERS.values(), ids=TOKENIZERS)
class TestEveryTokenizer:
    def test_text_comes_back(self, tokenizer: Tokenizer) -> None:
        for text in TEXTS:
            ids = tokenizer.encode(text)
            assert ids[-1] == EOS_ID
            assert all(3 <= token < tokenizer.vocab_size for token in ids[:-1])
            assert tokenizer.encode(text, eos=False) == ids[:-1]
            assert tokenizer.decode([*ids, PAD_ID, PAD_ID, 5]) == text

    def test_unknown_is_id_2(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.encode("OWL", eos=False).count(UNK_ID) == 0
        unknown = "O\u00dfL" if not isinstance(tokenizer, WordTokenizer) else "OWL OWLS"
        assert tokenizer.encode(unknown, eos=False).count(UNK_ID) == 1

    def test_wrong_ids_are_refused(self, tokenizer: Tokenizer) -> None:
        for token in (-1, tokenizer.vocab_size):
            with pytest.raises(UsageError, match=f"id {token}"):
                tokenizer.decode([token])

    def test_file_and_pickle_give_the_same_tokenizer(self, tokenizer: Tokenizer, tmp_path: Path) -> None:
        tokenizer.save(tmp_path / "tokenizer")
        for again in (load_tokenizer(tmp_path / "tokenizer"), pickle.loads(pickle.dumps(tokenizer))):
            assert again == tokenizer
            assert again.fingerprint == tokenizer.fingerprint
            assert [again.encode(text) for text in TEXTS] == [tokenizer.encode(text) for text in TEXTS]


def test_fingerprints_differ() -> None:
    assert len({tokenizer.fingerprint for tokenizer in TOKENIZERS.values()}) == len(TOKENIZERS)


def test_one_that_cannot_be_written_leaves_the_old_one(tmp_path: Path) -> None:
    file = tmp_path / "new" / "tokenizer"
    CharacterTokenizer("AB").save(file)
    before = file.read_bytes()
    with files_of_at_most(10), pytest.raises(OSError, match="too large"):
        CharacterTokenizer("ABCDEF").save(file)
    assert (file.read_bytes(), list(file.parent.iterdir())) == (before, [file])


def test_ids_of_the_default_characters_are_those_of_s3prl() -> None:
    tokenizer = CharacterTokenizer()
    assert tokenizer.vocab_size == 31
    assert tokenizer.encode(" 'AZ") == [3, 4, 5, 30, EOS_ID]
    assert tokenizer.encode("A\r\n") == [5, EOS_ID]


def test_vocabularies_of_a_size_keep_the_most_frequent() -> None:
    texts = ["B A C A", "A B D"]
    assert WordTokenizer.from_texts(texts).words == ("A", "B", "C", "D")
    assert WordTokenizer.from_texts(texts, 6).words == ("A", "B", "C")
    assert CharacterTokenizer.from_texts(texts, 5).characters == (" ", "A")
    assert CharacterTokenizer.from_texts(["DCBA"], 5).characters == ("A", "B"), "of equally frequent ones the first"
    assert WordTokenizer.from_texts(texts, 5).encode("A D B") == [3, UNK_ID, 4, EOS_ID]


def test_phonemes_are_those_of_s3prl() -> None:
    tokenizer = WordTokenizer(PHONEMES)
    assert tokenizer.vocab_size == 74
    assert tokenizer.encode("SIL SPN AA0 ZH") == [3, 4, 5, 73, EOS_ID]
    assert list(PHONEMES[2:]) == sorted(PHONEMES[2:])


@pytest.mark.parametrize("words", [CharacterTokenizer(), subwords()], ids=["character", "subword"])
def test_borders_of_slots_are_tokens(words: Tokenizer) -> None:
    tokenizer = SlotTokenizer(words, ["time", "place"])
    size = words.vocab_size
    assert tokenizer.vocab_size == size + 4
    text, tags = "BOS WATER ON ONE THING IN THE OWL EOS", "O O O time time O place place O"
    ids = tokenizer.encode_slots(text, tags)
    assert [token - size for token in ids if token >= size] == [0, 1, 2, 3]
    assert ids[-1] == EOS_ID
    assert tokenizer.decode(ids) == "WATER ON B-time ONE THING E-time IN B-place THE OWL E-place"
    assert tokenizer.decode([token for token in ids if token < size]) == "WATER ON ONE THING IN THE OWL"
    alone = tokenizer.encode_slots("OWL ONE OWL", "place time place", eos=False)
    assert tokenizer.decode(alone) == "B-place OWL E-place B-time ONE E-time B-place OWL E-place"
    for wrong in ("O O", "O O O there O O O O O"):
        with pytest.raises(UsageError, match=r"tags|slot 'there' is unknown; there are time, place"):
            tokenizer.encode_slots(text, wrong)


def test_ids_of_slots_are_those_of_s3prl() -> None:
    """Its character-slot tokenizer: B, the characters, E, then the space before the next word."""
    tokenizer = SlotTokenizer(CharacterTokenizer(), ["time"])
    assert tokenizer.encode_slots("AT NINE", "O time") == [5, 24, 3, 31, 18, 13, 18, 9, 32, EOS_ID]


@pytest.mark.parametrize("slots", [[], ["a", "a"], ["O"], ["a b"]])
def test_wrong_slots_are_refused(slots: list[str]) -> None:
    with pytest.raises(UsageError, match="slots must be names"):
        SlotTokenizer(CharacterTokenizer(), slots)


@pytest.mark.parametrize("words", [[], ["A", "A"], ["A B"], [""], ["<pad>"]])
def test_wrong_words_are_refused(words: list[str]) -> None:
    with pytest.raises(UsageError, match="words without white space"):
        WordTokenizer(words)


@given(st.lists(st.text(st.characters(exclude_categories=("Cs",)), max_size=20), min_size=1))
def test_characters_of_texts_cover_them(texts: list[str]) -> None:
    lines = [text.rstrip("\r\n") for text in texts]
    if not "".join(lines):
        return
    tokenizer = CharacterTokenizer.from_texts(texts)
    assert CharacterTokenizer.from_texts(texts[::-1]).fingerprint == tokenizer.fingerprint
    for line in lines:
        assert tokenizer.decode(tokenizer.encode(line)) == line


@pytest.mark.parametrize("vocabulary", ["", "ABA", ["A", "BC"]])
def test_wrong_vocabulary_is_refused(vocabulary: str) -> None:
    with pytest.raises(UsageError, match="single characters"):
        CharacterTokenizer(vocabulary)


@pytest.mark.parametrize("kind", [CharacterTokenizer, WordTokenizer])
def test_texts_from_which_nothing_is_learned_are_told(kind: type[CharacterTokenizer | WordTokenizer]) -> None:
    for texts, size, says in (
        ([], None, "the texts hold none"),
        (["", "\n"], 9, "hold none"),
        (["A"], 3, "vocab_size=3"),
    ):
        with pytest.raises(UsageError, match=f"{kind.__name__}.from_texts: there is no .* to learn: .*{says}"):
            kind.from_texts(texts, size)


def test_a_word_that_stands_for_an_unknown_one_is_unknown() -> None:
    words = WordTokenizer.from_texts(["b <unk> a"])
    assert (words.words, words.encode("a <unk> b")) == (("a", "b"), [3, UNK_ID, 4, EOS_ID])


def test_training_is_reproducible_to_the_byte() -> None:
    assert subwords().model_bytes == train_sentencepiece(iter(TEXTS), 30).model_bytes
    assert subwords().vocab_size == 30


def test_training_that_cannot_work_says_why() -> None:
    with pytest.raises(UsageError, match=r"vocabulary of 5000 ids.*too high.*give more text"):
        train_sentencepiece(TEXTS, 5_000)
    with pytest.raises(UsageError, match="Vocabulary size is smaller"):
        train_sentencepiece(TEXTS, 5)
    with pytest.raises(UsageError, match="no text at all"):
        train_sentencepiece([], 30)
    with pytest.raises(UsageError, match="item 1 is a NoneType"):
        train_sentencepiece(["A", None], 30)  # type: ignore[list-item]
    with pytest.raises(UsageError, match="one string"):
        train_sentencepiece("ABC", 30)
    with pytest.raises(UsageError, match="kind='word'"):
        train_sentencepiece(TEXTS, 30, kind="word")


def test_foreign_model_with_other_ids_is_refused(tmp_path: Path) -> None:
    import io

    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS), model_writer=model, vocab_size=30, minloglevel=2
    )
    (tmp_path / "other.model").write_bytes(model.getvalue())
    with pytest.raises(UsageError, match=r"other.model.*--pad_id=0"):
        load_tokenizer(tmp_path / "other.model")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"{}",
        b'{"kind": "words"}',
        b'{"kind": "slots", "words": ""}',
        b"[1]",
        b'{"kind": "characters", "characters": 3}',
        b'{"kind": "words", "words": ["a", 1]}',
        b'{"kind": "slots", "words": "eyJraW5kIjogImNoYXJhY3RlcnMiLCAiY2hhcmFjdGVycyI6ICJhYiJ9", "slots": 5}',
        b'{"kind": ' + b"[" * 9999,
        b"\x80\x04garbage",
    ],
)
def test_what_is_no_tokenizer_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(UsageError, match="this is no tokenizer"):
        load_tokenizer(tmp_path / "file")
    with pytest.raises(UsageError, match="no such tokenizer file"):
        load_tokenizer(tmp_path / "absent")


def test_collapse_repeats() -> None:
    assert collapse_repeats([0, 5, 5, 0, 5, 6, 6, 0, 0]) == [5, 5, 6]
    assert collapse_repeats([]) == []
