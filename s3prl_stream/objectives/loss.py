"""What an objective gives, and what all of them need to give it."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError


class Loss(NamedTuple):
    """A loss with its weight, so that several batches can be averaged as if they were one."""

    mean: Tensor
    """Scalar, on the graph."""
    num_elements: Tensor
    """Scalar int64: over how many elements the mean was taken; 0 for an empty batch, whose mean is 0."""


def last_hidden(encoder: nn.Module, given: Any, num_rows: int, num_frames: int | None = None) -> Tensor:
    """The last hidden state [B, F, H] of what an encoder gave: a list, or only one.

    Args:
        encoder: which gave it; H is its `hidden_size`.
        given: what it gave.
        num_rows: B.
        num_frames: F; None: any.

    Raises:
        UsageError: it gave something else.
    """
    state = given[-1] if isinstance(given, list | tuple) and given else given
    wanted = [num_rows, num_frames, getattr(encoder, "hidden_size", None)]
    found = list(state.shape) if isinstance(state, Tensor) else []
    if len(found) != 3 or any(one not in (None, other) for one, other in zip(wanted, found, strict=True)):
        shape = ", ".join("any" if one is None else str(one) for one in wanted)
        raise UsageError(
            f"encoder {type(encoder).__name__}: its last hidden state is {found or type(state).__name__}, expected is "
            f"[{shape}]: utterances, frames, hidden_size. It must give a list of hidden states, or one"
        )
    assert isinstance(state, Tensor)
    return state


def sum_of_zeros(module: nn.Module) -> Tensor:
    """A scalar 0 that depends on every parameter."""
    return torch.stack([(parameter * 0.0).sum() for parameter in module.parameters()]).sum()
