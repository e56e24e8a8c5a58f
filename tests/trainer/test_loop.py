"""The loop: equal after an interruption, weighted over batches, and steady when a gradient is not finite."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import shutil
import time
import tracemalloc
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from open_files import open_below
from torch import nn

from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.objectives.loss import Loss, sum_of_zeros
from s3prl_stream.sample import Batch
from s3prl_stream.trainer.checkpoint import BEST, list_checkpoints, load_checkpoint, load_state
from s3prl_stream.trainer.loop import Hook, TrainResult, train
from s3prl_stream.trainer.losslog import StepLog, open_lines, read_lines, read_losses
from s3prl_stream.trainer.ranks import Ranks, kept_buffers
from s3prl_stream.trainer.record import DivergedError
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.trainer.update import BatchCounts, Updater


class Regression(nn.Module):
    """A small network with dropout."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.net = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.Linear(8, 1))

    def forward(self, batch: Batch) -> Loss:
        if not batch["key"]:
            return Loss(sum_of_zeros(self), torch.tensor(0))
        return Loss((self.net(batch["x"]) - batch["y"]).abs().mean(), torch.tensor(len(batch["key"])))


class Counted:
    """Batches that follow from their number; the state is how many were handed out."""

    def __init__(self, sizes: tuple[int, ...] = (4, 2, 0, 5), bad: tuple[int, ...] = ()) -> None:
        self.sizes, self.bad = sizes, bad
        self.position = 0

    def batch(self, number: int) -> Batch:
        size = self.sizes[number % len(self.sizes)]
        x = torch.randn(size, 3, generator=torch.Generator().manual_seed(number))
        y = x.sum(dim=1, keepdim=True)
        return {"key": ["k"] * size, "x": x, "y": y * float("nan") if number in self.bad else y}

    def __iter__(self) -> Iterator[Batch]:
        while True:
            self.position += 1
            yield self.batch(self.position - 1)

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


SETTINGS = TrainSettings(num_steps=20, lr=0.05, checkpoint_every=4)


def fit(
    objective: nn.Module, batches: Counted, settings: TrainSettings, folder: Path, hooks: Sequence[Hook] = ()
) -> TrainResult:
    """`train`, where an element counts as a second of the set "a"."""
    return train(
        objective,
        batches,
        settings,
        run=folder,
        set_names=["a"],
        seconds_by_set=lambda batch: {"a": len(batch["key"])},
        hooks=hooks,
        quiet=True,
    )


def run_once(folder: Path, settings: TrainSettings = SETTINGS, batches: Counted | None = None) -> TrainResult:
    return fit(Regression(), Counted() if batches is None else batches, settings, folder)


class StopHereError(Exception):
    pass


def run_until(folder: Path, step: int) -> None:
    """A run that ends at an update of its own accord, as if killed after writing the line of `step`."""

    def seconds_by_set(batch: Batch) -> dict[str, float]:
        if not batches.position <= step:
            raise StopHereError
        return {"a": len(batch["key"])}

    batches = Counted()
    with pytest.raises(StopHereError):
        train(Regression(), batches, SETTINGS, run=folder, set_names=["a"], seconds_by_set=seconds_by_set, quiet=True)


def test_interrupted_at_any_step_gives_the_same_lines(tmp_path: Path) -> None:
    run_once(tmp_path / "whole")
    expected = (tmp_path / "whole" / "losses.jsonl").read_text()
    for step in (3, 4, 17):
        folder = tmp_path / f"stopped-{step}"
        run_until(folder, step)
        assert len(read_losses(folder)) == step
        result = run_once(folder)
        assert result.first_step == step // 4 * 4
        assert (folder / "losses.jsonl").read_text() == expected


