"""Text to integers and back: what all tokenizers are, and the simplest of them, an id for each character.

All agree on three ids, which are S3PRL's: 0 pads (and is the blank of CTC), 1 ends an utterance, 2 is whatever the
vocabulary does not hold. A tokenizer is saved as a plain file, never a pickle, and holds no path: its content travels
to worker processes by itself, and its fingerprint stands for it in the description of a chain.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from s3prl_stream.errors import UsageError
from s3prl_stream.stores.local_store import LocalStore

if TYPE_CHECKING:
    from s3prl_stream.shards.shardset import ShardSet

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
SPECIAL_TOKENS = ("<pad>", "<eos>", "<unk>")

DEFAULT_CHARACTERS = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"

MAX_TEXT_BYTES = 1 << 20
"""Of one utterance."""


class Tokenizer(ABC):
    """What encodes the text of an utterance. Equal fingerprints mean equal ids for every text."""

    @abstractmethod
    def encode(self, text: str, *, eos: bool = True) -> list[int]:
        """Ids of a text, each in [0, vocab_size), with `EOS_ID` at the end unless eos=False."""

    @abstractmethod
    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids up to the first `EOS_ID`; padding is left out, unknown ones stand as a mark.

        For the frames of a CTC output, collapse repeats first (`collapse_repeats`).

        Raises:
            UsageError: an id is not in [0, vocab_size).
        """

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """Number of ids, the three special ones included."""

    @abstractmethod
    def to_bytes(self) -> bytes:
        """All that it is, as the content of the file that `load_tokenizer` reads."""

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the vocabulary's hash."""
        return hashlib.blake2b(self.to_bytes(), digest_size=8).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the file that `load_tokenizer` reads, at once; its folder is made if there is none."""
        LocalStore(Path(path).parent).write(Path(path).name, self.to_bytes())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.vocab_size} ids, {self.fingerprint}>"

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.fingerprint == other.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    def _check_ids(self, ids: Iterable[int]) -> Iterator[int]:
        for token in ids:
            if not 0 <= token < self.vocab_size:
                raise UsageError(f"decode: id {token} is not one of this tokenizer's 0 to {self.vocab_size - 1}.")
            if token == EOS_ID:
                return
            if token != PAD_ID:
                yield int(token)


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
        return cls(most_frequent(counts, vocab_size, "CharacterTokenizer", "character"))

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


def texts_of(shards: ShardSet, column: str | None = None) -> list[str]:
    """The texts of a set in the order of its index, without the rows that have none.

    Args:
        shards: what `open_shards` gives.
        column: where the text is; None for "text", or else "transcription".

    Raises:
        UsageError: the index has no such column, or no row has a text in it.
    """
    table = shards.table()
    names = [column] if column is not None else ["text", "transcription"]
    found = next((name for name in names if name in table.column_names), None)
    if found is None:
        raise UsageError(
            f"this set has no column {' or '.join(map(repr, names))} to take texts from. It has: "
            f"{', '.join(table.column_names)}. Pack it with texts, or name the column."
        )
    texts = [text for text in table.column(found).to_pylist() if text]
    if not texts:
        raise UsageError(f"none of the {table.num_rows} utterances of this set has a text in its column {found!r}.")
    return texts


def collapse_repeats(ids: Iterable[int]) -> list[int]:
    """Frame-wise CTC labels to tokens: equal neighbours become one, then blanks (id 0) are left out."""
    collapsed: list[int] = []
    previous = None
    for token in ids:
        if token != previous and token != PAD_ID:
            collapsed.append(int(token))
        previous = token
    return collapsed


def checked_texts(texts: Iterable[str]) -> Iterator[str]:
    """The texts; a wrong one raises here, where SentencePiece would leave it out without a word."""
    if isinstance(texts, str):
        raise UsageError("texts: one string was given; give a list of them, one per utterance.")
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise UsageError(f"texts: item {position} is a {type(text).__name__}, not a string.")
        if len(text.encode()) > MAX_TEXT_BYTES:
            raise UsageError(f"texts: item {position} has more than {MAX_TEXT_BYTES} bytes.")
        yield text


def most_frequent(counts: Counter[str], vocab_size: int | None, tokenizer: str, unit: str) -> list[str]:
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
