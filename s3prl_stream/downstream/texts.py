"""What an utterance's text is to a task: characters, phonemes by a lexicon, or words with slots marked among them."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from s3prl_stream.downstream.columns import need_columns, values_of
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.phonemize import Phonemize
from s3prl_stream.pipes.stage import Samples, Stage
from s3prl_stream.pipes.tokenize import EncodeText
from s3prl_stream.recipes.run_folder import read_settings
from s3prl_stream.sample import TEXT_KEYS, Sample
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.tokenizers.lexicon import UNKNOWN_PHONEME, Lexicon
from s3prl_stream.tokenizers.load import load_tokenizer
from s3prl_stream.tokenizers.slots import OUTSIDE, SlotTokenizer
from s3prl_stream.tokenizers.tokenizer import Tokenizer
from s3prl_stream.tokenizers.vocabulary import PHONEMES, CharacterTokenizer, WordTokenizer

VOCABULARIES = ("characters", "words", "phonemes", "slots")
TAGS = "iob"
"""The column with a tag for each word, beside a column of text."""
TOKENIZER, LEXICON = "tokenizer", "lexicon.txt"
"""Files of a run."""


@dataclass(frozen=True)
class TextSource:
    """Columns of an index, and how they become tokens and the text that answers are compared with."""

    vocabulary: str
    columns: tuple[str, ...]
    tokenizer: Tokenizer
    lexicon: Lexicon | None = None

    @property
    def reference(self) -> str:
        """The key of the text in a batch behind `stage`."""
        if self.vocabulary == "slots":
            return MarkSlots.text_key
        return self.columns[0] if self.lexicon is None else "phonemes"

    def settings(self) -> dict[str, Any]:
        """What `run.json` says of them."""
        return {
            "vocabulary": self.vocabulary,
            "text_columns": self.columns,
            "tokenizer": self.tokenizer.fingerprint,
            "lexicon": None if self.lexicon is None else self.lexicon.fingerprint,
        }

    def save(self, run: Path) -> None:
        """Write what `of_run` reads beside `run.json`."""
        self.tokenizer.save(run / TOKENIZER)
        if self.lexicon is not None:
            self.lexicon.save(run / LEXICON)

    @classmethod
    def of_run(cls, run: Path) -> TextSource | None:
        """Those of a run of `train`; None: it writes no text."""
        settings = read_settings(run)
        if settings["vocabulary"] is None:
            return None
        lexicon = None if settings["lexicon"] is None else Lexicon.from_file(run / LEXICON)
        return cls(settings["vocabulary"], tuple(settings["text_columns"]), load_tokenizer(run / TOKENIZER), lexicon)

    def stage(self) -> Stage:
        """Columns -> `tokens` and the text under `reference`."""
        if self.vocabulary == "slots":
            return MarkSlots(tokenizer=self.tokenizer, columns=self.columns)
        if self.lexicon is not None:
            return Phonemize(lexicon=self.lexicon, tokenizer=self.tokenizer, text=self.columns[0])
        return EncodeText(tokenizer=self.tokenizer, text=self.columns[0])


def text_columns(columns: Sequence[str], known: Collection[str]) -> tuple[str, ...]:
    """The columns of a set that has those that are `known`: "text" stands for "transcription" too."""
    only_transcription = "text" not in known and "transcription" in known
    return tuple("transcription" if name == "text" and only_transcription else name for name in columns)


def find_texts(
    vocabulary: str,
    columns: Sequence[str],
    shards: ShardSet,
    *,
    where: Any,
    tokenizer: Tokenizer | None = None,
    lexicon: Lexicon | None = None,
) -> TextSource:
    """The texts of a set, with a vocabulary made of them where none is given.

    Args:
        vocabulary: "characters"; "words"; "phonemes" (of words by a lexicon, or else the text is phonemes with spaces
            between); "slots": a column of text beside one called `iob`, or a column for each slot.
        columns: of the index; "text" stands for "transcription" too.
        shards: whose index is read.
        where: the rows that may be trained on.
        tokenizer, lexicon: given ones.

    Raises:
        UsageError: another vocabulary, a column that is missing, or a lexicon where none is used.
    """
    if vocabulary not in VOCABULARIES:
        raise UsageError(f"vocabulary {vocabulary!r} does not exist; there are {', '.join(VOCABULARIES)}")
    if lexicon is not None and vocabulary != "phonemes":
        raise UsageError(f"a lexicon is for phonemes; this task writes {vocabulary}")
    known = shards.columns()
    names = text_columns(columns, known)
    if vocabulary == "slots" and len(names) == 1 and TAGS in known:
        names = (*names, TAGS)
    if vocabulary == "slots" and names[-1] in TEXT_KEYS:
        raise UsageError(
            f"slots: {shards.name} has no column {TAGS!r} beside {names[-1]!r}, with the slot of each word; pack it "
            "with one, or name a column for each slot by label= (--label)"
        )
    if vocabulary != "slots" and len(names) != 1:
        raise UsageError(f"vocabulary {vocabulary!r} is of one column, not {', '.join(names)}")
    need_columns(shards, names, "label= (--label)")
    if vocabulary != "slots" and known[names[0]] in ("bool", "int64", "double"):
        raise UsageError(f"label= (--label): {names[0]!r} of {shards.name} holds {known[names[0]]}, expected text")
    if tokenizer is None:
        tokenizer = _tokenizer(vocabulary, names, shards, where, lexicon)
    return TextSource(vocabulary, names, tokenizer, lexicon)


def _tokenizer(
    vocabulary: str, columns: tuple[str, ...], shards: ShardSet, where: Any, lexicon: Lexicon | None
) -> Tokenizer:
    texts = [text for name in columns for text in values_of(shards, name, where) if name != TAGS]
    if vocabulary == "characters":
        return CharacterTokenizer.from_texts(texts)
    if lexicon is not None:
        texts = [lexicon.phonemes_of(text)[0] for text in texts]
    if vocabulary == "phonemes" and {one for text in texts for one in text.split()} <= {*PHONEMES, UNKNOWN_PHONEME}:
        return WordTokenizer(PHONEMES)
    if vocabulary in ("words", "phonemes"):
        return WordTokenizer.from_texts(texts)
    characters = CharacterTokenizer(sorted({one for text in texts for one in text} | {" "}))
    slots = set(columns)
    if columns[-1] == TAGS:
        slots = {tag for tags in values_of(shards, TAGS, where) for tag in tags.split()} - {OUTSIDE}
    return SlotTokenizer(characters, sorted(slots))


class MarkSlots(Stage):
    """Words with the borders of their slots, as text and as tokens.

    In:     a text and `iob`, a tag for each of its words; or a value for each slot, any of them missing.
    Out:    marked_text, such as "a B-size small E-size coffee"; tokens int64 [L]. 1 -> 1.
    Random: none.

    Args:
        source: what to read from; None to bind later.
        tokenizer: a `SlotTokenizer`.
        columns: (text, "iob"), or the columns of the slots, which then follow each other in this order.

    Raises:
        SampleError: "no_text" where there is no text, "slots" for words that do not fit their tags.
    """

    functional_name = "mark_slots"
    text_key = "marked_text"
    provides: Mapping[str, str] = {"marked_text": "any", "tokens": "int64 [L]"}

    def __init__(self, source: Samples | None = None, *, tokenizer: Tokenizer, columns: Sequence[str]) -> None:
        if not isinstance(tokenizer, SlotTokenizer):
            raise UsageError(f"slots need a SlotTokenizer; found {tokenizer!r:.100}")
        self.tokenizer = tokenizer
        self.columns = tuple(columns)
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        """The sample with its marked text and tokens."""
        words, tags = self._words_and_tags(sample)
        try:
            ids = self.tokenizer.encode_slots(" ".join(words), " ".join(tags))
        except UsageError as error:
            raise SampleError(f"{sample['key']}: {error}", reason="slots") from None
        yield {**sample, "marked_text": marked(words, tags), "tokens": torch.tensor(ids, dtype=torch.int64)}

    def _words_and_tags(self, sample: Sample) -> tuple[list[str], list[str]]:
        if self.columns[-1] == TAGS:
            text, tags = (sample.get(name) for name in self.columns)
            if text is None or tags is None:
                raise SampleError(f"{sample['key']}: found no text or no {TAGS}, expected both", reason="no_text")
            return str(text).split(), str(tags).split()
        values = [(name, str(sample[name]).split()) for name in self.columns if sample.get(name) is not None]
        words = [word for _, some in values for word in some]
        return words, [name for name, some in values for _ in some]


def marked(words: Sequence[str], tags: Sequence[str]) -> str:
    """Words with "B-slot" before and "E-slot" after neighbours of one tag; "O" is none."""
    parts: list[str] = []
    for place, (word, tag) in enumerate(zip(words, tags, strict=True)):
        begins = tag != OUTSIDE and (place == 0 or tags[place - 1] != tag)
        ends = tag != OUTSIDE and (place + 1 == len(tags) or tags[place + 1] != tag)
        parts += [f"B-{tag}"] * begins + [word] + [f"E-{tag}"] * ends
    return " ".join(parts)
