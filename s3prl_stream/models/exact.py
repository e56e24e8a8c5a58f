"""Layers that torch 2.11 computes wrongly in bfloat16 on a CPU with AMX: on any CPU they are computed in float32.

Convolutions of 2 to 15 channels a group give nonsense with some kernels, among them those of even size that code
positions; LSTMs of 1024 units and more get gradients that are wrong. Both lie in oneDNN, and where its blocks begin to
be wrong depends on the caches of the machine.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


def exactly(layer: nn.Module, given: Tensor) -> Any:
    """What a layer gives for a tensor, under autocast too."""
    if given.is_cpu and is_wrong(layer):
        with torch.autocast("cpu", enabled=False):
            return layer(given.float())
    return layer(given)


def is_wrong(layer: nn.Module) -> bool:
    """Whether a layer may be computed wrongly in bfloat16."""
    if isinstance(layer, nn.Conv1d):
        return 1 < layer.in_channels // layer.groups < 16
    return isinstance(layer, nn.LSTM)
