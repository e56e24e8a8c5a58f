"""Self-attention, with dropout on its weights also on a CPU without an [F, F] matrix for each head in memory.

torch's fused kernel for CPUs knows no dropout, and what it does instead keeps matrices [B, N, F, F] of each layer for
the backward: at 1 500 frames gigabytes, whose pages the kernel zeroes in every step. Here a few heads at a time are
computed in memory that caches hold, and once more in the backward, with the same dice from the same seed (the
recomputation of Dao et al., "FlashAttention", NeurIPS 2022, for whole heads).

B batch, N heads, F frames, D size of a head, G heads computed at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn import functional as F

Bools: TypeAlias = npt.NDArray[np.bool_]

WORTH_IT_FRAMES = 256
"""With half as many frames torch's way takes no longer."""
WEIGHTS_AT_ONCE = 2**20
"""Attention weights that are computed at a time: 4 MB."""
FACES = 2**16
"""Of the dice: a probability of dropout is a multiple of 1 / 65536, so that 64 random bits serve four weights."""


def self_attention(mixed_BF3ND: Tensor, bias: Tensor, dropout: float) -> Tensor:
    """softmax(query key' / sqrt(D) + bias) value, with dropout on the softmax.

    Args:
        mixed_BF3ND: queries, keys and values [B, F, 3, N, D]; in bfloat16 the products are too, but not the softmax.
        bias: [B, 1, 1, F], added to the scores; it gets no gradient.
        dropout: 0 to below 1; what is drawn follows from torch's generator of the CPU or of the device.

    Returns:
        [B, F, N, D].
    """
    on_cpu = mixed_BF3ND.device.type == "cpu" and mixed_BF3ND.dtype in (torch.float32, torch.bfloat16)
    if dropout and on_cpu and mixed_BF3ND.shape[1] >= WORTH_IT_FRAMES and not torch.compiler.is_compiling():
        seed = int(torch.randint(2**62, ()))
        attended: Tensor = _ByHeads.apply(mixed_BF3ND, bias.to(mixed_BF3ND.dtype), dropout, seed)  # type: ignore[no-untyped-call]
        return attended
    query, key, value = mixed_BF3ND.permute(2, 0, 3, 1, 4)
    return F.scaled_dot_product_attention(query, key, value, attn_mask=bias, dropout_p=dropout).transpose(1, 2)


class _ByHeads(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, mixed: Tensor, bias: Tensor, dropout: float, seed: int) -> Tensor:
        ctx.save_for_backward(mixed, bias)
        ctx.dropout, ctx.seed = dropout, seed
        batch, frames, _, heads, size = mixed.shape
        _, _, value = mixed.permute(2, 0, 3, 1, 4)
        attended_BFND = mixed.new_empty(batch, frames, heads, size)
        for place, weights, kept in _weights(mixed, bias, dropout, seed):
            attended_BFND.transpose(1, 2)[place] = torch.bmm(_times(weights, kept).to(mixed.dtype), value[place])
        return attended_BFND.mul_(_scale_of_kept(dropout))

    @staticmethod
    def backward(ctx: Any, grad_attended: Tensor) -> tuple[Tensor | None, ...]:
        mixed, bias = ctx.saved_tensors
        query, key, value = mixed.permute(2, 0, 3, 1, 4)
        grad_mixed = torch.empty_like(mixed)
        grad_query, grad_key, grad_value = grad_mixed.permute(2, 0, 3, 1, 4)
        grad_attended_BNFD = (grad_attended * _scale_of_kept(ctx.dropout)).transpose(1, 2)
        for place, weights, kept in _weights(mixed, bias, ctx.dropout, ctx.seed):
            grad = grad_attended_BNFD[place]
            grad_value[place] = torch.bmm(_times(weights, kept).to(mixed.dtype).transpose(1, 2), grad)
            grad_weights = _times(torch.bmm(grad, value[place].transpose(1, 2)).float(), kept)
            grad_scores = torch._softmax_backward_data(grad_weights, weights, -1, torch.float32).to(mixed.dtype)
            scale = query.shape[-1] ** -0.5
            grad_query[place] = torch.bmm(grad_scores, key[place]).mul_(scale)
            grad_key[place] = torch.bmm(grad_scores.transpose(1, 2), query[place]).mul_(scale)
        return grad_mixed, None, None, None


def _weights(
    mixed: Tensor, bias: Tensor, dropout: float, seed: int
) -> Iterator[tuple[tuple[int, slice], Tensor, Bools]]:
    """(a row and some of its heads, their softmax [G, F, F], what dropout keeps of it)."""
    query, key, _ = mixed.permute(2, 0, 3, 1, 4)
    batch, heads, frames, size = query.shape
    at_once = max(1, min(heads, WEIGHTS_AT_ONCE // frames**2))
    dice = np.random.SFC64(seed)
    for row in range(batch):
        for first in range(0, heads, at_once):
            place = (row, slice(first, min(first + at_once, heads)))
            scores = torch.baddbmm(bias[row], query[place], key[place].transpose(1, 2), alpha=size**-0.5)
            yield place, torch.softmax(scores.float(), dim=-1), _kept(dice, tuple(scores.shape), dropout)


def _kept(dice: np.random.SFC64, shape: tuple[int, ...], dropout: float) -> Bools:
    count = math.prod(shape)
    thrown = dice.random_raw(-(-count // 4)).view(np.uint16)[:count]
    kept: Bools = thrown.reshape(shape) >= np.uint16(round(dropout * FACES))
    return kept


def _scale_of_kept(dropout: float) -> float:
    return FACES / (FACES - round(dropout * FACES))


def _times(weights: Tensor, kept: Bools) -> Tensor:
    """In numpy, which multiplies by a bool three times as fast as torch."""
    return torch.from_numpy(np.multiply(weights.numpy(), kept))
