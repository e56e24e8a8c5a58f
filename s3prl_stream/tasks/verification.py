"""Speaker verification: embeddings trained by telling the speakers of the training set apart, compared by cosine."""

from __future__ import annotations

import collections
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics import equal_error_rate, min_dcf
from s3prl_stream.models.sizes import possible
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.sample import Batch
from s3prl_stream.tasks.task import Answer, Best, Categories, Task, column, known, per_utterance
from s3prl_stream.text_lines import text_lines

MOST_PAIRS = 8_000_000


class Trial(NamedTuple):
    """Two utterances by key, and whether one speaker said both."""

    is_target: bool
    first: str
    second: str


class SpeakerVerification(Task):
    """Additive-margin softmax; equal error rate and minimum detection cost (p_target 0.01) on trials.

    Wang et al., "Additive margin softmax for face verification", IEEE Signal Processing Letters 2018; margin and scale
    as in SUPERB.

    Args:
        label: the column of the speaker.
        categories: the speakers of the training set.
        embedding_size: C.
        margin: what is taken off the cosine of the right speaker.
        scale: of the cosines before the softmax.
    """

    level = "embedding"
    best = Best("equal_error_rate", "lowest")

    def __init__(
        self,
        *,
        label: str,
        categories: Sequence[str],
        embedding_size: int = 512,
        margin: float = 0.4,
        scale: float = 30.0,
    ) -> None:
        super().__init__()
        possible("speaker verification", embedding_size=embedding_size)
        self.label = label
        self.categories = Categories(categories, label)
        self.margin = margin
        self.scale = scale
        self.columns = (label,)
        self.embedding_size = self.output_size = embedding_size
        self.trials: Sequence[Trial] | None = None
        """Pairs to be scored; None: each utterance with each."""
        self.speakers = nn.Parameter(torch.empty(embedding_size, len(self.categories)))
        nn.init.xavier_normal_(self.speakers)

    def loss(self, outputs: Tensor, len_B: Tensor, batch: Batch) -> Loss:
        """[B, C] -> mean over the utterances."""
        targets_B = self.categories.numbers(self.references(batch), batch["key"], outputs.device)
        cosines_BS = F.normalize(outputs.float(), dim=1) @ F.normalize(self.speakers, dim=0)
        margins_BS = self.margin * F.one_hot(targets_B, len(self.categories))
        return per_utterance(F.cross_entropy(self.scale * (cosines_BS - margins_BS), targets_B), len_B)

    def answers(self, outputs: Tensor, len_B: Tensor) -> list[Any]:  # noqa: ARG002
        """Embeddings of length 1, float32 [C]."""
        return list(F.normalize(outputs.float(), dim=1).cpu().numpy())

    def references(self, batch: Batch) -> list[Any]:
        """Names of speakers; None where trials are given, which say what is true."""
        return column(batch, self.label) if self.trials is None else [None] * len(batch["key"])

    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        """`equal_error_rate`, `min_dcf` and the number of `trials`.

        Raises:
            UsageError: a trial whose utterance is not here, or in several sets; or too many pairs without trials.
        """
        if self.trials is None:
            is_target, scores = _all_pairs(answers)
        else:
            by_key = {one.key: one.answer for one in answers}
            missing = [key for trial in self.trials for key in trial[1:] if key not in by_key]
            if missing:
                raise UsageError(
                    f"trials: {len(missing)} keys, such as {missing[0]!r}, are not among the utterances that are "
                    "selected. What packing left out is in left_out.jsonl of the set; take their trials off the list."
                )
            if len(by_key) < len(answers):
                times = collections.Counter(one.key for one in answers)
                twice = next((key for trial in self.trials for key in trial[1:] if times[key] > 1), None)
                if twice is not None:
                    raise UsageError(f"trials: {twice!r} stands in several sets; score one set at a time")
            is_target = [trial.is_target for trial in self.trials]
            scores = [float(by_key[trial.first] @ by_key[trial.second]) for trial in self.trials]
        return {
            "equal_error_rate": equal_error_rate(is_target, scores).value,
            "min_dcf": min_dcf(is_target, scores).value,
            "trials": float(len(is_target)),
        }

    def show(self, answer: Any, key: str) -> str:
        """The key and the numbers of an embedding."""
        return f"{key}\t" + " ".join(f"{number:.6g}" for number in answer)


def read_trials(path: str | Path) -> list[Trial]:
    """Trials of a text file: a line each, "1 KEY KEY" or "0 KEY KEY", as VoxCeleb's.

    Raises:
        UsageError: no such file, or another line in it.
    """
    trials = []
    try:
        for where, line in text_lines(path):
            words = line.split()
            if words and (len(words) != 3 or words[0] not in ("0", "1")):
                raise UsageError(f"trials {where}: found {line.strip()!r:.100}, expected 0 or 1 and two keys")
            if words:
                trials.append(Trial(words[0] == "1", words[1], words[2]))
    except OSError as error:
        raise UsageError(f"trials {path}: cannot be read ({error})") from None
    return trials


def need_few_pairs(num_utterances: int, what: str, advice: str) -> None:
    """A UsageError, which begins with `what`, if so many utterances are too many to compare each with each."""
    num_pairs = num_utterances * (num_utterances - 1) // 2
    if num_pairs > MOST_PAIRS:
        raise UsageError(
            f"{what}: {num_utterances} utterances are {num_pairs} pairs; at most {MOST_PAIRS} are compared. {advice}"
        )


def _all_pairs(answers: Sequence[Answer]) -> tuple[Sequence[bool], Sequence[float]]:
    embeddings, speakers = known(answers)
    need_few_pairs(len(answers), "score", "Give a list of trials (--trials FILE)")
    stacked_NC = np.stack(embeddings)
    scores_NN = stacked_NC @ stacked_NC.T
    rows, columns = np.triu_indices(len(answers), k=1)
    is_target = [one == other for one, other in itertools.combinations(speakers, 2)]
    return is_target, scores_NN[rows, columns].tolist()
