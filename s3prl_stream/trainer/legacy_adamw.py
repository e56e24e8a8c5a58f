"""AdamW as S3PRL's runner has it (`AdamW_with_schedule`), to repeat its runs.

It differs from torch's in two ways: eps is added to the root before the correction of its bias, and the decay is
multiplied by the corrected rate, lr sqrt(1 - b2^t) / (1 - b1^t), which is far below lr in the first thousand steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch


class LegacyAdamW(torch.optim.Optimizer):
    """Leaves an update out if its attribute `found_inf` says so, as torch's fused optimizers do, but waits for it."""

    found_inf: torch.Tensor

    def __init__(self, groups: list[dict[str, Any]], *, lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "step": 0})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update with the gradients as they are."""
        if self.found_inf.item():
            return
        for group in self.param_groups:
            group["step"] += 1
            beta1, beta2 = group["betas"]
            rate = group["lr"] * math.sqrt(1 - beta2 ** group["step"]) / (1 - beta1 ** group["step"])
            for parameter in group["params"]:
                state = self.state[parameter]
                if not state:
                    state["mean"], state["square"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
                gradient = parameter.grad
                state["mean"].mul_(beta1).add_(gradient, alpha=1 - beta1)
                state["square"].mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
                change = state["mean"] / state["square"].sqrt().add_(group["eps"])
                parameter.add_(change.add_(parameter, alpha=group["weight_decay"]), alpha=-rate)