def test_a_line_that_was_cut_is_dropped(tmp_path: Path) -> None:
    run_once(tmp_path / "whole")
    run_until(tmp_path / "cut", 6)
    with (tmp_path / "cut" / "losses.jsonl").open("a") as file:
        file.write('{"step": 7, "lo')
    assert [line["step"] for line in read_losses(tmp_path / "cut")] == [1, 2, 3, 4, 5, 6]
    run_once(tmp_path / "cut")
    assert read_losses(tmp_path / "cut") == read_losses(tmp_path / "whole")


def test_lines_say_what_happened(tmp_path: Path) -> None:
    result = run_once(tmp_path)
    lines = read_losses(tmp_path)
    assert [line["step"] for line in lines] == list(range(1, 21))
    assert lines[-1]["hours_seen"] == result.hours_seen == pytest.approx((4 + 2 + 0 + 5) * 5 / 3600)
    assert lines[-1]["loss"] == result.loss
    assert sum(line["loss"] or 0.0 for line in lines[-4:]) < sum(line["loss"] or 0.0 for line in lines[:4])
    assert [folder.name for folder in list_checkpoints(tmp_path)] == ["step-00000016", "step-00000020"]


def test_enough_steps_already(tmp_path: Path) -> None:
    run_once(tmp_path)
    before = (tmp_path / "losses.jsonl").read_bytes()
    for steps in (20, 10):
        result = run_once(tmp_path, dataclasses.replace(SETTINGS, num_steps=steps))
        assert (result.first_step, result.last_step, result.loss) == (20, 20, None)
    assert (tmp_path / "losses.jsonl").read_bytes() == before


def test_more_steps_go_on(tmp_path: Path) -> None:
    run_once(tmp_path)
    result = run_once(tmp_path, dataclasses.replace(SETTINGS, num_steps=26))
    assert (result.first_step, result.last_step) == (20, 26)
    assert [line["step"] for line in read_losses(tmp_path)] == list(range(1, 27))


def test_an_update_of_several_batches_is_the_mean_over_all_elements(tmp_path: Path) -> None:
    """Dropout off: an update of batches of 4, 2, 0 and 5 elements equals one of a single batch with all 11, and one of
    a single element equals one of that element twice."""

    class Joined(Counted):
        def batch(self, number: int) -> Batch:
            parts = [super(Joined, self).batch(4 * number + part) for part in range(4)]
            keys = [key for part in parts for key in part["key"]]
            return {"key": keys, "x": torch.cat([p["x"] for p in parts]), "y": torch.cat([p["y"] for p in parts])}

    class Twice(Counted):
        def batch(self, number: int) -> Batch:
            one = super().batch(number)
            return {"key": one["key"] * 2, "x": one["x"].repeat(2, 1), "y": one["y"].repeat(2, 1)}

    def losses(batches: Counted, update_batches: int, elements: int) -> list[float]:
        net = Regression()
        net.net[1].p = 0.0
        folder = tmp_path / type(batches).__name__ / str(elements)
        fit(net, batches, TrainSettings(num_steps=5, lr=0.05, update_batches=update_batches), folder)
        lines = read_losses(folder)
        assert [line["seconds"] for line in lines] == [elements] * 5
        return [line["loss"] for line in lines]

    assert losses(Counted(), 4, 11) == pytest.approx(losses(Joined(), 1, 11), rel=1e-5)
    assert losses(Counted((1,)), 1, 1) == pytest.approx(losses(Twice((1,)), 1, 2), rel=1e-5)


@pytest.mark.parametrize("clip_norm", [1e9, 0.1])
def test_the_gradient_of_an_update_is_the_clipped_mean(clip_norm: float) -> None:
    """Adam hardly sees a wrong factor, so the gradients themselves are compared."""
    ours, plain = Regression().eval(), Regression().eval()
    batches = [Counted().batch(number) for number in (0, 1, 3)]
    settings = TrainSettings(num_steps=1, clip_norm=clip_norm)
    Updater(ours, settings, Ranks(), torch.device("cpu")).update(1, batches, [])
    (
        plain.net(torch.cat([one["x"] for one in batches])) - torch.cat([one["y"] for one in batches])
    ).abs().mean().backward()
    nn.utils.clip_grad_norm_(plain.parameters(), clip_norm)
    for one, other in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)


