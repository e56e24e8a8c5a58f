"""The text of each utterance as token ids."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import torch

from s3prl_stream.arguments import one_of, probability, whole_number
from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.s3prl_arguments import TOKENIZE_REFUSED, vocabulary_arguments
from s3prl_stream.pipes.stage import Samples, Source, Stage, root_of, stages_of
from s3prl_stream.sample import TEXT_KEYS, Sample
from s3prl_stream.tokenizers.slots import SlotTokenizer
from s3prl_stream.tokenizers.subwords import train_sentencepiece
from s3prl_stream.tokenizers.tokenizer import UNK_ID, Tokenizer
from s3prl_stream.tokenizers.vocabulary import CharacterTokenizer, WordTokenizer

if TYPE_CHECKING:
    from s3prl_stream.shards.shardset import ShardSet

VOCAB_TYPES = ("character", "word", "subword", "bpe")
DEFAULT_SUBWORDS = 1000


@chained(
    "tokenize",
    aliases={"text_name": "text"},
    key_names={"output_text_name": "tokens"},
    refused=TOKENIZE_REFUSED,
    translate=vocabulary_arguments,
)
class EncodeText(Stage):
    """Encode each text with a tokenizer.

    In:     the text, a str; with tags=, the slot of each of its words, a str.
    Out:    tokens int64 [L], each in [0, vocab_size). The text stays. 1 -> 1.
    Random: none.

    What the vocabulary does not hold becomes id 2, so `(tokens == 2).sum()` counts it. Pieces of an utterance have no
    text of their own, so this stage is refused after one that makes pieces.

    A tokenizer is trained when the stage is bound, once, in the parent process, on the texts of all samples of the
    root as they are there. `chain.stage("tokenize").tokenizer` is the result, for other data and to be saved.

    Args:
        tokenizer: a `CharacterTokenizer`, `WordTokenizer`, `SentencePieceTokenizer` (`train_sentencepiece`),
            `SlotTokenizer` or another `Tokenizer`; None: it is trained.
        train_tokenizer: must be True where no tokenizer is given.
        vocab_type: what is trained: "character", "word", "subword" (SentencePiece's unigrams) or "bpe".
        vocab_size: ids of it, the three special ones included; None: every character or word, 1 000 subwords.
            (S3PRL: vocab_args, in which those of characters and words are not counted)
        text: the key of the text; None for "text", or else "transcription". (S3PRL: text_name)
        tags: the key of the words' slots ("O" for none), for a `SlotTokenizer`.
        eos: whether the id 1 ends the tokens.
        max_unknown_share: more unknown tokens than this share of a text (0 to 1) mean a vocabulary for other texts
            (lower case given to an upper-case vocabulary, for example); 1 accepts anything.

    Raises:
        UsageError: neither a tokenizer nor train_tokenizer=True; or, when bound, texts from which nothing is learned.
        ChainError: when bound after a stage that makes pieces, or where nothing before provides the text.
        SampleError: "no_text" for a sample without text (an empty one is a text), "unknown_text" for one with too
            many unknown tokens, "slots" for words whose slots do not fit them.
    """

    positional = "tokenizer"
    provides: Mapping[str, str] = {"tokens": "int64 [L]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        tokenizer: Tokenizer | None = None,
        train_tokenizer: bool = False,
        vocab_type: str = "character",
        vocab_size: int | None = None,
        text: str | None = None,
        tags: str | None = None,
        eos: bool = True,
        max_unknown_share: float = 0.5,
    ) -> None:
        if tokenizer is None and train_tokenizer is not True:
            raise UsageError("EncodeText: give tokenizer=, or train_tokenizer=True to learn one from the texts.")
        if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
            raise UsageError(
                f"EncodeText: tokenizer={tokenizer!r} is not a Tokenizer; load_tokenizer(path) reads one from a file."
            )
        if (tags is not None) != isinstance(tokenizer, SlotTokenizer):
            raise UsageError("EncodeText: tags= and a SlotTokenizer belong together; give both or none.")
        self.tokenizer = tokenizer
        self.train_tokenizer = train_tokenizer
        self.vocab_type = one_of("EncodeText", "vocab_type", vocab_type, VOCAB_TYPES)
        self.vocab_size = None if vocab_size is None else whole_number("EncodeText", "vocab_size", vocab_size, least=4)
        self.text = text
        self.tags = tags
        self.eos = eos
        self.max_unknown_share = probability("EncodeText", max_unknown_share, "max_unknown_share")
        self.takes = {key: "any" for key in (text, tags) if key is not None}
        super().__init__(source)

    def check_chain(self, source: Source) -> None:
        check_text_chain(self, source, self.text)

    def prepare(self, source: Source) -> None:
        """Train the tokenizer, if none was given."""
        if self.tokenizer is not None:
            return
        root = root_of(source)
        known = root.known_keys() or {}
        keys = TEXT_KEYS if self.text is None else (self.text,)
        column = next((key for key in keys if key in known), keys[0])
        texts = (text for text in root.column(column) if text is not None)
        self.tokenizer = trained(texts, self.vocab_type, self.vocab_size)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        assert self.tokenizer is not None
        text = text_of(sample, self.text)
        ids = self.tokenizer.encode(text, eos=self.eos) if self.tags is None else self._with_slots(sample, text)
        num_tokens = len(ids) - self.eos
        if num_tokens and ids.count(UNK_ID) > self.max_unknown_share * num_tokens:
            raise SampleError(
                f"{sample['key']}: {ids.count(UNK_ID)} of {num_tokens} tokens of its text are not in the vocabulary of "
                f"{self.tokenizer!r}; expected at most the share {self.max_unknown_share}. Is it made for such texts?",
                reason="unknown_text",
            )
        yield {**sample, "tokens": torch.tensor(ids, dtype=torch.int64)}

    def _with_slots(self, sample: Sample, text: str) -> list[int]:
        assert isinstance(self.tokenizer, SlotTokenizer)
        assert self.tags is not None
        try:
            return self.tokenizer.encode_slots(text, str(sample.get(self.tags)), eos=self.eos)
        except UsageError as error:
            raise SampleError(f"{sample['key']}: {error}", reason="slots") from None


def trained(texts: Iterable[str], vocab_type: str, vocab_size: int | None) -> Tokenizer:
    """A tokenizer learned from texts; the same texts give the same one, byte for byte.

    Raises:
        UsageError: the texts are too few for it.
    """
    if vocab_type == "word":
        return WordTokenizer.from_texts(texts, vocab_size)
    if vocab_type == "character":
        return CharacterTokenizer.from_texts(texts, vocab_size)
    size = DEFAULT_SUBWORDS if vocab_size is None else vocab_size
    return train_sentencepiece(texts, size, kind="bpe" if vocab_type == "bpe" else "unigram")


def check_text_chain(stage: Stage, source: Source, text: str | None) -> None:
    """Raise a ChainError if the texts of this source are not those of whole utterances, or if there are none."""
    cutter = next((node for node in (root_of(source), *stages_of(source)) if node.splits), None)
    name = type(stage).__name__
    if cutter is not None:
        raise ChainError(
            f"{name} comes after {type(cutter).__name__}, which makes pieces of utterances: the text of a piece is not "
            "known. Leave out one of them."
        )
    known = source.known_keys()
    if text is None and known is not None and not any(key in known for key in TEXT_KEYS):
        raise ChainError(
            f"{name} takes {' or '.join(map(repr, TEXT_KEYS))}, which nothing before it provides. "
            f"{type(source).__name__} gives: {', '.join(sorted(known))}. Write text=... if one of them is the text."
            + "".join(map(root_of(source).why_not, TEXT_KEYS))
        )


def text_of(sample: Sample, key: str | None) -> str:
    """The text of a sample, under this key; None: under the first of `TEXT_KEYS` that it has.

    Raises:
        SampleError: reason "no_text".
    """
    keys = TEXT_KEYS if key is None else (key,)
    text = next((sample[name] for name in keys if sample.get(name) is not None), None)
    if not isinstance(text, str):
        found = "nothing" if text is None else f"a {type(text).__name__}"
        raise SampleError(
            f"{sample['key']}: found {found} under {' or '.join(map(repr, keys))}, expected its text.", reason="no_text"
        )
    return text


def texts_of(shards: ShardSet, column: str | None = None) -> list[str]:
    """The texts of a set in the order of its index, without the rows that have none.

    Args:
        shards: what `open_shards` gives.
        column: where the text is; None for "text", or else "transcription".

    Raises:
        UsageError: the index has no such column, or no row has a text in it.
    """
    table = shards.table()
    names = TEXT_KEYS if column is None else (column,)
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
