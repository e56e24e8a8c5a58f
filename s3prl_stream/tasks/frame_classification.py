"""One class for each frame: phones of an alignment, sounds that come one after the other. F frames, C classes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics import Turn, accuracy
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.sample import Batch
from s3prl_stream.tasks.segments import active_frames, turns_from, turns_of
from s3prl_stream.tasks.task import Answer, Best, Categories, Task, known

NO_CLASS = -100


class FrameClassification(Task):
    """Cross-entropy over the frames that a segment covers; accuracy of the same frames.

    Args:
        categories: labels of the segments, in the order of the outputs.
        frame_seconds: from one frame to the next.
    """

    level = "frame"
    of_whole_clips = True
    best = Best("accuracy", "highest")

    def __init__(self, *, categories: Sequence[str], frame_seconds: float) -> None:
        super().__init__()
        self.categories = Categories(categories, "segments")
        self.frame_seconds = frame_seconds
        self.columns = ("segments",)
        self.output_size = len(self.categories)

    def loss(self, outputs: Tensor, len_B: Tensor, batch: Batch) -> Loss:
        """[B, F, C] -> mean over the frames with a class."""
        targets_BF = torch.full(outputs.shape[:2], NO_CLASS)
        for row, (turns, length) in enumerate(zip(turns_of(batch), len_B.tolist(), strict=True)):
            targets_BF[row, :length] = targets = self._targets(turns or [], length)
            if (targets == self.output_size).any():
                unknown = sorted({turn.speaker for turn in turns or ()} - set(self.categories.names))
                key, number = batch["key"][row], self.output_size
                raise UsageError(f"{key}: a segment has the label {unknown[0]!r}, none of the {number} classes")
        targets_BF = targets_BF.to(outputs.device)
        count = (targets_BF != NO_CLASS).sum()
        total = F.cross_entropy(
            outputs.float().flatten(0, 1), targets_BF.flatten(), ignore_index=NO_CLASS, reduction="sum"
        )
        return Loss(total / count.clamp(min=1), count)

    def answers(self, outputs: Tensor, len_B: Tensor) -> list[Any]:
        """A class number for each frame."""
        rows = zip(outputs.argmax(dim=2).tolist(), len_B.tolist(), strict=True)
        return [numbers[:length] for numbers, length in rows]

    def references(self, batch: Batch) -> list[Any]:
        """Turns."""
        return turns_of(batch)

    def unknown(self, reference: Any) -> list[str]:
        return sorted({turn.speaker for turn in reference} - set(self.categories.names))

    def score(self, answers: Sequence[Answer]) -> dict[str, float]:
        """`accuracy` of the frames with a class, 0 to 1; a reference that is no class counts as missed."""
        given: list[int] = []
        right: list[int] = []
        known(answers)
        for one in answers:
            targets = self._targets(one.reference, len(one.answer)).tolist()
            pairs = [(number, target) for number, target in zip(one.answer, targets, strict=True) if target >= 0]
            given.extend(number for number, _ in pairs)
            right.extend(target for _, target in pairs)
        return {"accuracy": accuracy(given, right)}

    def show(self, answer: Any, key: str) -> str:
        """The key and "start end class" of each stretch of equal frames, in seconds."""
        numbers = torch.tensor(answer, dtype=torch.int64)
        active = F.one_hot(numbers, len(self.categories)).bool().numpy()
        turns = sorted(turns_from(active, self.categories.names, self.frame_seconds))
        return f"{key}\t" + " ".join(f"{turn.start:.2f} {turn.end:.2f} {turn.speaker}" for turn in turns)

    def _targets(self, turns: Sequence[Turn], num_frames: int) -> Tensor:
        """int64 [F]; where segments overlap the later class of the list holds, and C stands for what is no class."""
        others = sorted({turn.speaker for turn in turns} - set(self.categories.names))
        names = [*self.categories.names, *others]
        active = torch.from_numpy(active_frames(turns, names, num_frames, self.frame_seconds))
        numbers = torch.where(active, torch.arange(len(names)).clamp(max=self.output_size), NO_CLASS)
        return numbers.max(dim=1).values
