"""Frames -> one vector an utterance. Padded frames never count, and one frame is enough.

(S3PRL's versions loop over the utterances; its deviation of one frame is NaN, and its attention starts from
uninitialised memory.) B batch, F frames, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.padding import is_valid

_SMALLEST_VARIANCE = 1e-5


def valid_frames(len_B: Tensor, num_frames: int) -> Tensor:
    """bool [B, F, 1]: True on the frames that are no padding."""
    return is_valid(len_B, num_frames)[..., None]


def _without_padding(hidden_BFH: Tensor, len_B: Tensor) -> Tensor:
    """Zeros on padded frames; in float32, for in bfloat16 sums over time, and differences of them, would be rounded."""
    return torch.where(valid_frames(len_B, hidden_BFH.shape[1]), hidden_BFH.float(), 0.0)


class MeanPooling(nn.Module):
    """The mean over the valid frames, [B, F, H] -> [B, H]."""

    growth = 1
    """The output is so many times as wide as the input."""

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> Tensor:
        """`len_B` int64, 1 or more."""
        mean_BH: Tensor = _without_padding(hidden_BFH, len_B).sum(dim=1) / len_B[:, None]
        return mean_BH


class StatisticsPooling(nn.Module):
    """Mean and (unbiased) standard deviation, [B, F, H] -> [B, 2H]; of one frame the deviation is 0.

    Snyder et al., "X-vectors: robust DNN embeddings for speaker recognition", ICASSP 2018.
    """

    growth = 2

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> Tensor:
        """`len_B` int64, 1 or more."""
        valid, frames_B1 = valid_frames(len_B, hidden_BFH.shape[1]), len_B[:, None]
        mean_BH = _without_padding(hidden_BFH, len_B).sum(dim=1) / frames_B1
        squares_BH = torch.where(valid, hidden_BFH - mean_BH[:, None], 0.0).square().sum(dim=1)
        # the root of 0 has no finite slope, so constant inputs get none at all
        positive = squares_BH > 0
        deviation_BH = (torch.where(positive, squares_BH, 1.0) / (frames_B1 - 1).clamp(min=1)).sqrt()
        return torch.cat([mean_BH, torch.where(positive, deviation_BH, 0.0)], dim=1)


class _Attention(nn.Module):
    """A weight for each frame, softmax over the valid ones of v . tanh(W h + b)."""

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.project = nn.Linear(input_size, input_size)
        self.attend = nn.Linear(input_size, 1, bias=False)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> Tensor:
        scores_BF1 = self.attend(torch.tanh(self.project(hidden_BFH))).float()
        valid = valid_frames(len_B, hidden_BFH.shape[1])
        weight_BF1: Tensor = torch.softmax(scores_BF1.masked_fill(~valid, -torch.inf), dim=1)
        return weight_BF1


class SelfAttentivePooling(nn.Module):
    """The mean weighted by attention, [B, F, H] -> [B, H].

    Zhu et al., "Self-attentive speaker embeddings for text-independent speaker verification", Interspeech 2018.
    """

    growth = 1

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.attention = _Attention(input_size)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> Tensor:
        """`len_B` int64, 1 or more."""
        hidden_BFH = _without_padding(hidden_BFH, len_B)
        mean_BH: Tensor = (self.attention(hidden_BFH, len_B) * hidden_BFH).sum(dim=1)
        return mean_BH


class AttentiveStatisticsPooling(nn.Module):
    """Mean and deviation weighted by attention, [B, F, H] -> [B, 2H]; variances are at least 1e-5.

    Okabe et al., "Attentive statistics pooling for deep speaker embedding", Interspeech 2018.
    """

    growth = 2

    def __init__(self, input_size: int) -> None:
        super().__init__()
        self.attention = _Attention(input_size)

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> Tensor:
        """`len_B` int64, 1 or more."""
        hidden_BFH = _without_padding(hidden_BFH, len_B)
        weight_BF1 = self.attention(hidden_BFH, len_B)
        mean_BH = (weight_BF1 * hidden_BFH).sum(dim=1)
        variance_BH = (weight_BF1 * hidden_BFH.square()).sum(dim=1) - mean_BH.square()
        return torch.cat([mean_BH, variance_BH.clamp(min=_SMALLEST_VARIANCE).sqrt()], dim=1)


POOLINGS: dict[str, Callable[[int], nn.Module]] = {
    "mean": lambda _: MeanPooling(),
    "statistics": lambda _: StatisticsPooling(),
    "self_attentive": SelfAttentivePooling,
    "attentive": AttentiveStatisticsPooling,
}


def build_pooling(name: str, input_size: int) -> nn.Module:
    """A pooling by name ("mean", "statistics", "self_attentive", "attentive"); its output is `growth` times as wide.

    Raises:
        UsageError: another name.
    """
    if name not in POOLINGS:
        raise UsageError(f"pooling {name!r} is unknown; there are {', '.join(POOLINGS)}")
    return POOLINGS[name](input_size)
