"""Every recipe trains: 20 steps as they were recorded, the same when it was stopped or killed, and to some effect."""

from __future__ import annotations

import functools
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_recipes import SMALL, pretrain_small

import s3prl_stream as ss
from s3prl_stream.trainer.checkpoint import load_checkpoint, newest_checkpoint
from s3prl_stream.trainer.loop import Hook
from s3prl_stream.trainer.losslog import read_lines, read_losses

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "losses.json"
ROOT = Path(__file__).resolve().parents[2]
STEPS, STOPPED_AT, CHECKPOINT_EVERY = 20, 11, 4
RELATIVE_BOUND = 1e-4
"""Of a loss after 20 updates; a mask, a crop or a dropout that is drawn otherwise changes it by more than 1e-3."""


class StopHereError(Exception):
    pass


def stopped_at(step: int) -> Any:
    """A hook that ends the run there, as if it had been killed."""

    def ask(at: int) -> dict[str, float]:
        if at == step:
            raise StopHereError
        return {}

    return lambda recipe, objective: Hook(step, ask)


def quick(*names: str) -> list[Any]:
    """All recipes; those that are not named are slow tests."""
    return [name if name in names else pytest.param(name, marks=pytest.mark.slow) for name in SMALL]


@pytest.fixture(scope="module")
def undisturbed(sample_set: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of an undisturbed run of a recipe, which is made once."""

    @functools.cache
    def run(recipe: str) -> Path:
        out = tmp_path_factory.mktemp(recipe)
        pretrain_small(recipe, sample_set, out, steps=STEPS, checkpoint_every=CHECKPOINT_EVERY)
        return out

    return run


def assert_same(whole: Path, other: Path) -> None:
    """The same losses and weights, to the last bit."""
    assert (other / "losses.jsonl").read_bytes() == (whole / "losses.jsonl").read_bytes()
    one, two = (load_checkpoint(newest_checkpoint(run)) for run in (whole, other))
    assert all(torch.equal(two.weights[name], weight) for name, weight in one.weights.items())


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("recipe", SMALL)
def test_twenty_steps_are_those_that_were_recorded(recipe: str, undisturbed: Callable[[str], Path]) -> None:
    """To record anew: delete the recipe's losses in tests/golden/losses.json, run this, say why in CHANGELOG.md."""
    losses = [line["loss"] for line in read_losses(undisturbed(recipe))]
    golden: dict[str, Any] = json.loads(GOLDEN.read_text())
    if recipe not in golden["losses"]:
        golden["losses"][recipe] = losses
        GOLDEN.write_text(json.dumps({**golden, "torch": torch.__version__.split("+")[0]}, indent=1) + "\n")
        pytest.fail(f"{GOLDEN.name} had no losses of {recipe}; these were recorded")
    assert losses == pytest.approx(golden["losses"][recipe], rel=RELATIVE_BOUND), f"recorded on {golden['torch']}"


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("recipe", quick("tera", "distilhubert"))
def test_a_run_that_was_stopped_goes_on_as_if_it_had_not(
    recipe: str, sample_set: Path, undisturbed: Callable[[str], Path], tmp_path: Path
) -> None:
    stopped = tmp_path / "stopped"
    every = {"steps": STEPS, "checkpoint_every": CHECKPOINT_EVERY}
    with pytest.raises(StopHereError):
        pretrain_small(recipe, sample_set, stopped, **every, hooks=[stopped_at(STOPPED_AT)])
    assert len(read_losses(stopped)) == STOPPED_AT
    result = pretrain_small(recipe, sample_set, stopped, **every)
    assert result.first_step == STOPPED_AT // CHECKPOINT_EVERY * CHECKPOINT_EVERY
    assert_same(undisturbed(recipe), stopped)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("recipe", SMALL)
def test_a_run_that_was_killed_twice_goes_on_as_if_it_had_not(recipe: str, sample_set: Path, tmp_path: Path) -> None:
    """SIGKILL to the process and its loading workers, in the middle of an update of two batches."""

    def start(out: Path, workers: int) -> subprocess.Popen[bytes]:
        words = [recipe, sample_set, out, 40, workers]
        return subprocess.Popen(
            [sys.executable, ROOT / "tests" / "small_recipes.py", *map(str, words)],
            start_new_session=True,
            env={**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}"},
        )

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole, 0).wait() == 0
    for lines in sorted(random.sample(range(3, 36), 2)):
        print(f"SIGKILL after line {lines}")
        process = start(killed, 2)
        try:
            while len(read_losses(killed)) < lines and process.poll() is None:
                time.sleep(0.002)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    assert start(killed, 0).wait() == 0
    assert_same(whole, killed)


@pytest.fixture(scope="session")
def real_set(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty minutes of LibriSpeech."""
    out = tmp_path_factory.mktemp("real") / "libri"
    ss.pack(ss.corpora.librispeech(real_data / "LibriSpeech", split="train-clean-100"), out)
    return out


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("data", ["sample_set", "real_set"])
@pytest.mark.parametrize("recipe", SMALL)
def test_the_loss_on_held_out_clips_falls_in_200_steps(
    recipe: str, data: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    # two thirds of Mockingjay's bins are differences between frames, which a network learns last
    larger = {"hidden_size": 64, "ffn_size": 128, "dropout": 0.0, "max_batch_seconds": 12.0, "crop_seconds": 3.0}
    pretrain_small(
        recipe,
        request.getfixturevalue(data),
        tmp_path,
        steps=200,
        valid={"share": 0.1, "subset": "60s", "every": 40},
        **{"update_batches": 1, **(larger if recipe == "mockingjay" else {})},
    )
    losses = [line["valid_loss"] for line in read_lines(tmp_path / "metrics.jsonl")]
    print(recipe, data, " ".join(f"{loss:.4f}" for loss in losses))
    assert losses[-1] < losses[0]
    assert sum(losses[-2:]) < sum(losses[:2])


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("recipe", quick("tera", "distilhubert"))
def test_features_on_the_device_give_the_same_losses(recipe: str, sample_set: Path, tmp_path: Path) -> None:
    """From int16, on padded batches, with the draws of the samples; here the device is the CPU."""
    for name, on_device in (("samples", False), ("batches", True)):
        pretrain_small(recipe, sample_set, tmp_path / name, steps=5, on_device=on_device, valid={"share": 0.05})
    samples, batches = (read_losses(tmp_path / name) for name in ("samples", "batches"))
    for name in ("loss", "grad_norm", "seconds"):
        assert [line[name] for line in batches] == pytest.approx([line[name] for line in samples], rel=1e-4)
    one, other = (read_lines(tmp_path / name / "metrics.jsonl")[-1]["valid_loss"] for name in ("samples", "batches"))
    assert other == pytest.approx(one, rel=1e-4)
    with pytest.raises(ss.StateError, match="on_device was False, is True"):
        pretrain_small(recipe, sample_set, tmp_path / "samples", steps=6, on_device=True, valid={"share": 0.05})
