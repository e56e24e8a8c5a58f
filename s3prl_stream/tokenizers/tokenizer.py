"""Text to integers and back: what all tokenizers are.

All agree on three ids, which are S3PRL's: 0 pads (and is the blank of CTC), 1 ends an utterance, 2 is whatever the
vocabulary does not hold. A tokenizer is saved as a plain file, never a pickle, and holds no path: its content travels
to worker processes by itself, and its fingerprint stands for it in the description of a chain.
"""

from __future__ import annotations

import hashlib
import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from pathlib import Path

from s3prl_stream.errors import UsageError
from s3prl_stream.stores.local_store import LocalStore

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
SPECIAL_TOKENS = ("<pad>", "<eos>", "<unk>")

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


def collapse_repeats(ids: Iterable[int]) -> list[int]:
    """Frame-wise CTC labels to tokens: equal neighbours become one, then blanks (id 0) are left out."""
    return [int(token) for token, _ in itertools.groupby(ids) if token != PAD_ID]


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
