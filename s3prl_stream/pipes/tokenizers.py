"""Text to integers and back: characters, or subwords learned by SentencePiece.

All agree on three ids, which are S3PRL's: 0 pads (and is the blank of CTC), 1 ends an utterance, 2 is whatever the
vocabulary does not hold. A tokenizer is saved as a plain file, never a pickle, and holds no path: its content travels
to worker processes by itself, and its fingerprint stands for it in the description of a chain.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3prl_stream.errors import UsageError
from s3prl_stream.json_files import json_object
from s3prl_stream.pipes.arguments import one_of
from s3prl_stream.shards.local_store import LocalStore

if TYPE_CHECKING:
    from s3prl_stream.shards.shardset import ShardSet

PAD_ID = 0
EOS_ID = 1
UNK_ID = 2
SPECIAL_TOKENS = ("<pad>", "<eos>", "<unk>")

DEFAULT_CHARACTERS = " 'ABCDEFGHIJKLMNOPQRSTUVWXYZ"

MAX_FILE_BYTES = 64 << 20
"""A tokenizer file larger than this is not read: real ones hold a few megabytes at most."""

_MAX_TEXT_BYTES = 1 << 20


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


class SentencePieceTokenizer(Tokenizer):
    """Subwords of a SentencePiece model whose pad, end and unknown ids are 0, 1 and 2. Saved, it is a plain `.model`.

    Args:
        model_bytes: the content of a `.model` file. `train_sentencepiece` makes one.

    Raises:
        UsageError: these bytes are no such model, or number the special tokens in another way.
    """

    def __init__(self, model_bytes: bytes) -> None:
        self.model_bytes = model_bytes
        self._processor = _processor(model_bytes)
        found = (self._processor.pad_id(), self._processor.eos_id(), self._processor.unk_id())
        if found != (PAD_ID, EOS_ID, UNK_ID):
            raise UsageError(
                f"SentencePieceTokenizer: this model has the ids {found} for padding, end and unknown; they must be "
                f"{(PAD_ID, EOS_ID, UNK_ID)}. Train it with --pad_id=0 --eos_id=1 --unk_id=2 --bos_id=-1, or with "
                "train_sentencepiece()."
            )

    def encode(self, text: str, *, eos: bool = True) -> list[int]:
        """Ids of the pieces, after the model's own normalisation of the text."""
        ids: list[int] = self._processor.encode(text)
        return [*ids, EOS_ID] if eos else ids

    def decode(self, ids: Iterable[int]) -> str:
        pieces = [self._processor.id_to_piece(token) for token in self._check_ids(ids)]
        return str(self._processor.decode_pieces(pieces))

    @property
    def vocab_size(self) -> int:
        return int(self._processor.get_piece_size())

    def to_bytes(self) -> bytes:
        """The SentencePiece `.model` file."""
        return self.model_bytes

    def __reduce__(self) -> tuple[Any, ...]:
        return (SentencePieceTokenizer, (self.model_bytes,))


def train_sentencepiece(texts: Iterable[str], vocab_size: int, *, kind: str = "unigram") -> SentencePieceTokenizer:
    """Learn subwords from texts; the same texts in the same order give the same model, byte for byte.

    Kudo and Richardson, "SentencePiece", EMNLP 2018. It runs in one thread, over every text, without shuffling, and
    covers every character that occurs.

    Args:
        texts: one utterance each, in a fixed order.
        vocab_size: number of ids, the three special ones included.
        kind: "unigram" or "bpe".

    Raises:
        UsageError: the texts are too few for such a vocabulary, or one of them is too long for SentencePiece.
    """
    one_of("train_sentencepiece", "kind", kind, ("unigram", "bpe"))
    import sentencepiece

    model = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=checked_texts(texts),
            model_writer=model,
            model_type=kind,
            vocab_size=vocab_size,
            character_coverage=1.0,
            num_threads=1,
            shuffle_input_sentence=False,
            max_sentence_length=_MAX_TEXT_BYTES,
            pad_id=PAD_ID,
            eos_id=EOS_ID,
            unk_id=UNK_ID,
            bos_id=-1,
            pad_piece=SPECIAL_TOKENS[PAD_ID],
            eos_piece=SPECIAL_TOKENS[EOS_ID],
            unk_piece=SPECIAL_TOKENS[UNK_ID],
            minloglevel=2,
        )
    except (RuntimeError, OSError) as error:
        # Its message begins with a line of its source and a condition in brackets, which is all it says of no text.
        reason = str(error).rpartition("] ")[2].strip() or "there is no text at all."
        raise UsageError(
            f"train_sentencepiece: no vocabulary of {vocab_size} ids can be learned from these texts: {reason} "
            "Ask for another vocab_size, or give more text."
        ) from None
    return SentencePieceTokenizer(model.getvalue())


def load_tokenizer(path: str | Path) -> Tokenizer:
    """The tokenizer that `save` wrote, or a SentencePiece `.model` made elsewhere with the same special ids.

    Raises:
        UsageError: there is no such file, or it is no tokenizer.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"{path}: there is no such tokenizer file.")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise UsageError(f"{path}: {path.stat().st_size} bytes are more than a tokenizer's ({MAX_FILE_BYTES}).")
    try:
        return tokenizer_of_bytes(path.read_bytes())
    except ValueError as error:
        raise UsageError(f"{path}: this is no tokenizer: {error}") from None


def tokenizer_of_bytes(content: bytes) -> Tokenizer:
    """The tokenizer whose `to_bytes` these are.

    Raises:
        ValueError: of none.
    """
    if not content.startswith(b"{"):
        return SentencePieceTokenizer(content)
    fields = json_object(content)
    if fields.get("kind") == "characters" and isinstance(fields.get("characters"), str):
        return CharacterTokenizer(fields["characters"])
    if fields.get("kind") == "words" and _is_list_of_texts(fields.get("words")):
        from s3prl_stream.pipes.word_tokenizer import WordTokenizer

        return WordTokenizer(fields["words"])
    slots = fields.get("slots", [])
    if fields.get("kind") == "slots" and isinstance(fields.get("words"), str) and _is_list_of_texts(slots):
        from s3prl_stream.pipes.slot_tokenizer import SlotTokenizer

        return SlotTokenizer(tokenizer_of_bytes(base64.b64decode(fields["words"])), slots)
    raise UsageError('its fields should be "kind": "characters", "words" or "slots", and what belongs to them')


def _is_list_of_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


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
        if len(text.encode()) > _MAX_TEXT_BYTES:
            raise UsageError(f"texts: item {position} has more than {_MAX_TEXT_BYTES} bytes.")
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


def _processor(model_bytes: bytes) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    except RuntimeError:
        raise UsageError(
            f"SentencePieceTokenizer: these {len(model_bytes)} bytes are no SentencePiece model."
        ) from None