def test_what_an_objective_draws_follows_from_seed_step_and_place(tmp_path: Path) -> None:
    def draws(name: str, seed: int) -> list[float]:
        drawn: list[float] = []

        class Draws(Regression):
            def forward(self, batch: Batch) -> Loss:
                drawn.append(torch.rand(()).item())
                return super().forward(batch)

        fit(Draws(), Counted((4,)), TrainSettings(num_steps=2, update_batches=3, seed=seed), tmp_path / name)
        return drawn

    first = draws("one", 0)
    assert draws("again", 0) == first
    assert len({*first, *draws("other", 1)}) == 12


@pytest.mark.parametrize("what", ["loss", "gradient"])
def test_a_loss_or_a_gradient_alone_that_is_not_finite_moves_nothing(tmp_path: Path, what: str) -> None:
    class Odd(Regression):
        def forward(self, batch: Batch) -> Loss:
            loss = super().forward(batch)
            if len(batch["key"]) != 2:
                return loss
            more = torch.tensor(math.inf) if what == "loss" else (0 * self.net[0].weight.sum()).sqrt()
            return Loss(loss.mean + more, loss.num_elements)

    settings = TrainSettings(num_steps=1, lr=0.05, schedule="constant", warmup_share=0.0)
    good, odd = Regression(), Odd()
    fit(good, Counted((4, 2)), settings, tmp_path / "good")
    fit(odd, Counted((4, 2)), dataclasses.replace(settings, num_steps=2), tmp_path / "odd")
    assert all(torch.equal(odd.state_dict()[name], weight) for name, weight in good.state_dict().items())
    line = read_losses(tmp_path / "odd")[1]
    assert (line["loss"] is None, line["grad_norm"] is None) == (what == "loss", what == "gradient")
    assert line["left_out"] == "loss or gradient was not finite"


def test_a_gradient_that_is_not_finite_costs_its_update_alone(tmp_path: Path) -> None:
    result = run_once(tmp_path, batches=Counted(bad=(4, 5)))
    lines = read_losses(tmp_path)
    assert result.skipped_steps == 2
    empty = [3, 7, 11, 15, 19]
    assert [line["step"] for line in lines if not line["applied"]] == sorted([5, 6, *empty])
    assert [line["step"] for line in lines if line["loss"] is None] == sorted([5, 6, *empty])
    assert all(
        json.loads(folder.joinpath("state.json").read_text())["skipped"] == 2 for folder in list_checkpoints(tmp_path)
    )
    assert run_once(tmp_path, dataclasses.replace(SETTINGS, num_steps=21)).skipped_steps == 2  # of all steps so far


def test_an_update_without_data_moves_nothing(tmp_path: Path) -> None:
    """Neither momentum nor decay: the weights are those of before, and it is no failure."""
    settings = dataclasses.replace(SETTINGS, num_steps=16, max_bad_steps=1)
    sizes = (4, 2, *[0] * 14)
    result = run_once(tmp_path, settings, Counted(sizes))
    before, after = (load_checkpoint(folder).weights for folder in list_checkpoints(tmp_path))
    assert all(torch.equal(after[name], weight) for name, weight in before.items())
    assert (result.skipped_steps, result.last_step, result.loss) == (0, 16, None)
    assert [line["loss"] is None for line in read_losses(tmp_path)] == [False] * 2 + [True] * 14


def test_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, max_bad_steps=3)
    with pytest.raises(DivergedError, match="step 10: loss or gradient was not finite 3 times in a row"):
        run_once(tmp_path, settings, Counted(bad=(4, 7, 8, 9)))
    assert list_checkpoints(tmp_path)[-1].name == "step-00000008"


