"""A run on two sets by weight: the log says what it heard, and new weights at a checkpoint change that and no more."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from small_recipes import TINY

from s3prl_stream.recipes.pretrain import pretrain
from s3prl_stream.recipes.run_folder import read_settings
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.trainer.checkpoint import list_checkpoints, load_checkpoint
from s3prl_stream.trainer.losslog import read_losses

SETTINGS = {**TINY, "max_batch_seconds": 4.0, "crop_seconds": 1.0, "checkpoint_every": 60}


def two_sets(first_weight: float) -> ShardSet:
    rng = np.random.default_rng(0)
    members = []
    for name, count in (("many", 60), ("few", 5)):
        wavs = rng.normal(0, 0.1, (count, 16_000)).astype(np.float32)
        members.append(MemoryShards([{"wav": wav, "sample_rate": 16_000} for wav in wavs], name))
    return ShardSet(members, (first_weight, 1 - first_weight))


def share_of_few(run: Path, first: int, last: int) -> float:
    steps = [step["seconds_by_set"] for step in read_losses(run) if first <= step["step"] <= last]
    few, many = (sum(step.get(name, 0.0) for step in steps) for name in ("few", "many"))
    return float(few / (few + many))


def test_the_log_holds_the_realised_mix_across_a_change_of_weights(tmp_path: Path) -> None:
    run = tmp_path / "run"
    pretrain("tera", two_sets(0.75), steps=60, out=run, **SETTINGS)
    assert share_of_few(run, 1, 60) == pytest.approx(0.25, abs=0.04)
    assert read_settings(run)["weights"] == [0.75, 0.25]
    before = read_losses(run)
    pretrain("tera", two_sets(0.25), steps=180, out=run, **SETTINGS)
    assert read_losses(run)[:60] == before
    assert share_of_few(run, 90, 180) == pytest.approx(0.75, abs=0.04)
    assert read_settings(run)["weights"] == [0.25, 0.75]
    state = load_checkpoint(list_checkpoints(run)[-1], device="cpu").state["loader"]
    assert [weights for _, weights in state["mix"]] == [[0.75, 0.25], [0.25, 0.75]]
    assert len(json.dumps(state)) < 4096
