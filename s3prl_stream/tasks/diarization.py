"""Who spoke when: the activity of each speaker in each frame, in whatever order fits best.

Fujita et al., "End-to-end neural speaker diarization with permutation-free objectives", Interspeech 2019. B batch,
F frames, S speakers.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s3prl_stream.corpora.audio_files import AUDIO_SUFFIXES
from s3prl_stream.errors import UsageError
from s3prl_stream.metrics import DiarizationError, Turn, diarization_error, median_filter
from s3prl_stream.models.sizes import possible
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.padding import is_valid
from s3prl_stream.sample import Batch
from s3prl_stream.tasks.segments import active_frames, rttm, turns_from, turns_of
from s3prl_stream.tasks.task import Answer, Best, Task, known


class Diarization(Task):
    """Binary cross-entropy under the best permutation of the speakers; diarization error rate of turns.

    Args:
        num_speakers: S, the most that an utterance has.
        frame_seconds: from one frame to the next.
        threshold: probability from which on somebody speaks.
        median_frames: width of the median filter on the activity; odd, 1 for none.
        collar_seconds: around ends of turns that is not scored, see `diarization_error`.
    """

    level = "frame"
    of_whole_clips = True
    best = Best("diarization_error_rate", "lowest")
    columns = ("segments",)

    def __init__(
        self,
        *,
        num_speakers: int,
        frame_seconds: float,
        threshold: float = 0.5,
        median_frames: int = 11,
        collar_seconds: float = 0.0,
    ) -> None:
        super().__init__()
        possible("diarization", num_speakers=num_speakers)
        if median_frames < 1 or median_frames % 2 == 0:
            raise UsageError(
                f"diarization: median_frames is {median_frames}; it must be odd, so that there is a middle"
            )
        if collar_seconds < 0:
            raise UsageError(f"diarization: collar_seconds is {collar_seconds}; it must be 0 or more")
        self.frame_seconds = frame_seconds
        self.threshold = threshold
        self.median_frames = median_frames
        self.collar_seconds = collar_seconds
        self.num_speakers = self.output_size = num_speakers

    def loss(self, outputs: Tensor, len_B: Tensor, batch: Batch) -> Loss:
        """[B, F, S] -> mean over the frames of the mean over the speakers."""
        active_BFS = torch.zeros(outputs.shape)
        for row, (turns, length) in enumerate(zip(turns_of(batch), len_B.tolist(), strict=True)):
            key = batch["key"][row]
            if turns is None:  # where nobody speaks there is an empty list
                raise UsageError(f"{key}: has no segments, so nobody knows who speaks; leave it out with --where")
            active_BFS[row, :length] = torch.from_numpy(self._active(turns, length, key))
        return permutation_free_loss(outputs, active_BFS.to(outputs.device), len_B)

    def answers(self, outputs: Tensor, len_B: Tensor) -> list[Any]:
        """Turns of the speakers "0", "1" ..."""
        labels = [str(number) for number in range(self.output_size)]
        spoken = (torch.sigmoid(outputs.float()) >= self.threshold).cpu().numpy()
        rows = (active[:length] for active, length in zip(spoken, len_B.tolist(), strict=True))
        return [list(turns_from(median_filter(row, self.median_frames), labels, self.frame_seconds)) for row in rows]

    def references(self, batch: Batch) -> list[Any]:
        """Turns."""
        return turns_of(batch)

    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        """`diarization_error_rate` and its parts as shares of the speech: `missed`, `false_alarm`, `confused`."""
        pairs = zip(*known(answers), strict=True)
        errors = [diarization_error(one, right, collar_seconds=self.collar_seconds) for one, right in pairs]
        error = sum(errors, DiarizationError())
        rate = error.rate  # there is none if nobody speaks
        parts = {name: getattr(error, name) / error.total for name in ("missed", "false_alarm", "confused")}
        return {"diarization_error_rate": rate, **parts}

    def show(self, answer: Any, key: str) -> str:
        """Lines of RTTM; the recording is called by its key, or as a file without folders and suffix."""
        path = PurePath(key)
        name = path.stem if path.suffix.lower() in AUDIO_SUFFIXES else key
        return rttm(answer, "_".join(name.split()))

    def _active(self, turns: Sequence[Turn], num_frames: int, key: str) -> Any:
        speakers = list(dict.fromkeys(turn.speaker for turn in turns))
        if len(speakers) > self.output_size:
            raise UsageError(
                f"{key}: has {len(speakers)} speakers, and the model is for {self.output_size}; "
                f"set task.num_speakers={len(speakers)} (--set), or leave it out with --where"
            )
        padded = [*speakers, *(f"no speaker {number}" for number in range(self.output_size - len(speakers)))]
        return active_frames(turns, padded, num_frames, self.frame_seconds)


def permutation_free_loss(logits_BFS: Tensor, active_BFS: Tensor, len_B: Tensor) -> Loss:
    """The least binary cross-entropy over the orders of the speakers of each utterance.

    The loss of an order is a sum over its pairs, so the best one is an assignment, for any number of speakers, where
    trying all orders is for few.

    Args:
        logits_BFS, active_BFS: float [B, F, S]; anything on padded frames.
        len_B: valid frames.
    """
    from scipy.optimize import linear_sum_assignment

    logits_BFS = logits_BFS.float()
    num_frames, num_speakers = logits_BFS.shape[1:]
    valid_BF = is_valid(len_B, num_frames).float()
    # log(1 + e^x) - x y, summed over the frames, for each output with each speaker: [B, S outputs, S speakers]
    silent_BS = torch.einsum("bfs,bf->bs", F.softplus(logits_BFS), valid_BF)
    pairs_BSS = silent_BS[..., None] - torch.einsum("bfo,bfs,bf->bos", logits_BFS, active_BFS, valid_BF)
    orders = [linear_sum_assignment(pairs) for pairs in pairs_BSS.detach().double().cpu().numpy()]
    total = sum(
        (pairs[rows, columns].sum() for pairs, (rows, columns) in zip(pairs_BSS, orders, strict=True)),
        torch.zeros((), device=logits_BFS.device),
    )
    frames = len_B.sum()
    return Loss(total / num_speakers / frames, frames)