def test_a_log_that_lost_lines_is_refused(tmp_path: Path) -> None:
    run_until(tmp_path, 9)
    lines = (tmp_path / "losses.jsonl").read_text().splitlines(keepends=True)
    for left in (lines[:5], [*lines[:3], *lines[4:]]):
        (tmp_path / "losses.jsonl").write_text("".join(left))
        with pytest.raises(StateError, match="does not hold steps 1 to 8"):
            run_once(tmp_path)
    damaged = [*lines[:7], "\0" * 20 + "\n", lines[8]]
    (tmp_path / "losses.jsonl").write_text("".join(damaged))
    with pytest.raises(StateError, match=r"losses\.jsonl: found the line b'.x00.*, expected JSON with a step"):
        run_once(tmp_path)
    with pytest.raises(StateError, match=r"losses\.jsonl, line 8: not JSON"):
        read_losses(tmp_path)


def test_where_one_file_cannot_be_opened_the_others_are_closed(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(IsADirectoryError):
        run_once(tmp_path)
    assert open_below(tmp_path) == []


def test_going_on_with_a_long_log_takes_no_memory_for_it(tmp_path: Path) -> None:
    lines = [json.dumps({"step": step, "loss": 1.0, "text": "x" * 80}) + "\n" for step in range(1, 10_001)]
    (tmp_path / "all").write_text("".join(lines))
    (tmp_path / "some").write_text("".join(lines[9::10]))
    tracemalloc.start()
    for name, is_every in (("all", True), ("some", False)):
        StepLog(tmp_path, name, last_step=9_995, every_step=is_every).close()
    open_lines(tmp_path / "all").close()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200_000 < (tmp_path / "all").stat().st_size
    assert (tmp_path / "all").read_text() == "".join(lines[:9_995])
    assert (tmp_path / "some").read_text() == "".join(lines[9:9_995:10])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("num_steps", 0), ("lr", 0.0), ("lr", float("nan")), ("warmup_share", 1.0), ("update_batches", 0)),
        *(("weight_decay", -0.1), ("betas", (0.9, 1.0)), ("betas", (0.9,)), ("optimizer", "sgd"), ("best_is", "first")),
    ],
)
def test_settings_out_of_range_are_named(name: str, value: Any) -> None:
    with pytest.raises(UsageError, match=name):
        dataclasses.replace(SETTINGS, **{name: value})


class Greedy(Regression):
    """Asks for more memory than there is on batches of 2."""

    def forward(self, batch: Batch) -> Loss:
        loss = super().forward(batch)
        return loss if len(batch["key"]) != 2 else Loss(loss.mean + torch.empty(2**60).sum(), loss.num_elements)


def test_a_batch_without_memory_costs_its_update_alone(tmp_path: Path) -> None:
    assert fit(Greedy(), Counted(), SETTINGS, tmp_path / "greedy").skipped_steps == 5
    lines = read_losses(tmp_path / "greedy")
    assert {line["step"] % 4: line.get("left_out") for line in lines[4:8]} == {
        1: None,
        2: "memory was exhausted",
        3: "no data",
        0: None,
    }
    greedy, settings = Greedy(), dataclasses.replace(SETTINGS, update_batches=4, max_bad_steps=3, num_steps=6)
    with pytest.raises(
        DivergedError, match=r"step 3: memory was exhausted 3 times in a row .* Make the batches smaller"
    ):
        fit(greedy, Counted(), settings, tmp_path / "always")
    assert len(read_losses(tmp_path / "always")) == 3
    assert all(torch.equal(greedy.state_dict()[name], weight) for name, weight in Regression().state_dict().items())


def test_other_errors_are_not_taken_for_a_lack_of_memory(tmp_path: Path) -> None:
    class Wrong(Regression):
        def forward(self, batch: Batch) -> Loss:
            raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        fit(Wrong(), Counted(), SETTINGS, tmp_path)


