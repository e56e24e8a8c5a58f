"""Weight decay groups and the learning rate."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from s3prl_stream.trainer.optimizer import apply_update, build_optimizer, learning_rate
from s3prl_stream.trainer.settings import TrainSettings


def test_only_matrices_decay() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4), nn.Conv1d(4, 2, 3))
    net[0].bias.requires_grad_(False)
    groups = build_optimizer(net, TrainSettings(num_steps=1, lr=1e-3)).param_groups
    decay = {id(parameter): group["weight_decay"] for group in groups for parameter in group["params"]}
    expected = {
        id(parameter): 0.01 if parameter.ndim > 1 else 0.0 for parameter in net.parameters() if parameter.requires_grad
    }
    assert decay == expected


def test_decay_moves_a_matrix_without_gradient_but_no_bias() -> None:
    net = nn.Linear(2, 2)
    before = {name: parameter.detach().clone() for name, parameter in net.named_parameters()}
    optimizer = build_optimizer(net, TrainSettings(num_steps=1, lr=0.1))
    for parameter in net.parameters():
        parameter.grad = torch.zeros_like(parameter)
    apply_update(optimizer, rate=0.1, left_out=torch.tensor(False))
    torch.testing.assert_close(net.weight.detach(), before["weight"] * (1 - 0.1 * 0.01))
    assert torch.equal(net.bias, before["bias"])


def test_rate_rises_to_the_peak_and_falls_to_nothing() -> None:
    rates = [learning_rate(step, TrainSettings(num_steps=100, lr=2.0, warmup_share=0.1)) for step in range(1, 102)]
    assert rates[:10] == pytest.approx([0.2 * step for step in range(1, 11)])
    assert max(rates) == pytest.approx(2.0)
    falls = [later - earlier for earlier, later in itertools.pairwise(rates[9:])]
    assert falls == pytest.approx([-2.0 / 91] * 91)
    assert rates[100] == pytest.approx(0.0)


@pytest.mark.parametrize("num_steps", [1, 2, 3])
def test_a_rate_for_very_short_runs(num_steps: int) -> None:
    for step in range(1, num_steps + 1):
        assert 0 < learning_rate(step, TrainSettings(num_steps=num_steps, lr=1.0)) <= 1.0
