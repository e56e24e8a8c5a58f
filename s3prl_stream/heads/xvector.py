"""The frame layers of an x-vector: time-delay layers that look at more and more frames. B batch, F frames, H hidden.

Snyder et al., "Spoken language recognition using x-vectors", Odyssey 2018; sizes as in SUPERB.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from s3prl_stream.heads.pooling import valid_frames

_CONTEXTS_AND_STEPS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))
FRAMES_LOST = sum((context - 1) * step for context, step in _CONTEXTS_AND_STEPS)
"""14: the output has so many frames less than the input."""


class XVector(nn.Module):
    """A projection and five time-delay layers; utterances of less than 15 frames are padded to 15 with zeros.

    Args:
        input_size: H of the input.
        project_size: width of the projection.
        hidden_size: of the first four layers.
        last_size: of the last layer.
    """

    def __init__(
        self, input_size: int, *, project_size: int = 512, hidden_size: int = 512, last_size: int = 1500
    ) -> None:
        super().__init__()
        self.output_size = last_size
        self.project = nn.Linear(input_size, project_size)
        widths = [project_size, *[hidden_size] * (len(_CONTEXTS_AND_STEPS) - 1), last_size]
        self.layers = nn.ModuleList(
            nn.Conv1d(width, next_width, context, dilation=step)
            for width, next_width, (context, step) in zip(widths[:-1], widths[1:], _CONTEXTS_AND_STEPS, strict=True)
        )

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> tuple[Tensor, Tensor]:
        """[B, F, H] -> [B, max(F, 15) - 14, output_size], max(length, 15) - 14."""
        hidden_BFH = torch.where(valid_frames(len_B, hidden_BFH.shape[1]), self.project(hidden_BFH), 0.0)
        missing = max(FRAMES_LOST + 1 - hidden_BFH.shape[1], 0)
        hidden_BHF = F.pad(hidden_BFH.transpose(1, 2), (0, missing))
        for layer in self.layers:
            hidden_BHF = torch.relu(layer(hidden_BHF))
        return hidden_BHF.transpose(1, 2), (len_B - FRAMES_LOST).clamp(min=1)