def with_hook(
    folder: Path, *, num_steps: int = 20, stop_at: int = 99, best_is: Literal["lowest", "highest"] = "lowest"
) -> TrainResult:
    """A run that asks for the mean weight every 5 steps, keeps the best of it, and may stop as if killed."""
    objective = Regression().eval()  # as it may come; it is trained all the same

    def ask(step: int) -> dict[str, float]:
        assert not objective.training
        if step == stop_at:
            raise StopHereError
        torch.rand(step)  # draws of a hook are nobody's business
        return {"valid_error": abs(step - 10) + 1.0}

    settings = dataclasses.replace(SETTINGS, num_steps=num_steps, best_by="valid_error", best_is=best_is)
    return fit(objective, Counted(), settings, folder, [Hook(5, ask)])


def test_hooks_are_asked_and_the_best_stays(tmp_path: Path) -> None:
    run_once(tmp_path / "without")
    result = with_hook(tmp_path / "whole")
    assert read_losses(tmp_path / "whole") == read_losses(tmp_path / "without")
    lines = [{"step": step, "valid_error": abs(step - 10) + 1.0} for step in (5, 10, 15, 20)]
    assert read_lines(tmp_path / "whole" / "metrics.jsonl") == lines
    assert result.metrics == {"valid_error": 11.0}
    (best,) = list_checkpoints(tmp_path / "whole", folder=BEST)
    assert best.name == "step-00000010"
    assert json.loads((best / "state.json").read_text())["metrics"] == {"valid_error": 1.0}
    with pytest.raises(StopHereError):
        with_hook(tmp_path / "killed", stop_at=15)
    with_hook(tmp_path / "killed")
    assert read_lines(tmp_path / "killed" / "metrics.jsonl") == lines
    assert [folder.name for folder in list_checkpoints(tmp_path / "killed", folder=BEST)] == ["step-00000010"]
    with_hook(tmp_path / "highest", best_is="highest")
    assert [folder.name for folder in list_checkpoints(tmp_path / "highest", folder=BEST)] == ["step-00000020"]


