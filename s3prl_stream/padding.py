"""Which of a padded batch is no padding."""

from __future__ import annotations

import torch
from torch import Tensor


def is_valid(lengths_B: Tensor, longest: int) -> Tensor:
    """bool [B, longest]: True before each row's length."""
    return torch.arange(longest, device=lengths_B.device) < lengths_B[:, None]
