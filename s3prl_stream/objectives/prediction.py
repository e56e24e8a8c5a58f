"""Prediction of frames, of a later one (APC, VQ-APC) or of an unseen one (NPC): mean absolute error over valid frames.

B batch, F frames, D bins.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s3prl_stream.objectives.loss import Loss, last_hidden, sum_of_zeros
from s3prl_stream.objectives.masked_reconstruction import masked_l1
from s3prl_stream.padding import is_valid
from s3prl_stream.sample import Batch


class PredictionObjective(nn.Module):
    """An encoder, a head that predicts features from its last hidden state, and the loss.

    Args:
        encoder: (feat [B, F, D], feat_len [B]) -> list of hidden states [B, F, H], or the last one.
        head: [B, F, H] -> [B, F, D].
        target: key of what is predicted: "target_feat" as the stage `shift` makes it, or "feat".
        average_padding: padded frames count, with the prediction from a hidden state of 0 against a target of 0, as
            in S3PRL's APC, where the loss so depends on what is in a batch together.
    """

    def __init__(
        self, encoder: nn.Module, head: nn.Module, *, target: str = "target_feat", average_padding: bool = False
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head
        self.target = target
        self.average_padding = average_padding

    def forward(self, batch: Batch) -> Loss:
        """The loss of a batch with `feat`, `feat_len` and the target.

        An empty batch (no rows) gives a loss of 0 whose gradient with respect to every parameter is 0, not None.
        """
        if not len(batch["key"]):
            return Loss(sum_of_zeros(self), torch.zeros((), dtype=torch.int64))
        feat_BFD, feat_len_B = batch["feat"], batch["feat_len"]
        hidden_BFH = last_hidden(self.encoder, self.encoder(feat_BFD, feat_len_B), *feat_BFD.shape[:2])
        predicted_BFD: Tensor = self.head(hidden_BFH)
        counted_BF1 = is_valid(feat_len_B, feat_BFD.shape[1])[..., None]
        if self.average_padding:
            counted_BF1 = torch.ones_like(counted_BF1)
        return masked_l1(predicted_BFD, batch[self.target], counted_BF1.expand_as(predicted_BFD))
