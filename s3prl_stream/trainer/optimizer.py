"""AdamW as S3PRL's recipes use it: no decay on biases and norms, linear warm-up, then linear decay to nothing."""

from __future__ import annotations

import torch
from torch import nn

WEIGHT_DECAY = 0.01
WARMUP_SHARE = 0.07


def build_adamw(module: nn.Module, *, lr: float, weight_decay: float = WEIGHT_DECAY) -> torch.optim.AdamW:
    """AdamW (betas 0.9, 0.999, eps 1e-8) that decays matrices and larger, never vectors (biases, norm scales)."""
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in trained if parameter.ndim >= 2]
    vectors = [parameter for parameter in trained if parameter.ndim < 2]
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": vectors, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr)


def learning_rate(step: int, *, peak: float, num_steps: int, warmup_share: float = WARMUP_SHARE) -> float:
    """The rate of one step.

    Args:
        step: 1 to `num_steps`.
        peak: reached at the end of the warm-up.
        num_steps: of the whole run; the step after it would have rate 0.
        warmup_share: share of the steps in which the rate rises linearly, 0 to 1.
    """
    warmup_steps = warmup_share * num_steps
    if step < warmup_steps:
        return peak * step / warmup_steps
    return peak * (num_steps + 1 - step) / max(num_steps + 1 - warmup_steps, 1.0)