def test_what_a_checkpoint_relies_on_is_on_disk_before_it_has_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that dies then has either the checkpoint with its lines, or the one before."""
    done: list[str] = []
    fsync, rename, replace = os.fsync, Path.rename, Path.replace

    def noted_fsync(file: int) -> None:
        fsync(file)
        done.append(Path(os.readlink(f"/proc/self/fd/{file}")).name)

    def noted_rename(path: Path, target: Path) -> Path:
        done.append(f"to {target.name}")
        return rename(path, target)

    def noted_replace(path: Path, target: Path) -> Path:
        done.append(f"to {target.name}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    monkeypatch.setattr(Path, "rename", noted_rename)
    with_hook(tmp_path, num_steps=5)
    assert done[:4] == ["losses.jsonl", tmp_path.name, "metrics.jsonl", tmp_path.name]
    of_step = done[done.index("to step-00000004") + 2 :]
    best, last = (at for at, one in enumerate(of_step) if one == "to step-00000005")
    files = {"model.pt", "state.json", ".unfinished-step-00000005"}
    assert set(of_step[:best]) == files
    assert set(of_step[best + 2 : last]) == {"losses.jsonl", "metrics.jsonl", "training.pt", *files}
    assert (of_step[best + 1], of_step[last + 1]) == ("best", "checkpoints")


def test_the_time_of_hooks_and_checkpoints_is_no_steps(tmp_path: Path) -> None:
    """The steps between two questions took no longer than what lies between them on the clock."""
    entered, left = {}, {}

    def ask(step: int) -> dict[str, float]:
        entered[step] = time.perf_counter()
        time.sleep(0.05)
        left[step] = time.perf_counter()
        return {}

    fit(Regression(), Counted(), SETTINGS, tmp_path, [Hook(4, ask)])
    took = {line["step"]: line["seconds"] for line in read_lines(tmp_path / "waits.jsonl")}
    for last in (8, 12, 16, 20):
        between = entered[last] - left[last - 4]
        assert sum(took[step] for step in range(last - 3, last + 1)) <= between + 1e-5


def test_a_best_checkpoint_that_the_run_has_not_come_to_is_forgotten(tmp_path: Path) -> None:
    with pytest.raises(StopHereError):
        with_hook(tmp_path, stop_at=15)  # best at 10, newest checkpoint at 12
    for folder in list_checkpoints(tmp_path):
        if int(folder.name[-2:]) > 8:
            shutil.rmtree(folder)
    with pytest.raises(StopHereError):
        with_hook(tmp_path, stop_at=10)  # goes on from 8
    assert list_checkpoints(tmp_path, folder=BEST) == []


def test_the_best_before_the_newest_checkpoint_stays_until_there_is_another(tmp_path: Path) -> None:
    """A run that goes on otherwise than before (batches skipped, more steps) may never do so well again."""
    values = {5: 3.0, 10: 2.0, 15: 1.0, 20: 2.0}  # as good is not better

    def run(stop_at: int) -> None:
        def ask(step: int) -> dict[str, float]:
            if step == stop_at:
                raise StopHereError
            return {"error": values[step], "share": math.nan}

        settings = dataclasses.replace(SETTINGS, best_by="error", checkpoint_every=10)
        fit(Regression(), Counted(), settings, tmp_path, [Hook(5, ask)])

    with pytest.raises(StopHereError):
        run(20)  # best at 15, newest checkpoint at 10
    values[15] = 5.0
    run(0)
    (best,) = list_checkpoints(tmp_path, folder=BEST)
    assert (best.name, load_state(best)["metrics"]) == ("step-00000010", {"error": 2.0, "share": None})
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [5, 10, 15, 20]


def test_what_a_kill_after_the_last_checkpoint_has_left_is_cleared_away(tmp_path: Path) -> None:
    with_hook(tmp_path)  # best at 10
    before = sorted(tmp_path.rglob("*"))
    shutil.copytree(tmp_path / BEST / "step-00000010", tmp_path / BEST / "step-00000005")
    shutil.copytree(tmp_path / "checkpoints/step-00000016", tmp_path / "checkpoints/step-00000012")
    for folder in (BEST, "checkpoints"):
        (tmp_path / folder / ".unfinished-step-00000005").mkdir()
    with_hook(tmp_path)
    assert sorted(tmp_path.rglob("*")) == before


def test_the_best_is_looked_for_anew_where_none_is_left(tmp_path: Path) -> None:
    with pytest.raises(StopHereError):
        with_hook(tmp_path, stop_at=15)
    shutil.rmtree(tmp_path / BEST)
    with_hook(tmp_path)
    assert [folder.name for folder in list_checkpoints(tmp_path, folder=BEST)] == ["step-00000015"]


class Normed(Regression):
    """With a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.BatchNorm1d(3), nn.Linear(3, 1))


def test_what_batch_norms_count_is_left_out_with_the_update(tmp_path: Path) -> None:
    """Else a single value that is not finite would stay in the statistics for good."""
    settings = dataclasses.replace(SETTINGS, num_steps=2, update_batches=2, max_bad_steps=2)
    bad, good = Normed(), Normed()
    batches = Counted(sizes=(4,))
    batches.batch = lambda number, draw=batches.batch: (  # type: ignore[method-assign]
        {**draw(number), "x": draw(number)["x"] * float("inf")} if number == 3 else draw(number)
    )
    assert fit(bad, batches, settings, tmp_path / "bad").skipped_steps == 1
    fit(good, Counted(sizes=(4,)), dataclasses.replace(settings, num_steps=1), tmp_path / "good")
    kept = dict(bad.named_buffers())
    assert {name: one.tolist() for name, one in good.named_buffers()} == {
        name: one.tolist() for name, one in kept.items()
    }
    assert int(kept["net.0.num_batches_tracked"]) == 1  # update


