"""Weight decay groups and the learning rate."""

from __future__ import annotations

import itertools
from typing import Any

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


def test_norms_decay_where_they_are_to_and_as_much() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4))
    for optimizer in ("adamw", "legacy"):
        settings = TrainSettings(num_steps=1, optimizer=optimizer, weight_decay=0.3, decay_norms=True)
        decay = {
            id(one): group["weight_decay"]
            for group in build_optimizer(net, settings).param_groups
            for one in group["params"]
        }
        assert decay == {id(one): 0.0 if "bias" in name else 0.3 for name, one in net.named_parameters()}


def test_the_legacy_optimizer_is_its_formula() -> None:
    """m / (sqrt(v) + eps) + decay * w, all times the corrected rate; on one weight, worked out here."""
    net, b1, b2, eps, decay, rate = nn.Linear(1, 1, bias=False), 0.8, 0.9, 0.5, 0.2, 0.1
    settings = TrainSettings(num_steps=9, optimizer="legacy", betas=(b1, b2), eps=eps, weight_decay=decay)
    optimizer = build_optimizer(net, settings)
    wanted, mean, square = net.weight.item(), 0.0, 0.0
    for step, gradient in enumerate((3.0, -1.0, 2.0), 1):
        net.weight.grad = torch.full((1, 1), gradient)
        apply_update(optimizer, rate=rate, left_out=torch.tensor(False))
        mean, square = b1 * mean + (1 - b1) * gradient, b2 * square + (1 - b2) * gradient**2
        corrected = rate * (1 - b2**step) ** 0.5 / (1 - b1**step)
        wanted -= corrected * (mean / (square**0.5 + eps) + decay * wanted)
        assert net.weight.item() == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize("name", ["adamw", "adam", "legacy"])
def test_an_update_that_is_left_out_changes_nothing(name: Any) -> None:
    """Neither the weights nor what the optimizer remembers."""

    def after(*left_out: bool) -> torch.Tensor:
        net = nn.Linear(2, 2)
        nn.init.ones_(net.weight)
        optimizer = build_optimizer(net, TrainSettings(num_steps=9, optimizer=name))
        for leave in left_out:
            for parameter in net.parameters():
                parameter.grad = torch.full_like(parameter, float("nan") if leave else 1.0)
            apply_update(optimizer, rate=0.1, left_out=torch.tensor(leave))
        return net.weight.detach()

    assert torch.equal(after(True, False, True, False), after(False, False))


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
