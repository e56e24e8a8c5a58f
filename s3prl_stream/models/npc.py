"""The encoder of NPC: convolutions whose last layer cannot see the frame that is to be predicted, nor those beside it.

Liu et al., "Non-Autoregressive Predictive Coding for Learning Speech Representations from Local Dependencies",
Interspeech 2021.

S3PRL lets convolutions and batch statistics run over the zero padding of shorter utterances, whose frames there then
depend on what else is in the batch. Here padded frames are 0 before every convolution and not counted, so an utterance
gets what it gets alone; `legacy` is S3PRL's way.

B batch, F frames, D feature bins, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3prl_stream.errors import UsageError
from s3prl_stream.models.sizes import below_one, possible
from s3prl_stream.padding import is_valid


class NpcEncoder(nn.Module):
    """Features to hidden states.

    Args:
        feat_dim: D of the input.
        hidden_size: H.
        num_blocks: convolution blocks; each widens what a frame sees by one to both sides.
        kernel_size: of the masked convolutions; odd.
        mask_size: frames around the predicted one that must not be seen; odd.
        dropout: in the blocks while training.
        legacy: padded frames take part in convolutions and batch statistics.

    Attributes:
        num_layers: 2 `num_blocks`: hidden states are block, masked convolution, block, ... and the sum of the masked
            convolutions.
    """

    def __init__(
        self,
        *,
        feat_dim: int = 80,
        hidden_size: int = 512,
        num_blocks: int = 4,
        kernel_size: int = 15,
        mask_size: int = 5,
        dropout: float = 0.1,
        legacy: bool = False,
    ) -> None:
        super().__init__()
        possible(feat_dim=feat_dim, hidden_size=hidden_size, num_blocks=num_blocks, mask_size=mask_size)
        below_one(dropout=dropout)
        widest = mask_size + 2 * num_blocks
        if kernel_size % 2 == 0 or mask_size % 2 == 0 or widest >= kernel_size:
            raise UsageError(
                f"encoder: num_blocks {num_blocks}, kernel_size {kernel_size}, mask_size {mask_size}; the sizes must "
                f"be odd, and mask_size + 2 * num_blocks below kernel_size"
            )
        self.hidden_size = hidden_size
        self.num_layers = 2 * num_blocks
        self.legacy = legacy
        self.blocks = nn.ModuleList(
            ConvBlock(hidden_size if number else feat_dim, hidden_size, residual=number > 0, dropout=dropout)
            for number in range(num_blocks)
        )
        self.masked_convs = nn.ModuleList(
            MaskedConv(hidden_size, kernel_size, mask_size + 2 * (number + 1)) for number in range(num_blocks)
        )

    def forward(self, feat_BFD: Tensor, feat_len_B: Tensor) -> list[Tensor]:
        """All hidden states.

        Args:
            feat_BFD: float32 [B, F, D]; with `legacy` padded with zeros, else with anything finite.
            feat_len_B: int64 [B], valid frames.

        Returns:
            2 `num_blocks` + 1 tensors [B, F, H]; padded frames hold numbers without meaning.
        """
        if self.legacy:
            feat_len_B = torch.full_like(feat_len_B, feat_BFD.shape[1])
        valid_B1F = is_valid(feat_len_B, feat_BFD.shape[1])[:, None]
        block_BHF = feat_BFD.transpose(1, 2) * valid_B1F
        hidden_states: list[Tensor] = []
        masked: list[Tensor] = []
        for block, masked_conv in zip(self.blocks, self.masked_convs, strict=True):
            block_BHF = block(block_BHF, valid_B1F) * valid_B1F
            masked.append(masked_conv(block_BHF).transpose(1, 2))
            hidden_states += [block_BHF.transpose(1, 2), masked[-1]]
        total_BFH = masked[0]
        for one in masked[1:]:
            total_BFH = total_BFH + one
        return [*hidden_states, total_BFH]


class ConvBlock(nn.Module):
    """Convolution over 3 frames and a pointwise one, each with batch normalisation."""

    def __init__(self, input_size: int, hidden_size: int, *, residual: bool, dropout: float) -> None:
        super().__init__()
        self.residual = residual
        self.conv = nn.Conv1d(input_size, hidden_size, 3, padding=1)
        self.conv_norm = ValidBatchNorm(hidden_size)
        self.pointwise = nn.Conv1d(hidden_size, hidden_size, 1)
        self.pointwise_norm = ValidBatchNorm(hidden_size)
        self.dropout = nn.Dropout(dropout)

    def forward(self, input_BHF: Tensor, valid_B1F: Tensor) -> Tensor:
        """[B, H, F] -> [B, H, F]."""
        inner = F.relu(self.conv_norm(self.conv(input_BHF), valid_B1F))
        output_BHF: Tensor = self.dropout(self.pointwise_norm(self.pointwise(inner), valid_B1F))
        return F.relu(output_BHF + input_BHF if self.residual else output_BHF)


class MaskedConv(nn.Module):
    """A convolution whose middle weights are 0, and tanh.

    Args:
        hidden_size: of input and output.
        kernel_size: odd.
        mask_size: how many weights in the middle are 0; odd.
    """

    def __init__(self, hidden_size: int, kernel_size: int, mask_size: int) -> None:
        super().__init__()
        self.seen_K: Tensor
        self.conv = nn.Conv1d(hidden_size, hidden_size, kernel_size, padding=kernel_size // 2)
        distance = (torch.arange(kernel_size) - kernel_size // 2).abs()
        self.register_buffer("seen_K", (distance > mask_size // 2).float(), persistent=False)

    def forward(self, input_BHF: Tensor) -> Tensor:
        """[B, H, F] -> [B, H, F]."""
        weight = self.conv.weight * self.seen_K
        return torch.tanh(F.conv1d(input_BHF, weight, self.conv.bias, padding=self.conv.padding))


class ValidBatchNorm(nn.BatchNorm1d):
    """Batch normalisation with the statistics of valid frames."""

    def forward(self, input_BHF: Tensor, valid_B1F: Tensor) -> Tensor:  # type: ignore[override]
        """[B, H, F] and bool [B, 1, F] -> [B, H, F]."""
        if not self.training:
            return super().forward(input_BHF)
        input_BHF = input_BHF.float()  # in bfloat16 sums over a batch would be rounded
        count = valid_B1F.sum().clamp(min=1)
        mean_H = (input_BHF * valid_B1F).sum(dim=(0, 2)) / count
        centered_BHF = (input_BHF - mean_H[:, None]) * valid_B1F
        variance_H = centered_BHF.square().sum(dim=(0, 2)) / count
        with torch.no_grad():
            assert self.running_mean is not None
            assert self.running_var is not None
            assert self.num_batches_tracked is not None
            assert self.momentum is not None
            self.running_mean.lerp_(mean_H, self.momentum)
            self.running_var.lerp_(variance_H * count / (count - 1).clamp(min=1), self.momentum)
            self.num_batches_tracked.add_(1)
        scale_H = self.weight * torch.rsqrt(variance_H + self.eps)
        return (input_BHF - mean_H[:, None]) * scale_H[:, None] + self.bias[:, None]
