"""The frame layers of ECAPA-TDNN: residual blocks of several scales with squeeze and excitation.

Desplanques et al., "ECAPA-TDNN", Interspeech 2020. Convolutions, means and batch norms see valid frames only, so
that padding changes nothing, also while training. B batch, F frames, H hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.heads.pooling import valid_frames

_DILATIONS = (2, 3, 4)


class EcapaTdnn(nn.Module):
    """A convolution, three residual blocks, and a layer over what all three gave.

    Args:
        input_size: H of the input.
        channels: width of the blocks; a multiple of `scale`.
        last_size: of the last layer.
        scale: groups of channels in a block, each seeing the outputs of those before.
        bottleneck: width of squeeze and excitation.

    Raises:
        UsageError: channels that are no multiple of the scale.
    """

    def __init__(
        self,
        input_size: int,
        *,
        channels: int = 1024,
        last_size: int = 1536,
        scale: int = 8,
        bottleneck: int = 128,
    ) -> None:
        super().__init__()
        if scale < 2 or channels % scale:
            raise UsageError(f"head ecapa: channels {channels} must be a multiple of scale {scale}, which is 2 or more")
        self.output_size = last_size
        self.first = _MaskedConv(input_size, channels, 5)
        self.first_norm = _MaskedNorm(channels)
        self.blocks = nn.ModuleList(_Block(channels, dilation, scale, bottleneck) for dilation in _DILATIONS)
        self.last = nn.Conv1d(len(_DILATIONS) * channels, last_size, 1)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, H] -> [B, F, output_size], the same lengths."""
        valid_B1F = valid_frames(len_B, hidden_BFH.shape[1]).transpose(1, 2)
        first = self.first_norm(torch.relu(self.first(hidden_BFH.transpose(1, 2), valid_B1F)), valid_B1F)
        outputs: list[Tensor] = []
        for block in self.blocks:
            outputs.append(block(sum(outputs, first), valid_B1F))
        return torch.relu(self.last(torch.cat(outputs, dim=1))).transpose(1, 2), len_B


class _MaskedConv(nn.Conv1d):
    """A convolution of equal length that sees zeros after the end of an utterance, as it does without padding."""

    def __init__(self, input_size: int, output_size: int, kernel: int, dilation: int = 1) -> None:
        super().__init__(input_size, output_size, kernel, dilation=dilation, padding=kernel // 2 * dilation)

    def forward(self, hidden_BHF: Tensor, valid_B1F: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(torch.where(valid_B1F, hidden_BHF, 0.0))


class _MaskedNorm(nn.BatchNorm1d):
    """Batch norm over the valid frames only; padded ones become 0."""

    def forward(self, hidden_BHF: Tensor, valid_B1F: Tensor) -> Tensor:  # type: ignore[override]
        hidden_BFH, valid_BF = hidden_BHF.transpose(1, 2), valid_B1F[:, 0]
        if self.training and int(valid_BF.sum()) < 2:  # one frame has no variance: as it would be in evaluation
            rows = nn.functional.batch_norm(
                hidden_BFH[valid_BF], self.running_mean, self.running_var, self.weight, self.bias, eps=self.eps
            )
        else:
            rows = super().forward(hidden_BFH[valid_BF])
        normed_BFH = torch.zeros_like(hidden_BFH, dtype=rows.dtype).masked_scatter(valid_BF[..., None], rows)
        return normed_BFH.transpose(1, 2)


class _Block(nn.Module):
    """Res2Net's split of the channels between two layers of kernel 1, squeeze and excitation, the residual."""

    def __init__(self, channels: int, dilation: int, scale: int, bottleneck: int) -> None:
        super().__init__()
        self.width = channels // scale
        self.enter, self.enter_norm = nn.Conv1d(channels, channels, 1), _MaskedNorm(channels)
        self.convs = nn.ModuleList(_MaskedConv(self.width, self.width, 3, dilation) for _ in range(scale - 1))
        self.norms = nn.ModuleList(_MaskedNorm(self.width) for _ in range(scale - 1))
        self.leave, self.leave_norm = nn.Conv1d(channels, channels, 1), _MaskedNorm(channels)
        self.squeeze, self.excite = nn.Linear(channels, bottleneck), nn.Linear(bottleneck, channels)

    def forward(self, hidden_BHF: Tensor, valid_B1F: Tensor) -> Tensor:
        entered = self.enter_norm(torch.relu(self.enter(hidden_BHF)), valid_B1F)
        *parts, untouched = entered.split(self.width, dim=1)
        done: list[Tensor] = []
        for part, conv, norm in zip(parts, self.convs, self.norms, strict=True):
            done.append(norm(torch.relu(conv(part + done[-1] if done else part, valid_B1F)), valid_B1F))
        left = self.leave_norm(torch.relu(self.leave(torch.cat([*done, untouched], dim=1))), valid_B1F)
        mean_BH = torch.where(valid_B1F, left, 0.0).sum(dim=2) / valid_B1F.sum(dim=2)
        gates_BH = torch.sigmoid(self.excite(torch.relu(self.squeeze(mean_BH))))
        output_BHF: Tensor = hidden_BHF + left * gates_BH[..., None]
        return output_BHF
