"""Masked reconstruction: the mean absolute error over the elements that were masked (Mockingjay, TERA, Audio ALBERT).

B batch, F frames, D bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s3prl_stream.objectives.loss import Loss, last_hidden, sum_of_zeros
from s3prl_stream.sample import Batch


class MaskedReconstructionObjective(nn.Module):
    """An encoder, a head that predicts the features from its last hidden state, and the loss.

    Args:
        encoder: (feat [B, F, D], feat_len [B]) -> list of hidden states [B, F, H], or the last one.
        head: [B, F, H] -> [B, F, D].
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch with `masked_feat`, `feat`, `feat_len` and `loss_mask`.

        Where there is a `target_feat`, other features are to come out than went in: all of their bins on each frame of
        which anything was masked.

        An empty batch (no rows) gives a loss of 0 whose gradient with respect to every parameter is 0, not None.
        """
        if not len(batch["key"]):
            return Loss(sum_of_zeros(self), torch.zeros((), dtype=torch.int64))
        hidden_states = self.encoder(batch["masked_feat"], batch["feat_len"])
        predicted_BFD = self.head(last_hidden(self.encoder, hidden_states, *batch["masked_feat"].shape[:2]))
        if "target_feat" in batch:
            frames_BF1 = batch["loss_mask"].any(dim=-1, keepdim=True)
            return masked_l1(predicted_BFD, batch["target_feat"], frames_BF1.expand_as(predicted_BFD))
        return masked_l1(predicted_BFD, batch["feat"], batch["loss_mask"])


def masked_l1(predicted_BFD: Tensor, target_BFD: Tensor, selected_BFD: Tensor) -> Loss:
    """Mean of |predicted - target| where `selected_BFD` (bool; False on padded frames) is True."""
    errors = (predicted_BFD.float() - target_BFD).abs() * selected_BFD
    count = selected_BFD.sum()
    return Loss(errors.sum() / count.clamp(min=1), count)
