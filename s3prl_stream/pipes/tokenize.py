"""The text of each utterance as token ids."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.stage import Samples, Source, Stage, chained, root_of, stages_of
from s3prl_stream.pipes.tokenizers import UNK_ID, Tokenizer
from s3prl_stream.sample import TEXT_KEYS, Sample

"""Where the text is looked for, in this order, if the key is not given."""


@chained("tokenize")
class EncodeText(Stage):
    """Encode each text with a tokenizer.

    In:     the text, a str.
    Out:    tokens int64 [L], each in [0, vocab_size). The text stays. 1 -> 1.
    Random: none.

    What the vocabulary does not hold becomes id 2, so `(tokens == 2).sum()` counts it. Pieces of an utterance have no
    text of their own, so this stage is refused after one that makes pieces.

    Args:
        source: what to read from; None to bind later.
        tokenizer: a `CharacterTokenizer`, a `SentencePieceTokenizer` (`train_sentencepiece`) or another `Tokenizer`.
        text: the key of the text; None for "text", or else "transcription".
        eos: whether the id 1 ends the tokens.
        max_unknown_share: more unknown tokens than this share of a text (0 to 1) mean a vocabulary for other texts
            (lower case given to an upper-case vocabulary, for example); 1 accepts anything.

    Raises:
        ChainError: when bound after a stage that makes pieces, or where nothing before provides the text.
        SampleError: "no_text" for a sample without text (an empty one is a text), "unknown_text" for one with too
            many unknown tokens.
    """

    positional = "tokenizer"
    provides: Mapping[str, str] = {"tokens": "int64 [L]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        tokenizer: Tokenizer,
        text: str | None = None,
        eos: bool = True,
        max_unknown_share: float = 0.5,
    ) -> None:
        if not isinstance(tokenizer, Tokenizer):
            raise UsageError(
                f"EncodeText: tokenizer={tokenizer!r} is not a Tokenizer; load_tokenizer(path) reads one from a file."
            )
        self.tokenizer = tokenizer
        self.text = text
        self.eos = eos
        self.max_unknown_share = float(max_unknown_share)
        self.takes = {} if text is None else {text: "any"}
        super().__init__(source)

    def check_chain(self, source: Source) -> None:
        cutter = next((node for node in (root_of(source), *stages_of(source)) if node.splits), None)
        if cutter is not None:
            raise ChainError(
                f"EncodeText comes after {type(cutter).__name__}, which makes pieces of utterances: the text of a "
                "piece is not known. Leave out one of them."
            )
        known = source.known_keys()
        if self.text is None and known is not None and not any(key in known for key in TEXT_KEYS):
            raise ChainError(
                f"EncodeText takes {' or '.join(map(repr, TEXT_KEYS))}, which nothing before it provides. "
                f"{type(source).__name__} gives: {', '.join(sorted(known))}. Write text=... if one of them is the text."
            )

    def emit(self, sample: Sample) -> Iterator[Sample]:
        ids = self.tokenizer.encode(self._text_of(sample), eos=self.eos)
        num_tokens = len(ids) - self.eos
        if num_tokens and ids.count(UNK_ID) > self.max_unknown_share * num_tokens:
            raise SampleError(
                f"{sample['key']}: {ids.count(UNK_ID)} of {num_tokens} tokens of its text are not in the vocabulary of "
                f"{self.tokenizer!r}; expected at most the share {self.max_unknown_share}. Is it made for such texts?",
                reason="unknown_text",
            )
        yield {**sample, "tokens": torch.tensor(ids, dtype=torch.int64)}

    def _text_of(self, sample: Sample) -> str:
        keys = TEXT_KEYS if self.text is None else (self.text,)
        text = next((sample[key] for key in keys if sample.get(key) is not None), None)
        if not isinstance(text, str):
            found = "nothing" if text is None else f"a {type(text).__name__}"
            raise SampleError(
                f"{sample['key']}: found {found} under {' or '.join(map(repr, keys))}, expected its text.",
                reason="no_text",
            )
        return text
