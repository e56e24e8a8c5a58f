"""HuBERT's network on waveforms, which DistilHuBERT's student has with fewer layers.

Hsu et al., "HuBERT", TASLP 2021; Chang et al., "DistilHuBERT", ICASSP 2022. Seven convolutions make a frame of each 320
samples; then come a projection, a convolution that codes positions, and post-norm transformer layers.

The first convolution's output is normalised over time. In HuBERT, as everywhere, this runs over the zeros behind
shorter utterances too, so that results depend on the batch; here it runs over valid frames, so that an utterance gets
what it gets alone. `legacy` is the other way.

B batch, T waveform samples, F frames, C channels of the convolutions, H hidden.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import weight_norm

from s3prl_stream.errors import UsageError
from s3prl_stream.models.exact import exactly
from s3prl_stream.models.sizes import below_one, possible
from s3prl_stream.models.transformer import EncoderLayer, attention_bias, init_like_bert
from s3prl_stream.padding import is_valid

KERNELS = (10, 3, 3, 3, 3, 2, 2)
STRIDES = (5, 2, 2, 2, 2, 2, 2)
NORM_EPS = 1e-5
MIN_SAMPLES = 800
"""Shorter waveforms are taken as padded with zeros to this length."""


class WaveEncoder(nn.Module):
    """Waveforms to hidden states, one frame each 320 samples.

    Args:
        conv_size: C.
        hidden_size: H.
        num_layers: of the transformer.
        num_heads: attention heads.
        ffn_size: width of the feed-forward part.
        position_kernel, position_groups: of the convolution that codes positions.
        dropout, attention_dropout, activation_dropout: while training.
        feature_norm: a LayerNorm before the projection; HuBERT has it, DistilHuBERT has not.
        positions_first: hidden state 0 is the first layer's input (HuBERT in S3PRL), not the projection (DistilHuBERT).
        conv_gradient: factor of the gradient that reaches the convolutions.
        legacy: the first convolution is normalised over padding too; and with `positions_first` a frame is valid if
            any sample of its share of the padded waveform is, as in fairseq, which may be one frame more.

    Raises:
        UsageError: sizes that do not fit together.
    """

    def __init__(
        self,
        *,
        conv_size: int = 512,
        hidden_size: int = 768,
        num_layers: int = 2,
        num_heads: int = 12,
        ffn_size: int = 3072,
        position_kernel: int = 128,
        position_groups: int = 16,
        dropout: float = 0.1,
        attention_dropout: float = 0.1,
        activation_dropout: float = 0.1,
        feature_norm: bool = False,
        positions_first: bool = False,
        conv_gradient: float = 0.1,
        legacy: bool = False,
    ) -> None:
        super().__init__()
        possible(conv_size=conv_size, hidden_size=hidden_size, num_heads=num_heads, ffn_size=ffn_size)
        possible(position_kernel=position_kernel, position_groups=position_groups)
        below_one(dropout=dropout, attention_dropout=attention_dropout, activation_dropout=activation_dropout)
        if hidden_size % num_heads or hidden_size % position_groups or num_layers < 0:
            raise UsageError(
                f"encoder: hidden_size {hidden_size} must be a multiple of num_heads {num_heads} and of "
                f"position_groups {position_groups}, and num_layers {num_layers} not below 0"
            )
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.stride = math.prod(STRIDES)
        self.positions_first = positions_first
        self.conv_gradient = conv_gradient
        self.legacy = legacy
        self.convs = WaveConvolutions(conv_size)
        self.feature_norm = nn.LayerNorm(conv_size, eps=NORM_EPS) if feature_norm else nn.Identity()
        self.project = nn.Linear(conv_size, hidden_size)
        position_conv = nn.Conv1d(
            hidden_size, hidden_size, position_kernel, padding=position_kernel // 2, groups=position_groups
        )
        self.norm = nn.LayerNorm(hidden_size, eps=NORM_EPS)
        self.dropout = nn.Dropout(dropout)
        self.layers = nn.ModuleList(
            EncoderLayer(
                hidden_size,
                num_heads,
                ffn_size,
                dropout,
                attention_dropout,
                activation_dropout=activation_dropout,
                norm_eps=NORM_EPS,
            )
            for _ in range(num_layers)
        )
        self.apply(init_like_bert)
        nn.init.normal_(position_conv.weight, std=math.sqrt(4 * (1 - dropout) / (position_kernel * hidden_size)))
        nn.init.zeros_(position_conv.bias)  # type: ignore[arg-type]
        self.position_conv = weight_norm(position_conv, dim=2)

    def forward(self, wav_BT: Tensor, wav_len_B: Tensor) -> list[Tensor]:
        """All hidden states.

        Args:
            wav_BT: float32 [B, T] at 16 kHz, padded with zeros.
            wav_len_B: int64 [B], valid samples.

        Returns:
            `num_layers` + 1 tensors [B, F, H]; `num_frames(wav_len_B)` are valid. Padded frames hold numbers without
            meaning.
        """
        if wav_BT.shape[1] < MIN_SAMPLES:
            wav_BT = F.pad(wav_BT, (0, MIN_SAMPLES - wav_BT.shape[1]))
        conv_BCF = self.convs(wav_BT, wav_len_B.clamp(min=MIN_SAMPLES), over_padding=self.legacy)
        if self.conv_gradient != 1.0:  # the same values: what is multiplied is 0 but for its gradient
            conv_BCF = conv_BCF.detach() + self.conv_gradient * (conv_BCF - conv_BCF.detach())
        frames_B = self.num_frames(wav_len_B)
        if self.legacy and self.positions_first:
            share = wav_BT.shape[1] // conv_BCF.shape[2]
            frames_B = torch.div(wav_len_B + share - 1, share, rounding_mode="floor").clamp(max=conv_BCF.shape[2])
        valid_BF1 = is_valid(frames_B, conv_BCF.shape[2])[..., None]
        hidden_BFH = self.project(self.feature_norm(conv_BCF.transpose(1, 2)))
        hidden_BFH = torch.where(valid_BF1, hidden_BFH, 0.0)
        hidden_states = [hidden_BFH]
        hidden_BFH = self.dropout(self.norm(hidden_BFH + self._positions(hidden_BFH)))
        if self.positions_first:
            hidden_states = [hidden_BFH]
        bias = attention_bias(frames_B, hidden_BFH.shape[1]).to(hidden_BFH.dtype)
        for layer in self.layers:
            hidden_BFH = layer(hidden_BFH, bias)
            hidden_states.append(hidden_BFH)
        return hidden_states

    def num_frames(self, lengths_B: Tensor) -> Tensor:
        """Valid frames int64 [B] of waveforms of these lengths (samples)."""
        return conv_frames(lengths_B.clamp(min=MIN_SAMPLES))

    def _positions(self, hidden_BFH: Tensor) -> Tensor:
        coded_BHF = exactly(self.position_conv, hidden_BFH.transpose(1, 2))
        return F.gelu(coded_BHF[..., : hidden_BFH.shape[1]]).transpose(1, 2)


class WaveConvolutions(nn.Module):
    """Seven convolutions, each followed by GELU, the first one's output normalised over time for each channel."""

    def __init__(self, conv_size: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Conv1d(conv_size if number else 1, conv_size, kernel, stride=stride, bias=False)
            for number, (kernel, stride) in enumerate(zip(KERNELS, STRIDES, strict=True))
        )
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
        self.norm_weight = nn.Parameter(torch.ones(conv_size))
        self.norm_bias = nn.Parameter(torch.zeros(conv_size))

    def forward(self, wav_BT: Tensor, wav_len_B: Tensor, *, over_padding: bool = False) -> Tensor:
        """[B, T] and valid samples [B] -> [B, C, F]."""
        conv_BCF = self.layers[0](wav_BT[:, None])
        if over_padding:
            conv_BCF = F.group_norm(conv_BCF, conv_BCF.shape[1], self.norm_weight, self.norm_bias, NORM_EPS)
        else:
            frames_B = conv_frames(wav_len_B, KERNELS[:1], STRIDES[:1])
            conv_BCF = norm_over_time(conv_BCF, frames_B, self.norm_weight, self.norm_bias)
        conv_BCF = F.gelu(conv_BCF)
        for layer in self.layers[1:]:
            conv_BCF = F.gelu(layer(conv_BCF))
        return conv_BCF


