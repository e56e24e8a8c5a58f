"""Downstream training killed for real, again and again: the losses and figures are those of an undisturbed run."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
import torch
from integration.forked import Forked
from integration.run_log import begun, num_steps

from s3prl_stream.trainer.checkpoint import load_weights, newest_checkpoint

WORDS = [
    *("--upstream", "logmel80", "--head", "rnn", "--steps", "12", "--lr", "1e-3", "--batch-size", "6"),
    *("--update-batches", "2", "--noise", "gaussian", "--snr", "5,20", "--evaluate-every", "4", "--device", "cpu"),
    *("--checkpoint-every", "3", "--set", "head.project_size=16", "--set", "head.hidden_size=16"),
    *("--set", "head.dropout=0.3", "--set", "head.spec_augment=True"),
]
PART = ["--where", "speaker in ('bruno', 'hugh')", "--valid-where", "speaker == 'hugh' and seconds < 2.5"]


def start(data: Path, out: Path, workers: int) -> Forked:
    return begun("train", "asr", "--data", data, "--out", out, *WORDS, *PART, "--workers", workers)


@pytest.mark.slow
def test_a_killed_run_is_an_undisturbed_one(sample_set: Path, tmp_path: Path) -> None:
    """With dropout, SpecAugment, noise and accumulation; by turns without and with worker processes."""
    assert start(sample_set, tmp_path / "whole", 0).wait() == 0
    rng, killed = random.Random(0), 0
    for turn, at_lines in enumerate((2, 6, 9)):
        process = start(sample_set, tmp_path / "killed", 2 * (turn % 2))
        while num_steps(tmp_path / "killed") < at_lines and process.poll() is None:
            time.sleep(0.002)
        time.sleep(rng.uniform(0, 0.05))
        os.killpg(process.pid, signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL
    assert killed >= 2
    assert start(sample_set, tmp_path / "killed", 0).wait() == 0
    for name in ("losses.jsonl", "metrics.jsonl"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    one, two = (load_weights(newest_checkpoint(tmp_path / name)) for name in ("killed", "whole"))
    assert all(torch.equal(one[name], two[name]) for name in one)
