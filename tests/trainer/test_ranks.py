"""A world of 1, 2 and 4 ranks makes the same updates, and ends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from s3prl_stream.recipes.run_folder import read_settings
from s3prl_stream.trainer.checkpoint import load_checkpoint, newest_checkpoint
from s3prl_stream.trainer.losslog import read_lines, read_losses

PROGRAM = Path(__file__).with_name("ranks_program.py")


@pytest.fixture(scope="module")
def runs(sample_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the runs of all worlds."""
    out = tmp_path_factory.mktemp("worlds")
    environment = {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": os.pathsep.join(map(str, (PROGRAM.parents[2], PROGRAM.parents[1]))),
    }
    environment.pop("PYTHONWARNINGS", None)
    command = [sys.executable, PROGRAM, sample_set, out]
    done = subprocess.run(command, capture_output=True, text=True, timeout=250, env=environment)
    assert done.returncode == 0, done.stderr
    return out


def assert_close(one: Path, other: Path) -> None:
    """The same updates, but for the order of the sums."""
    first, second = read_losses(one), read_losses(other)
    assert [line["step"] for line in first] == [line["step"] for line in second]
    for name in ("loss", "grad_norm", "seconds", "lr"):
        assert [line[name] for line in first] == pytest.approx([line[name] for line in second], rel=2e-5), name
    weights = [load_checkpoint(newest_checkpoint(run)).weights for run in (one, other)]
    for name, weight in weights[0].items():
        torch.testing.assert_close(weights[1][name], weight, rtol=1e-3, atol=1e-5, msg=name)


def assert_the_losses_of_tera_are_those_of_one_rank(runs: Path, world_size: int) -> None:
    assert_close(runs / "tera-1", runs / f"tera-{world_size}")
    valid, alone = (
        [line["valid_loss"] for line in read_lines(runs / name / "metrics.jsonl")]
        for name in (f"tera-{world_size}", "tera-1")
    )
    assert valid == pytest.approx(alone, rel=2e-5)
    assert len(valid) == 2
    assert read_settings(runs / f"tera-{world_size}")["ranks"] == world_size


def assert_another_number_of_ranks_goes_on(runs: Path) -> None:
    assert_close(runs / "tera-1", runs / "tera-4-2-1")
    receipts = read_lines(runs / "tera-4-2-1" / "resumes.jsonl")
    assert [(one["before"]["ranks"], one["now"]["ranks"]) for one in receipts] == [(4, 2), (2, 1)]


def assert_what_was_left_out_is_that_of_all_ranks(runs: Path, world_size: int) -> None:
    told = {(runs / f"left-out-{world_size}-{rank}").read_text() for rank in range(world_size)}
    assert told == {(runs / "left-out-1-0").read_text()} != {"0"}
    assert {(runs / f"unusable-{world_size}-{rank}").read_text() for rank in range(world_size)} == {"1"}


def assert_an_end_that_does_not_come_out_even_is_the_same(runs: Path, world_size: int) -> None:
    """The last update has fewer batches; ranks that have none take part. What batch norms count for evaluation is the
    mean over the batches of an update."""
    one, other = (read_losses(runs / f"levels-{size}") for size in (1, world_size))
    assert [line["loss"] for line in other] == pytest.approx([line["loss"] for line in one], rel=2e-5)
    assert sum(line["seconds"] for line in one) == pytest.approx(sum(line["seconds"] for line in other))
    assert len(one) > 2
    counted = [
        [line["counted"] for line in read_lines(runs / f"levels-{size}" / "metrics.jsonl")] for size in (1, world_size)
    ]
    assert counted[1] == pytest.approx(counted[0], rel=2e-5)


def assert_a_rank_without_memory_costs_the_update_of_all(runs: Path, world_size: int) -> None:
    left_out = [line.get("left_out") for line in read_losses(runs / f"greedy-{world_size}")]
    assert left_out == ["memory was exhausted", None]


def test_worlds(runs: Path) -> None:
    """One test, since its runs are made once for all of it, and tests of one file go to several processes."""
    for world_size in (2, 4):
        assert_the_losses_of_tera_are_those_of_one_rank(runs, world_size)
        assert_an_end_that_does_not_come_out_even_is_the_same(runs, world_size)
    assert_another_number_of_ranks_goes_on(runs)
    for world_size in (1, 2, 4):
        assert_a_rank_without_memory_costs_the_update_of_all(runs, world_size)
        assert_what_was_left_out_is_that_of_all_ranks(runs, world_size)
        assert all(line["rank_sum"] == 0 for line in read_lines(runs / f"levels-{world_size}" / "metrics.jsonl"))
    assert not (runs / "odd").exists()  # the first rank alone writes
