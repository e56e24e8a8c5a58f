"""Distillation: the student predicts chosen layers of a frozen teacher (DistilHuBERT).

B batch, T waveform samples, F frames, D size of the teacher's hidden states, N chosen layers.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3prl_stream.errors import UsageError
from s3prl_stream.objectives.loss import Loss, last_hidden, sum_of_zeros
from s3prl_stream.padding import is_valid
from s3prl_stream.sample import Batch


class DistillationObjective(nn.Module):
    """A student, its prediction heads, and the loss against a teacher.

    The teacher is no part of the module: it is in no checkpoint, has no gradient, and stays in evaluation mode.

    Args:
        encoder: the student, (wav [B, T], wav_len [B]) -> list of hidden states [B, F, H], or the last one, with
            `num_frames(wav_len)` and `stride`.
        head: [B, F, H] -> [B, N, F, D].
        target_layers: N hidden states of the teacher, 0 for what goes into its first layer.
        teacher: (wavs, lengths) -> hidden states [B, F, D], with `stride` and `num_frames`, such as an `Upstream`;
            None: the objective cannot be called, only loaded.
        cosine_weight: of the second part of the loss.
        average_padding: padded frames count, as in S3PRL.
        train_teacher: the teacher is in training mode, with dropout, as S3PRL's is.
        teacher_bf16: the teacher computes in bfloat16 where it can.
    """

    def __init__(
        self,
        encoder: nn.Module,
        head: nn.Module,
        target_layers: Sequence[int],
        teacher: nn.Module | None = None,
        *,
        cosine_weight: float = 1.0,
        average_padding: bool = False,
        train_teacher: bool = False,
        teacher_bf16: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.target_layers = tuple(target_layers)
        self.cosine_weight = cosine_weight
        self.average_padding = average_padding
        self.train_teacher = train_teacher
        self.teacher_bf16 = teacher_bf16
        self._teacher = [] if teacher is None else [teacher]  # in a list: no submodule

    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch with `wav` and `wav_len`; `num_elements` counts frames.

        An empty batch (no rows) gives a loss of 0 whose gradient with respect to every parameter is 0, not None.
        """
        if not len(batch["key"]):
            return Loss(sum_of_zeros(self), torch.zeros((), dtype=torch.int64))
        wav_BT, wav_len_B = batch["wav"], batch["wav_len"]
        student: Any = self.encoder
        predicted_BNFD = self.head(last_hidden(student, student(wav_BT, wav_len_B), len(wav_BT)))
        target_BNFD = self.targets(wav_BT, wav_len_B)
        frames = min(predicted_BNFD.shape[2], target_BNFD.shape[2])  # they may differ by one at the end
        predicted_BNFD, target_BNFD = predicted_BNFD[:, :, :frames], target_BNFD[:, :, :frames]
        counted_BF = is_valid(self._num_frames(wav_len_B), frames)
        if self.average_padding:
            counted_BF = torch.ones_like(counted_BF)
        return distillation_loss(predicted_BNFD, target_BNFD, counted_BF, cosine_weight=self.cosine_weight)

    @torch.no_grad()
    def targets(self, wav_BT: Tensor, wav_len_B: Tensor) -> Tensor:
        """The chosen layers of the teacher [B, N, F, D] at the student's frames."""
        if not self._teacher:
            raise UsageError("distillation: there is no teacher; give one to train")
        teacher: Any = self._teacher[0]
        teacher.to(wav_BT.device).train(self.train_teacher)
        with torch.autocast(wav_BT.device.type, torch.bfloat16, enabled=self.teacher_bf16):
            hidden_states = teacher(wav_BT, wav_len_B)
        step = self._step()
        return torch.stack([hidden_states[layer].float()[:, step // 2 :: step] for layer in self.target_layers], dim=1)

    def _step(self) -> int:
        """Frames of the teacher from one of the student to the next."""
        student: Any = self.encoder
        teacher: Any = self._teacher[0]
        if student.stride < teacher.stride or student.stride % teacher.stride:
            raise UsageError(
                f"distillation: the student has a frame each {student.stride} samples, the teacher each "
                f"{teacher.stride}; the first must be a multiple of the second"
            )
        return int(student.stride // teacher.stride)

    def _num_frames(self, wav_len_B: Tensor) -> Tensor:
        """Frames that student and teacher both have of each utterance, int64 [B]."""
        student: Any = self.encoder
        teacher: Any = self._teacher[0]
        frames_B: Tensor = student.num_frames(wav_len_B)
        step = self._step()
        if step == 1 and hasattr(teacher, "wave_weights"):  # of HuBERT's kind: to ask would be to wait for the device
            return frames_B
        of_teacher_B = teacher.num_frames(wav_len_B).to(frames_B.device)
        return torch.minimum(frames_B, (of_teacher_B - 1 - step // 2) // step + 1)


def distillation_loss(
    predicted_BNFD: Tensor, target_BNFD: Tensor, counted_BF: Tensor, *, cosine_weight: float = 1.0
) -> Loss:
    """Mean absolute error, plus the mean of -log sigmoid(cosine similarity), over the counted frames of all layers."""
    count = counted_BF.sum()
    scale = counted_BF[:, None] / (count.clamp(min=1) * predicted_BNFD.shape[1])
    error = (predicted_BNFD.float() - target_BNFD).abs().mean(dim=-1)
    similarity = F.cosine_similarity(predicted_BNFD.float(), target_BNFD, dim=-1)
    return Loss(((error - cosine_weight * F.logsigmoid(similarity)) * scale).sum(), count)
