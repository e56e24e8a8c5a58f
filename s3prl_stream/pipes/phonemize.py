"""The text of each utterance as phonemes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch

from s3prl_stream.arguments import one_of
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.s3prl_arguments import PHONEMIZE_REFUSED
from s3prl_stream.pipes.stage import Samples, Source, Stage
from s3prl_stream.pipes.tokenize import check_text_chain, text_of
from s3prl_stream.sample import Sample
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.tokenizers.tokenizer import Tokenizer
from s3prl_stream.tokenizers.vocabulary import PHONEMES, WordTokenizer


@chained(
    "phonemize",
    aliases={"text_name": "text"},
    key_names={"phonemized_text_name": "phonemes", "output_text_name": "tokens"},
    refused=PHONEMIZE_REFUSED,
)
class Phonemize(Stage):
    """Look up the pronunciation of each word, and encode the phonemes.

    In:     the text, a str.
    Out:    phonemes, a str with spaces; tokens int64 [L]. 1 -> 1.
    Random: none.

    Args:
        lexicon: a `Lexicon`.
        tokenizer: of the phonemes; None: one id for each of `PHONEMES` (S3PRL's), from 3 on.
        text: the key of the text; None for "text", or else "transcription".
        eos: whether the id 1 ends the tokens.
        unknown: what becomes of a word that the lexicon lacks. "refuse": the utterance is left out and listed. "keep":
            it becomes the id 2.

    Raises:
        ChainError: when bound after a stage that makes pieces, or where nothing before provides the text.
        SampleError: "no_text", "unknown_word".
    """

    positional = "lexicon"
    provides: Mapping[str, str] = {"phonemes": "any", "tokens": "int64 [L]"}

    def __init__(
        self,
        source: Samples | None = None,
        *,
        lexicon: Lexicon,
        tokenizer: Tokenizer | None = None,
        text: str | None = None,
        eos: bool = True,
        unknown: str = "refuse",
    ) -> None:
        if not isinstance(lexicon, Lexicon):
            raise UsageError(f"Phonemize: lexicon={lexicon!r:.100} is none; Lexicon.from_file(path) reads one.")
        if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
            raise UsageError(f"Phonemize: tokenizer={tokenizer!r:.100} is not a Tokenizer.")
        self.lexicon = lexicon
        self.tokenizer = WordTokenizer(PHONEMES) if tokenizer is None else tokenizer
        self.text = text
        self.eos = eos
        self.unknown = one_of("Phonemize", "unknown", unknown, ("refuse", "keep"))
        self.takes = {} if text is None else {text: "any"}
        super().__init__(source)

    def check_chain(self, source: Source) -> None:
        check_text_chain(self, source, self.text)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        phonemes, unknown = self.lexicon.phonemes_of(text_of(sample, self.text))
        if unknown and self.unknown == "refuse":
            raise SampleError(
                f"{sample['key']}: the lexicon lacks {', '.join(map(repr, unknown[:3]))}; add them, or write "
                'unknown="keep"',
                reason="unknown_word",
            )
        tokens = torch.tensor(self.tokenizer.encode(phonemes, eos=self.eos), dtype=torch.int64)
        yield {**sample, "phonemes": phonemes, "tokens": tokens}
