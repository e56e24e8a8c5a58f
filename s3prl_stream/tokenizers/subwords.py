"""Subwords that SentencePiece learns from texts."""

from __future__ import annotations

import io
from collections.abc import Iterable
from typing import Any

from s3prl_stream.arguments import one_of
from s3prl_stream.errors import UsageError
from s3prl_stream.tokenizers.tokenizer import (
    EOS_ID,
    MAX_TEXT_BYTES,
    PAD_ID,
    SPECIAL_TOKENS,
    UNK_ID,
    Tokenizer,
    checked_texts,
)


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
            max_sentence_length=MAX_TEXT_BYTES,
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


def _processor(model_bytes: bytes) -> Any:
    import sentencepiece

    try:
        return sentencepiece.SentencePieceProcessor(model_proto=model_bytes)
    except RuntimeError:
        raise UsageError(
            f"SentencePieceTokenizer: these {len(model_bytes)} bytes are no SentencePiece model."
        ) from None
