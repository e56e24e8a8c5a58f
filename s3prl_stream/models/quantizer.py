"""Vector quantisation by Gumbel-softmax (VQ-APC, NPC), and the head that predicts features from codes.

B batch, F frames, D feature bins, H hidden, G groups.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3prl_stream.errors import UsageError


class GumbelQuantizer(nn.Module):
    """Each group of a hidden vector's values becomes one vector of the group's codebook.

    The code is drawn in proportion to the softmax of the logits while training, with the gradient of the softmax
    itself, and is the likeliest one otherwise.

    Args:
        hidden_size: H; divided evenly among the groups.
        codebook_sizes: number of codes of each group.
        temperature: of the softmax.
    """

    def __init__(self, hidden_size: int, codebook_sizes: Sequence[int], *, temperature: float) -> None:
        super().__init__()
        if not codebook_sizes or hidden_size % len(codebook_sizes):
            raise UsageError(
                f"quantizer: hidden_size {hidden_size} is not a multiple of {len(codebook_sizes)}, the number of groups"
            )
        if min(codebook_sizes) < 1 or not temperature > 0:
            raise UsageError(
                f"quantizer: codebook_sizes {tuple(codebook_sizes)} must be at least 1, temperature {temperature} "
                "above 0"
            )
        self.group_size = hidden_size // len(codebook_sizes)
        self.temperature = temperature
        self.logits = nn.ModuleList(nn.Linear(self.group_size, size) for size in codebook_sizes)
        self.codebooks = nn.ModuleList(nn.Linear(size, self.group_size, bias=False) for size in codebook_sizes)

    def forward(self, hidden_BFH: Tensor) -> Tensor:
        """[B, F, H] -> quantised [B, F, H]."""
        chosen = []
        for logits_BFC, codebook in zip(self._logits(hidden_BFH), self.codebooks, strict=True):
            if self.training:
                one_hot = F.gumbel_softmax(logits_BFC, tau=self.temperature, hard=True)
            else:
                one_hot = F.one_hot(logits_BFC.argmax(dim=-1), logits_BFC.shape[-1]).to(logits_BFC.dtype)
            chosen.append(codebook(one_hot))
        return torch.cat(chosen, dim=-1)

    def codes(self, hidden_BFH: Tensor) -> Tensor:
        """Index of the likeliest code of each group, int64 [G, B, F]."""
        return torch.stack([logits_BFC.argmax(dim=-1) for logits_BFC in self._logits(hidden_BFH)])

    def _logits(self, hidden_BFH: Tensor) -> list[Tensor]:
        groups = torch.split(hidden_BFH, self.group_size, dim=-1)
        return [layer(group) for layer, group in zip(self.logits, groups, strict=True)]


class PredictionHead(nn.Module):
    """Last hidden state -> features: one linear layer, behind a quantizer or not (S3PRL's postnet).

    Args:
        hidden_size: H.
        feat_dim: D.
        codebook_sizes: of the quantizer; none: the hidden state itself goes in.
        temperature: of the quantizer.
    """

    def __init__(
        self, hidden_size: int, feat_dim: int, *, codebook_sizes: Sequence[int] = (), temperature: float = 1.0
    ) -> None:
        super().__init__()
        self.quantizer: GumbelQuantizer | None = None
        if codebook_sizes:
            self.quantizer = GumbelQuantizer(hidden_size, codebook_sizes, temperature=temperature)
        self.output = nn.Linear(hidden_size, feat_dim)

    def forward(self, hidden_BFH: Tensor) -> Tensor:
        """[B, F, H] -> [B, F, D]."""
        feat_BFD: Tensor = self.output(hidden_BFH if self.quantizer is None else self.quantizer(hidden_BFH))
        return feat_BFD
