"""An update in pieces is the update of our loop: losses, cursor, clipping, rates, what is left out."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from adapters import one_run
from adapters.one_run import STEPS, loop, ours, own_loop
from small_recipes import SMALL
from torch import nn

import s3prl_stream as ss
from s3prl_stream.adapters import UpdateLoss, Updates, limit_gradients, rate_schedule
from s3prl_stream.objectives.loss import Loss
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.trainer.losslog import read_losses
from s3prl_stream.trainer.optimizer import build_optimizer, learning_rate
from s3prl_stream.trainer.settings import TrainSettings


def test_a_loop_of_ones_own_gives_our_losses_and_goes_on_mid_epoch(tmp_path: Path) -> None:
    states: dict[str, Any] = {}
    losses = own_loop(tmp_path, STEPS, stop_after=7, states=states)
    losses += own_loop(tmp_path, STEPS - 7, states=states)
    assert losses == pytest.approx(ours(tmp_path), rel=1e-5)
    assert len({round(loss, 4) for loss in losses}) == STEPS
    assert max(losses[:5]) - min(losses[-5:]) > 0.1


def test_pretraining_goes_the_same_way(tmp_path: Path, sample_set: Path) -> None:
    """A recipe's objective, stream and settings, with warm-up and decay of the rate, masks and dropout."""
    sizes = {**SMALL["tera"], "max_batch_seconds": 6.0, "crop_seconds": 1.0, "update_batches": 2}
    ss.pretrain("tera", sample_set, steps=6, out=tmp_path, device="cpu", quiet=True, **sizes)
    recipe = find_recipe("tera").having(sizes)
    how = {name: value for name, value in recipe.settings()["train"].items() if name != "published_steps"}
    losses = loop(build_objective(recipe), recipe.stream(sample_set), TrainSettings(num_steps=6, **how), 6, {})
    assert losses == pytest.approx([line["loss"] for line in read_losses(tmp_path)], rel=1e-5)


@pytest.mark.slow
def test_two_ranks_give_the_same_losses(tmp_path: Path) -> None:
    """Under torch's DistributedDataParallel, whose mean over ranks is that of the whole update."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "OMP_NUM_THREADS": "1"}
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone", one_run.__file__]
    environment["GLOO_SOCKET_IFNAME"] = "lo"
    subprocess.run([*launch, "own_loop", str(tmp_path), "0"], env=environment, check=True)
    by_rank = [json.loads((tmp_path / f"losses-{rank}.json").read_text()) for rank in (0, 1)]
    assert [sum(pair) / 2 for pair in zip(*by_rank, strict=True)] == pytest.approx(ours(tmp_path / "ours"), rel=1e-5)
    assert by_rank[0] != by_rank[1]


def updates_of(epochs: int | None = None, **settings: Any) -> Updates:
    """Of clips of 2 s, two in a batch and two batches in an update: five updates in an epoch of 20."""
    clips = [{"key": f"clip{n:02d}", "wav": torch.zeros(32_000).numpy(), "sample_rate": 16_000} for n in range(20)]
    stream = ss.ShardStream(clips, epochs=epochs, max_batch_seconds=4.0).load_audio(sample_rate=16_000)
    return Updates(stream, TrainSettings(num_steps=9, update_batches=2), **settings)


def numbers(update: list[Any]) -> list[int]:
    return [batch["batch_index"] for batch in update]


def test_the_cursor_counts_what_is_in_the_weights() -> None:
    updates = updates_of()
    fetched = iter(updates)
    first, second, third = (next(fetched) for _ in range(3))
    assert [numbers(one) for one in (first, second, third)] == [[0, 1], [2, 3], [4, 5]]
    assert updates.state_dict()["next_batch"] == 0
    updates.done(first)
    updates.done(second)
    state = json.loads(json.dumps(updates.state_dict()))
    assert state["next_batch"] == 4
    again = updates_of()
    again.load_state_dict(state)
    assert again.state_dict() == state
    assert numbers(next(iter(again))) == [4, 5]
    assert numbers(next(iter(updates))) == [4, 5]  # the same object goes on there too: the third was fetched in vain
    assert updates.state_dict() == state
    start = updates_of().state_dict()
    updates.load_state_dict(start)  # or back to the beginning
    assert updates.state_dict() == start
    assert numbers(next(iter(updates))) == [0, 1]


def test_an_epoch_of_the_trainer_is_a_number_of_updates() -> None:
    updates = updates_of(epoch_updates=3)
    seen = []
    for _ in range(2):
        for update in updates:
            updates.done(update)
            seen.append(numbers(update)[0] // 2)
        assert len(seen) % 3 == 0
    assert seen == list(range(6))
    again = updates_of(epoch_updates=4)
    again.load_state_dict(updates.state_dict())
    assert [numbers(update)[0] // 2 for update in again] == [6, 7]  # up to the next multiple
    with pytest.raises(ss.UsageError, match="epoch_updates=0"):
        updates_of(epoch_updates=0)


def test_a_finite_stream_begins_anew() -> None:
    updates = updates_of(epochs=1)
    for _ in range(2):
        assert [numbers(update)[0] for update in updates] == [0, 2, 4, 6, 8]
    for update in updates:
        updates.done(update)
    again = updates_of(epochs=1)
    again.load_state_dict(updates.state_dict())  # the end
    assert [numbers(update)[0] for update in again] == [0, 2, 4, 6, 8]


def test_ranks_that_do_not_know_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of torchrun, before init_process_group: each would be given all batches, and take them for its share."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ss.UsageError, match="WORLD_SIZE is 2, but the ranks do not know each other"):
        next(iter(updates_of()))


class Weights(nn.Module):
    """Two numbers whose loss is what the batch says, times their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.ones(1, 2))

    def forward(self, batch: dict[str, Any]) -> Loss:
        return Loss(self.matrix.sum() * batch["factor"], torch.tensor(batch["elements"]))


