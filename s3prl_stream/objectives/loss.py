"""What an objective gives, and what all of them need to give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Loss(NamedTuple):
    """A loss with its weight, so that several batches can be averaged as if they were one."""

    mean: Tensor
    """Scalar, on the graph."""
    num_elements: Tensor
    """Scalar int64: over how many elements the mean was taken; 0 for an empty batch, whose mean is 0."""


def last(hidden_states: Sequence[Tensor] | Tensor) -> Tensor:
    """The last hidden state, of a list, or of an encoder that gives only one."""
    return hidden_states if isinstance(hidden_states, Tensor) else hidden_states[-1]


def sum_of_zeros(module: nn.Module) -> Tensor:
    """A scalar 0 that depends on every parameter."""
    return torch.stack([(parameter * 0.0).sum() for parameter in module.parameters()]).sum()