def norm_over_time(
    input_BCF: Tensor, frames_B: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float = NORM_EPS
) -> Tensor:
    """Mean 0 and variance 1 of each channel over the valid frames of each row, then scale and shift; [B, C, F].

    What follows the valid frames has no meaning. On a CPU by torch's own kernel, row by row: what works for all rows at
    once is ten passes over the largest tensor of the network, but on a GPU to know the lengths would be to wait for it.
    """
    input_BCF = input_BCF.float()  # in bfloat16 sums over time would be rounded
    if input_BCF.device.type == "cpu":
        return _norm_rows(input_BCF, frames_B.tolist(), weight_C, bias_C, eps)
    return _norm_at_once(input_BCF, frames_B, weight_C, bias_C, eps)


def _norm_at_once(input_BCF: Tensor, frames_B: Tensor, weight_C: Tensor, bias_C: Tensor, eps: float) -> Tensor:
    valid_B1F = is_valid(frames_B, input_BCF.shape[2])[:, None]
    count_B11 = frames_B[:, None, None].clamp(min=1)
    mean_BC1 = (input_BCF * valid_B1F).sum(dim=2, keepdim=True) / count_B11
    centered_BCF = input_BCF - mean_BC1
    variance_BC1 = (centered_BCF.square() * valid_B1F).sum(dim=2, keepdim=True) / count_B11
    return centered_BCF * torch.rsqrt(variance_BC1 + eps) * weight_C[:, None] + bias_C[:, None]


