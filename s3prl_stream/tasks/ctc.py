"""Speech to text by connectionist temporal classification: words, phonemes, or words with slots marked in them.

Graves et al., "Connectionist temporal classification", ICML 2006. B batch, F frames, L tokens, C ids.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics import cer, per, slot_type_f1, slot_value_cer, wer
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.sample import Batch
from s3prl_stream.tasks.task import Answer, Best, Task, column, known, per_utterance
from s3prl_stream.tokenizers.tokenizer import EOS_ID, PAD_ID, Tokenizer, collapse_repeats

METRICS: dict[str, Callable[[Sequence[str], Sequence[str]], float]] = {
    "wer": wer,
    "cer": cer,
    "per": per,
    "slot_type_f1": slot_type_f1,
    "slot_value_cer": slot_value_cer,
}


class CtcText(Task):
    """CTC with padding (id 0) as the blank; decoding takes the likeliest id of each frame.

    An utterance with more tokens than its frames can hold has an infinite loss; it counts as 0, as in S3PRL.

    Args:
        tokenizer: that of the stream's `tokens`.
        text: the key of the text in a batch.
        columns: of the index, from which the text is made; None: `text`.
        metrics: of `METRICS`; the first chooses the model.
    """

    level = "frame"
    of_whole_clips = True

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        text: str = "text",
        columns: Sequence[str] | None = None,
        metrics: Sequence[str] = ("wer", "cer"),
    ) -> None:
        super().__init__()
        unknown = sorted(set(metrics) - set(METRICS))
        if unknown or not metrics:
            raise UsageError(f"text metrics: no {', '.join(unknown) or 'names'}; there are {', '.join(METRICS)}")
        self.tokenizer = tokenizer
        self.text = text
        self.metrics = list(metrics)
        self.columns = (text,) if columns is None else tuple(columns)
        self.output_size = tokenizer.vocab_size

    @property
    def best(self) -> Best:
        """The first metric."""
        return Best(self.metrics[0], "highest" if self.metrics[0].endswith("f1") else "lowest")

    def loss(self, outputs: Tensor, len_B: Tensor, batch: Batch) -> Loss:
        """[B, F, C] -> mean over the utterances of the loss for each of its tokens."""
        log_probs_FBC = F.log_softmax(outputs.float(), dim=2).transpose(0, 1)
        mean = F.ctc_loss(log_probs_FBC, batch["tokens"], len_B, batch["tokens_len"], blank=PAD_ID, zero_infinity=True)
        return per_utterance(mean, len_B)

    def answers(self, outputs: Tensor, len_B: Tensor) -> list[Any]:
        """Texts."""
        likeliest, lengths = outputs.argmax(dim=2).tolist(), len_B.tolist()
        rows = [collapse_repeats(ids[:length]) for ids, length in zip(likeliest, lengths, strict=True)]
        return [self.tokenizer.decode([token for token in row if token != EOS_ID]) for row in rows]

    def references(self, batch: Batch) -> list[Any]:
        """Texts."""
        return column(batch, self.text)

    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        """The metrics by name."""
        given, right = known(answers)
        return {name: METRICS[name](given, right) for name in self.metrics}