def step(factors: list[tuple[float, int]], *, steps_before: int = 1) -> tuple[list[float], float]:
    """The weights' change and the loss of an update with these batches, with momentum from one before."""
    settings = TrainSettings(num_steps=9, update_batches=len(factors), clip_norm=1e9)
    weights = Weights()
    loss_of, optimizer = UpdateLoss(weights, settings), build_optimizer(weights, settings)
    for number in range(steps_before + 1):
        batches = [
            {"batch_index": number * len(factors) + place, "factor": factor, "elements": elements}
            for place, (factor, elements) in enumerate(factors if number == steps_before else [(1.0, 1)] * len(factors))
        ]
        optimizer.zero_grad()
        loss = loss_of(batches).mean
        before = weights.matrix.detach().clone()
        loss.backward()
        limit_gradients(optimizer, settings)
        optimizer.step()
    return (weights.matrix.detach() - before).abs().flatten().tolist(), loss.item() / float(before.sum())


def test_an_update_is_weighed_by_elements() -> None:
    assert step([(1.0, 3), (5.0, 1)])[1] == pytest.approx((1.0 * 3 + 5.0) / 4)
    assert step([(2.0, 4), (9.0, 0)])[1] == pytest.approx(2.0)


@pytest.mark.parametrize("factor", [float("nan"), float("inf")])
def test_what_is_no_update_changes_nothing(factor: float) -> None:
    """Not finite, or without data: momentum and decay would move the weights."""
    assert all(change > 1e-5 for change in step([(1.0, 1)])[0])
    assert step([(factor, 1)])[0] == [0.0, 0.0]
    assert step([(1.0, 0)]) == ([0.0, 0.0], 0.0)


def test_a_loss_that_is_not_finite_is_no_update_whatever_its_gradient() -> None:
    class Added(Weights):
        def forward(self, batch: dict[str, Any]) -> Loss:
            return Loss(self.matrix.sum() + batch["factor"], torch.tensor(1))

    weights = Added()
    loss_of = UpdateLoss(weights, TrainSettings(num_steps=9))
    loss_of([{"batch_index": 0, "factor": float("inf")}]).mean.backward()
    assert weights.matrix.grad is not None
    assert weights.matrix.grad.isnan().all()


def test_batch_norms_count_nothing_of_what_is_no_update() -> None:
    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm1d(2)

        def forward(self, batch: dict[str, Any]) -> Loss:
            return Loss(self.norm(batch["x"]).abs().mean(), torch.tensor(len(batch["x"])))

    def counted(factor: float) -> list[list[float]]:
        model = Normed()
        x = torch.arange(8.0).view(4, 2)
        batches = [{"batch_index": 0, "x": x}, {"batch_index": 1, "x": x * factor}]
        UpdateLoss(model, TrainSettings(num_steps=9, update_batches=2))(batches).mean.backward()
        return [buffer.flatten().tolist() for buffer in model.buffers()]

    assert counted(float("nan")) == [[0.0, 0.0], [1.0, 1.0], [0.0]]
    assert counted(2.0)[2] == [1.0]  # update


def test_clipping_is_that_of_all_groups_together() -> None:
    settings = TrainSettings(num_steps=9, clip_norm=1.0)
    module = nn.Linear(1, 1)  # a matrix and a bias: two groups
    optimizer = build_optimizer(module, settings)
    module.weight.grad, module.bias.grad = torch.tensor([[3.0]]), torch.tensor([4.0])
    limit_gradients(optimizer, settings)
    assert [module.weight.grad.item(), module.bias.grad.item()] == pytest.approx([0.6, 0.8], rel=1e-5)
    module.weight.grad, module.bias.grad = torch.tensor([[0.3]]), torch.tensor([0.4])
    limit_gradients(optimizer, settings)
    assert [module.weight.grad.item(), module.bias.grad.item()] == pytest.approx([0.3, 0.4])


def test_rates_are_those_of_our_loop() -> None:
    settings = TrainSettings(num_steps=20, warmup_share=0.25, lr=0.1)
    optimizer = build_optimizer(nn.Linear(1, 1), settings)
    schedule, rates = rate_schedule(optimizer, settings), []
    for _ in range(20):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    assert rates == pytest.approx([learning_rate(number, settings) for number in range(1, 21)])
    assert optimizer.param_groups[0]["lr"] == rates[-1]  # of an update too many as well