def _norm_rows(input_BCF: Tensor, frames: list[int], weight_C: Tensor, bias_C: Tensor, eps: float) -> Tensor:
    longest, channels = input_BCF.shape[2], input_BCF.shape[1]
    if min(frames, default=longest) == longest:
        return F.group_norm(input_BCF, channels, weight_C, bias_C, eps)
    rows = [
        F.pad(F.group_norm(row[..., : max(valid, 1)], channels, weight_C, bias_C, eps), (0, longest - max(valid, 1)))
        for row, valid in zip(torch.split(input_BCF, 1), frames, strict=True)
    ]
    return torch.cat(rows)


def conv_frames(lengths_B: Tensor, kernels: Sequence[int] = KERNELS, strides: Sequence[int] = STRIDES) -> Tensor:
    """Output frames int64 [B] of convolutions without padding on inputs of these lengths."""
    for kernel, stride in zip(kernels, strides, strict=True):
        lengths_B = torch.div(lengths_B - kernel, stride, rounding_mode="floor") + 1
    return lengths_B


class DistillationHead(nn.Module):
    """Last hidden state -> one prediction for each chosen layer of the teacher.

    Args:
        hidden_size: H of the student.
        num_targets: N.
        target_size: H of the teacher.
    """

    def __init__(self, hidden_size: int, num_targets: int, target_size: int) -> None:
        super().__init__()
        self.num_targets = num_targets
        self.dense = nn.Linear(hidden_size, hidden_size * num_targets)
        bound = hidden_size**-0.5
        self.weight_NHD = nn.Parameter(torch.empty(num_targets, hidden_size, target_size).uniform_(-bound, bound))
        self.bias_ND = nn.Parameter(torch.empty(num_targets, target_size).uniform_(-bound, bound))

    def forward(self, hidden_BFH: Tensor) -> Tensor:
        """[B, F, H] -> [B, N, F, D]."""
        batch, frames, hidden = hidden_BFH.shape
        inner_BFNH = F.gelu(self.dense(hidden_BFH)).view(batch, frames, self.num_targets, hidden)
        return torch.einsum("bfnh,nhd->bnfd", inner_BFNH, self.weight_NHD) + self.bias_ND[:, None]
