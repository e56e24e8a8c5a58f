"""SpecAugment on hidden states while training. B batch, F frames, H hidden.

Park et al., "SpecAugment", Interspeech 2019; by default as SUPERB's ASR and SF have it. Draws come from torch's
generator, which the training loop seeds for each step, so a resumed run makes the same masks.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class SpecAugment(nn.Module):
    """Warp time, then set bands of dimensions and stretches of frames to 0; in evaluation nothing.

    Args:
        warp_frames: largest shift of the frame around which time is warped; 0: no warping.
        max_dims, num_bands: widest band of dimensions (it is at most half of them), and how many.
        max_frames, num_stretches: longest stretch of frames (it is at most the utterance), and how many.
    """

    def __init__(
        self,
        *,
        warp_frames: int = 5,
        max_dims: int = 50,
        num_bands: int = 4,
        max_frames: int = 40,
        num_stretches: int = 2,
    ) -> None:
        super().__init__()
        self.warp_frames = warp_frames
        self.max_dims, self.num_bands = max_dims, num_bands
        self.max_frames, self.num_stretches = max_frames, num_stretches

    def forward(self, hidden_BFH: Tensor, len_B: Tensor) -> Tensor:
        """[B, F, H] -> [B, F, H], padded frames 0."""
        if not self.training:
            return hidden_BFH
        lengths, (_, num_frames, num_dims) = len_B.tolist(), hidden_BFH.shape
        warped = torch.zeros_like(hidden_BFH)
        for row, length in enumerate(lengths):
            warped[row, :length] = self._warp(hidden_BFH[row, :length])
        device = hidden_BFH.device
        dims = torch.full_like(len_B, num_dims)
        bands_BH = _stretches(dims, num_dims, min(self.max_dims, num_dims // 2), self.num_bands).to(device)
        hidden_frames_BF = _stretches(len_B, num_frames, self.max_frames, self.num_stretches).to(device)
        return warped.masked_fill(bands_BH[:, None, :] | hidden_frames_BF[..., None], 0.0)

    def _warp(self, hidden_FH: Tensor) -> Tensor:
        """What is before a random frame stretched to another length, and what is after it squeezed, or the reverse."""
        num_frames, shift = len(hidden_FH), self.warp_frames
        if shift < 1 or num_frames <= 2 * shift:
            return hidden_FH
        center = int(torch.randint(shift, num_frames - shift, ()))
        moved = min(max(center + int(torch.randint(-shift, shift + 1, ())), 1), num_frames - 1)
        parts = ((hidden_FH[:center], moved), (hidden_FH[center:], num_frames - moved))
        return torch.cat([_resized(part, frames) for part, frames in parts])


def _resized(hidden_FH: Tensor, num_frames: int) -> Tensor:
    image = nn.functional.interpolate(
        hidden_FH[None, None], (num_frames, hidden_FH.shape[1]), mode="bicubic", align_corners=False
    )
    return image[0, 0]


def _stretches(size_B: Tensor, longest: int, max_width: int, count: int) -> Tensor:
    """bool [B, longest] on the CPU: True in `count` stretches of 0 to max_width places that lie in the first size_B."""
    size_B1 = size_B.cpu()[:, None]
    width = torch.minimum((torch.rand(len(size_B), count) * (max_width + 1)).long(), size_B1)
    start = (torch.rand(len(size_B), count) * (size_B1 - width + 1)).long()
    place = torch.arange(longest)
    return ((place >= start[..., None]) & (place < (start + width)[..., None])).any(dim=1)
