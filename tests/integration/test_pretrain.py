"""From a packed set to a pretrained network: killed for real, continued, refused where it must be, and used."""

from __future__ import annotations

import json
import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from integration.forked import Forked
from integration.run_log import begun, num_steps
from small_recipes import TINY, TINY_WORDS
from torch import Tensor

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.recipes.run_folder import alone_in_run, check_run
from s3prl_stream.recipes.tera import TERA
from s3prl_stream.trainer.checkpoint import list_checkpoints, load_checkpoint
from s3prl_stream.trainer.losslog import read_losses
from s3prl_stream.trainer.ranks import Ranks

SIZES: dict[str, Any] = {**TINY, "max_batch_seconds": 10.0}
WORDS = f"{TINY_WORDS} --checkpoint-every 3"


def start(data: Path, out: Path, steps: int) -> Forked:
    return begun("pretrain", "tera", "--data", data, "--out", out, "--steps", steps, *WORDS.split(), "--workers", 0)


def kill_after(process: Forked, run: Path, lines: int, delay_seconds: float) -> None:
    """SIGKILL to the whole group once the log has `lines` lines, and a little later."""
    try:
        while num_steps(run) < lines and process.poll() is None:
            time.sleep(0.002)
        time.sleep(delay_seconds)
    finally:
        os.killpg(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, f"the run ended before it was killed at {lines} lines"


def assert_loadable(run: Path) -> None:
    for folder in list_checkpoints(run):
        assert load_checkpoint(folder).state["step"] == int(folder.name.split("-")[1])


@pytest.mark.usefixtures("one_thread")
def test_killed_and_continued_gives_the_losses_of_an_undisturbed_run(sample_set: Path, tmp_path: Path) -> None:
    steps, whole, killed = 30, tmp_path / "whole", tmp_path / "killed"
    ss.pretrain("tera", ss.open_shards(sample_set), steps=steps, out=whole, checkpoint_every=3, **SIZES)
    at, delay = random.randint(2, 20), random.uniform(0, 0.02)
    print(f"SIGKILL {delay:.4f} s after line {at}")
    kill_after(start(sample_set, killed, steps), killed, at, delay)
    assert_loadable(killed)
    result = ss.pretrain("tera", ss.open_shards(sample_set), steps=steps, out=killed, checkpoint_every=3, **SIZES)
    assert max(at - 3, 0) <= result.first_step < steps
    assert (killed / "losses.jsonl").read_bytes() == (whole / "losses.jsonl").read_bytes()
    assert_same_weights(whole, killed)


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = (load_checkpoint(list_checkpoints(run)[-1]) for run in (one, other))
    assert first.state["step"] == second.state["step"]
    for name, weight in first.weights.items():
        assert torch.equal(weight, second.weights[name]), name


def test_the_command_again_says_that_nothing_is_left(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", "tera", "--data", str(sample_set), "--out", str(tmp_path / "run"), *WORDS.split()]
    assert main([*words, "--steps", "4", "--json"]) == 0
    shown = capsys.readouterr()
    assert json.loads(shown.out)["last_step"] == 4
    assert "step 4/4  loss" in shown.err
    assert "waiting" in shown.err
    assert main([*words, "--steps", "3"]) == 0
    assert "4 steps are done already; 3 were asked for" in capsys.readouterr().out
    assert len(read_losses(tmp_path / "run")) == 4


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"lr": 1e-3}, "lr was 0.0002, is 0.001"),
        ({"seed": 1}, "seed was 0, is 1"),
        ({"where": "seconds > 1"}, "where was None, is 'seconds > 1'"),
        ({"max_batch_seconds": 11.0}, "max_batch_seconds was 10.0, is 11.0"),
        ({"hidden_size": 16}, "holds another run: encoder.hidden_size was 8, is 16. Give"),
    ],
)
def test_a_run_with_other_settings_is_refused(
    sample_set: Path, tmp_path: Path, changed: dict[str, Any], said: str
) -> None:
    ss.pretrain("tera", sample_set, steps=1, out=tmp_path, **SIZES)
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(ss.StateError, match="holds another run") as error:
        ss.pretrain("tera", sample_set, steps=2, out=tmp_path, **{**SIZES, **changed})
    assert said in str(error.value)
    assert (tmp_path / "run.json").read_bytes() == before
    with pytest.raises(ss.StateError, match=r"data was .*, is 'grown'.*another output folder \(and --init .*weights\)"):
        check_run(tmp_path, {**json.loads(before), "data": "grown"})
    # who found the folder in order before that run had come to a step looks again when the folder is theirs
    with pytest.raises(ss.StateError, match="holds another run"), alone_in_run(tmp_path, {"recipe": "apc"}, Ranks()):
        pass


def test_a_folder_with_other_files_is_refused_and_mistakes_leave_nothing(sample_set: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    with pytest.raises(ss.UsageError, match="holds files but no run"):
        ss.pretrain("tera", sample_set, steps=1, out=tmp_path / "mine", **SIZES)
    mistakes: list[tuple[dict[str, Any], str]] = [
        ({"steps": 0}, "num_steps is 0"),
        ({"where": "len(text) > 3"}, "where: a function call"),
        ({"device": "abacus"}, "device 'abacus'"),
        ({"hidden_size": 7}, "hidden_size 7 is not a multiple"),
    ]
    for wrong, said in mistakes:
        with pytest.raises(ss.UsageError, match=said):
            ss.pretrain("tera", sample_set, out=tmp_path / "new", **{"steps": 1, **SIZES, **wrong})
    assert not (tmp_path / "new").exists()


def test_an_upstream_sees_the_features_that_its_run_was_trained_on(sample_set: Path, tmp_path: Path) -> None:
    ss.pretrain("tera", sample_set, steps=1, out=tmp_path, norm="fixed", **SIZES)
    clip = next(iter(TERA.stream(sample_set, norm="fixed", shuffle=False, epochs=1)))
    wav = next(iter(ss.ShardStream(sample_set, shuffle=False, epochs=1).load_audio(sample_rate=16_000)))
    assert wav["key"] == clip["key"]
    seen: list[Tensor] = []
    up = ss.upstream(tmp_path)
    assert up.encoder is not None
    up.encoder.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    up([wav["wav"]])
    assert torch.equal(seen[0][0], clip["feat"])
