"""Tokenizers with an id for each character, or for each word (or phoneme)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from s3prl_stream.errors import UsageError
from s3prl_stream.tokenizers.tokenizer import EOS_ID, SPECIAL_TOKENS, UNK_ID, Tokenizer, checked_texts

DEFAULT_CHARACTERS = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"

PHONEMES = (
    "SIL", "SPN", "AA0", "AA1", "AA2", "AE0", "AE1", "AE2", "AH0", "AH1", "AH2", "AO0", "AO1", "AO2", "AW0",
    "AW1", "AW2", "AY0", "AY1", "AY2", "B", "CH", "D", "DH", "EH0", "EH1", "EH2", "ER0", "ER1", "ER2", "EY0",
    "EY1", "EY2", "F", "G", "HH", "IH0", "IH1", "IH2", "IY0", "IY1", "IY2", "JH", "K", "L", "M", "N", "NG",
    "OW0", "OW1", "OW2", "OY0", "OY1", "OY2", "P", "R", "S", "SH", "T", "TH", "UH0", "UH1", "UH2", "UW0",
    "UW1", "UW2", "V", "W", "Y", "Z", "ZH",
)  # fmt: skip
"""Those of the CMU dictionary with their stress, silence and noise, in the order of S3PRL's phoneme vocabulary."""


class CharacterTokenizer(Tokenizer):
    """One id per character: 3 for the first of the vocabulary, and so on. Upper and lower case differ.

    Args:
        characters: the vocabulary in the order of its ids, without repeats; S3PRL's (space, apostrophe, A to Z) by
            default. `from_texts` finds those of a corpus.
    """

    def __init__(self, characters: Sequence[str] = DEFAULT_CHARACTERS) -> None:
        vocabulary = tuple(characters)
        wrong = [c for c in vocabulary if len(c) != 1]
        if wrong or not vocabulary or len(set(vocabulary)) < len(vocabulary):
            problem = f"{wrong[0]!r} is not one character" if wrong else "it is empty or repeats a character"
            raise UsageError(f"CharacterTokenizer: the vocabulary must be single characters, each once; {problem}.")
        self.characters = vocabulary
        self._ids = {character: 3 + position for position, character in enumerate(vocabulary)}

    @classmethod
    def from_texts(cls, texts: Iterable[str], vocab_size: int | None = None) -> CharacterTokenizer:
        """With the characters of the texts in the order of their code points; the most frequent ones for at most so
        many ids, and of equally frequent ones the first.

        Raises:
            UsageError: there is no character, or no room for one.
        """
        counts = Counter(character for text in checked_texts(texts) for character in text.rstrip("\r\n"))
        return cls(_most_frequent(counts, vocab_size, "CharacterTokenizer", "character"))

    def encode(self, text: str, *, eos: bool = True) -> list[int]:
        """One id per character; line ends at the end of the text are left out."""
        ids = [self._ids.get(character, UNK_ID) for character in text.rstrip("\r\n")]
        return [*ids, EOS_ID] if eos else ids

    def decode(self, ids: Iterable[int]) -> str:
        table = (*SPECIAL_TOKENS, *self.characters)
        return "".join(table[token] for token in self._check_ids(ids))

    @property
    def vocab_size(self) -> int:
        return 3 + len(self.characters)

    def to_bytes(self) -> bytes:
        """A small JSON file."""
        return json.dumps({"kind": "characters", "characters": "".join(self.characters)}, indent=1).encode()


class WordTokenizer(Tokenizer):
    """One id per word: 3 for the first of the vocabulary, and so on. Words are what stands between white space.

    Args:
        words: the vocabulary in the order of its ids, without repeats. `from_texts` finds those of a corpus,
            `PHONEMES` are those of English.
    """

    def __init__(self, words: Sequence[str]) -> None:
        vocabulary = tuple(words)
        wrong = [word for word in vocabulary if len(word.split()) != 1 or word in SPECIAL_TOKENS]
        if wrong or not vocabulary or len(set(vocabulary)) < len(vocabulary):
            problem = f"{wrong[0]!r} is none" if wrong else "it is empty or repeats a word"
            raise UsageError(f"WordTokenizer: the vocabulary must be words without white space, each once; {problem}.")
        self.words = vocabulary
        self._ids = {word: 3 + position for position, word in enumerate(vocabulary)}

    @classmethod
    def from_texts(cls, texts: Iterable[str], vocab_size: int | None = None) -> WordTokenizer:
        """With the words of the texts in alphabetical order; the most frequent ones for at most so many ids.

        Of equally frequent words the alphabetically first ones stay. "<unk>" and the like in a text (a word that nobody
        understood) become no words: they are encoded as what the vocabulary does not hold.

        Raises:
            UsageError: there is no word, or no room for one.
        """
        counts = Counter(word for text in checked_texts(texts) for word in text.split() if word not in SPECIAL_TOKENS)
        return cls(_most_frequent(counts, vocab_size, "WordTokenizer", "word"))

    def encode(self, text: str, *, eos: bool = True) -> list[int]:
        """One id per word."""
        ids = [self._ids.get(word, UNK_ID) for word in text.split()]
        return [*ids, EOS_ID] if eos else ids

    def decode(self, ids: Iterable[int]) -> str:
        table = (*SPECIAL_TOKENS, *self.words)
        return " ".join(table[token] for token in self._check_ids(ids))

    @property
    def vocab_size(self) -> int:
        return 3 + len(self.words)

    def to_bytes(self) -> bytes:
        """A small JSON file."""
        return json.dumps({"kind": "words", "words": list(self.words)}, indent=1).encode()


def _most_frequent(counts: Counter[str], vocab_size: int | None, tokenizer: str, unit: str) -> list[str]:
    """What of the counted characters or words becomes a vocabulary of so many ids (None: all of them), sorted.

    Raises:
        UsageError: nothing.
    """
    most = None if vocab_size is None else max(vocab_size - len(SPECIAL_TOKENS), 0)
    kept = sorted(counts, key=lambda one: (-counts[one], one))[:most]
    if not kept:
        why = "the texts hold none" if most is None or most > 0 else f"{vocab_size=}"
        raise UsageError(f"{tokenizer}.from_texts: there is no {unit} to learn: {why}.")
    return sorted(kept)