def test_an_update_leaves_masks_and_flags_as_they_are_and_counts_as_one_batch() -> None:
    """Minus infinity less itself is no number, and flags have no difference; both are in networks that users bring."""
    norm = nn.BatchNorm1d(1, momentum=None)
    norm.register_buffer("mask", torch.full((2, 2), -math.inf).triu(1))
    norm.register_buffer("is_causal", torch.tensor(True))
    for update in ([[1.0, 3.0], [5.0, 7.0]], [[2.0, 2.0], [8.0, 8.0]]):
        counts = BatchCounts(kept_buffers(norm), num_batches=2)
        for batch in update:
            norm(torch.tensor(batch)[:, None])
            counts.take()
        counts.settle(torch.tensor(True))
    kept = {name: one.tolist() for name, one in norm.named_buffers()}
    assert kept.pop("running_mean") == [4.5]  # of the means 4 and 5, one of each update
    assert kept.pop("running_var") == [1.0]  # of 2, 2 and 0, 0
    assert kept == {"num_batches_tracked": 2, "mask": [[0.0, -math.inf], [0.0, 0.0]], "is_causal": True}


def test_bad_steps_in_a_row_are_counted_across_a_resume(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, max_bad_steps=6, num_steps=30)
    for _ in range(2):
        with pytest.raises(DivergedError, match=r"step 9: .* 6 times in a row"):
            run_once(tmp_path, settings, Counted(sizes=(4,), bad=tuple(range(3, 30))))


def test_lines_go_on_behind_one_that_was_cut(tmp_path: Path) -> None:
    run_once(tmp_path, dataclasses.replace(SETTINGS, num_steps=4))
    for name in ("waits.jsonl", "metrics.jsonl"):
        with (tmp_path / name).open("a") as file:
            file.write('{"step": 5, "wai')
    run_once(tmp_path, dataclasses.replace(SETTINGS, num_steps=6))
    assert read_lines(tmp_path / "metrics.jsonl") == []
    assert [line["step"] for line in read_lines(tmp_path / "waits.jsonl")] == [1, 2, 3, 4, 5, 6]


def test_events_for_tensorboard(tmp_path: Path) -> None:
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run_once(tmp_path, dataclasses.replace(SETTINGS, tensorboard=True, num_steps=4))
    run_once(tmp_path, dataclasses.replace(SETTINGS, tensorboard=True, num_steps=6))
    found = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    found.Reload()
    told = [(event.step, event.value) for event in found.Scalars("loss") if math.isfinite(event.value)]
    losses = [(line["step"], line["loss"]) for line in read_losses(tmp_path) if line["loss"] is not None]
    assert [step for step, _ in told] == [step for step, _ in losses]
    assert [value for _, value in told] == pytest.approx([value for _, value in losses])


@pytest.mark.parametrize("optimizer", ["adam", "legacy"])
def test_other_optimizers_go_on_too(tmp_path: Path, optimizer: Any) -> None:
    settings = dataclasses.replace(
        SETTINGS, optimizer=optimizer, schedule="constant", warmup_share=0.0, update_batches=2
    )
    run_once(tmp_path / "whole", settings)
    run_once(tmp_path / "parts", dataclasses.replace(settings, num_steps=8))
    run_once(tmp_path / "parts", settings)
    assert (tmp_path / "whole" / "losses.jsonl").read_bytes() == (tmp_path / "parts" / "losses.jsonl").read_bytes()


def test_bf16_is_close_and_another_computation(tmp_path: Path) -> None:
    run_once(tmp_path / "fp32")
    run_once(tmp_path / "bf16", dataclasses.replace(SETTINGS, precision="bf16"))
    full, half = (
        [line["loss"] for line in read_losses(tmp_path / name) if line["loss"] is not None] for name in ("fp32", "bf16")
    )
    assert full != half
    assert half == pytest.approx(full, rel=0.05)
