"""Attention by heads: torch's numbers for the same weights dropped, and as many dropped as asked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from s3prl_stream.models import attention
from s3prl_stream.models.attention import self_attention
from s3prl_stream.models.transformer import attention_bias

DROPOUT = 0.3
BATCH, FRAMES, HEADS, SIZE = 2, attention.WORTH_IT_FRAMES + 3, 3, 4


def mixed_and_bias() -> tuple[Tensor, Tensor]:
    mixed = torch.randn(BATCH, FRAMES, 3, HEADS, SIZE, generator=torch.Generator().manual_seed(0))
    return mixed.requires_grad_(), attention_bias(torch.tensor([FRAMES, FRAMES - 100]), FRAMES)


def attended_and_gradient(mixed: Tensor, bias: Tensor, dropout: float) -> tuple[Tensor, Tensor]:
    torch.manual_seed(7)
    attended = self_attention(mixed, bias, dropout)
    (gradient,) = torch.autograd.grad((attended * torch.linspace(-1, 1, SIZE)).sin().sum(), mixed)
    return attended.detach(), gradient


@pytest.mark.parametrize("heads_at_once", [1, 2, 3])
def test_numbers_are_those_of_the_formula(heads_at_once: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WEIGHTS_AT_ONCE", heads_at_once * FRAMES**2)
    kept = []
    original = attention._kept
    monkeypatch.setattr(attention, "_kept", lambda *given: kept.append(original(*given)) or kept[-1])
    mixed, bias = mixed_and_bias()
    attended, gradient = attended_and_gradient(mixed, bias, DROPOUT)

    per_pass = BATCH * math.ceil(HEADS / heads_at_once)
    forward, backward = (
        torch.cat([torch.from_numpy(one) for one in turns]) for turns in (kept[:per_pass], kept[per_pass:])
    )
    assert torch.equal(forward, backward)
    query, key, value = mixed.permute(2, 0, 3, 1, 4)
    weights = torch.softmax(query @ key.transpose(2, 3) / math.sqrt(SIZE) + bias, dim=-1)
    wanted = ((weights * forward.view_as(weights) / (1 - DROPOUT)) @ value).transpose(1, 2)
    (wanted_gradient,) = torch.autograd.grad((wanted * torch.linspace(-1, 1, SIZE)).sin().sum(), mixed)
    torch.testing.assert_close(attended, wanted, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(gradient, wanted_gradient, atol=1e-5, rtol=1e-4)


def test_in_bfloat16_it_is_the_same_but_for_the_rounding() -> None:
    mixed, bias = mixed_and_bias()
    wanted, wanted_gradient = attended_and_gradient(mixed, bias, DROPOUT)
    with torch.autocast("cpu", torch.bfloat16):
        attended, gradient = attended_and_gradient(mixed.bfloat16(), bias, DROPOUT)
    assert attended.dtype == torch.bfloat16
    torch.testing.assert_close(attended.float(), wanted, atol=0.02, rtol=0.03)
    torch.testing.assert_close(gradient.float(), wanted_gradient, atol=0.02, rtol=0.1)


def test_as_much_is_dropped_as_asked_and_by_the_seed_alone() -> None:
    mixed, bias = mixed_and_bias()
    with torch.no_grad():
        mixed[:, :, 2] = 1.0  # each sum of weights is then 1, but for what was dropped
    one, other = (attended_and_gradient(mixed, bias, DROPOUT) for _ in range(2))
    assert all(torch.equal(*pair) for pair in zip(one, other, strict=True))
    deviation = one[0].std()
    assert float(one[0].mean()) == pytest.approx(1.0, abs=4 * float(deviation) / math.sqrt(BATCH * FRAMES * HEADS))
    assert float(deviation) > 0.01
    torch.manual_seed(8)
    assert not torch.equal(self_attention(mixed, bias, DROPOUT), one[0])


def test_the_share_of_kept_weights() -> None:
    kept = attention._kept(attention.np.random.SFC64(3), (7, 300, 301), 0.1)
    assert kept.mean() == pytest.approx(0.9, abs=4 * math.sqrt(0.09 / kept.size))
    assert attention._scale_of_kept(0.1) == pytest.approx(1 / 0.9, abs=1e-5)
