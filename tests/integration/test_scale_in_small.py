"""The recipe of docs/voxpopuli.md in small: two sets mixed, from a real object store, on two ranks of torchrun, killed,
gone on with on one."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from integration.servers import Rgw

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from elastic.demo import kill_all

from s3prl_stream.recipes.run_folder import read_settings
from s3prl_stream.trainer.checkpoint import load_state, newest_checkpoint
from s3prl_stream.trainer.losslog import read_lines, read_losses

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]
STEPS, KILLED_AFTER = 24, 14
SMALL = (
    "--hidden-size 16 --layers 1 --heads 2 --ffn-size 16 --batch-seconds 6 --crop-seconds 2 --device cpu --seed 5 "
    "--update-batches 4 --checkpoint-every 4 --workers 1 --lr 1e-3 --valid-share 0.1 --set valid.every=8"
)


def set_in_store(name: str, count: int, folder: Path, environment: dict[str, str]) -> str:
    """URL of a set of so many clips of noise of 1 to 4 s."""
    rng = np.random.default_rng(count)
    clips = folder / name
    clips.mkdir()
    for number in range(count):
        level = rng.uniform(50, 3000)
        wav = rng.normal(0, level, int(16_000 * rng.uniform(1.0, 4.0))).clip(-32_000, 32_000).astype(np.int16)
        soundfile.write(clips / f"{name}-{number:03d}.wav", wav, 16_000)
    url = f"s3://test/scale/{name}"
    command(["pack", "folder", str(clips), url, "--shard-mb", "1"], environment)
    return url


def command(words: list[str], environment: dict[str, str]) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "s3prl_stream", *words], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def start(words: list[str], environment: dict[str, str], *, num_ranks: int) -> subprocess.Popen[bytes]:
    """The command as one process, or as ranks under torchrun, in a group of its own."""
    torchrun = (
        [] if num_ranks == 1 else ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={num_ranks}"]
    )
    return subprocess.Popen(
        [sys.executable, *torchrun, "-m", "s3prl_stream", *words], env=environment, start_new_session=True
    )


@pytest.mark.timeout(900)
def test_killed_on_two_ranks_and_gone_on_with_on_one(rgw: Rgw, tmp_path: Path) -> None:
    environment = {**os.environ, **rgw.environment(), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    urls = [set_in_store(name, count, tmp_path, environment) for name, count in (("many", 90), ("few", 12))]

    def words(out: Path) -> list[str]:
        data = [word for url in urls for word in ("--data", url)]
        return [
            "pretrain",
            "tera",
            *data,
            "--weights",
            "0.7,0.3",
            "--out",
            str(out),
            "--steps",
            str(STEPS),
            *SMALL.split(),
        ]

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(words(whole), environment, num_ranks=2).wait() == 0
    process = start(words(killed), environment, num_ranks=2)
    try:
        while len(read_losses(killed)) < KILLED_AFTER and process.poll() is None:
            time.sleep(0.01)
    finally:
        num_killed = kill_all(process)
    assert num_killed >= 5  # torchrun, two ranks, a worker of each
    assert KILLED_AFTER <= len(read_losses(killed)) < STEPS
    assert start(words(killed), environment, num_ranks=1).wait() == 0

    one, other = read_losses(whole), read_losses(killed)
    assert [line["step"] for line in other] == list(range(1, STEPS + 1))
    before = load_state(newest_checkpoint(whole))["loader"], load_state(newest_checkpoint(killed))["loader"]
    same: list[Any] = [{**state, "topology": None} for state in before]
    assert same[0] == same[1]
    for line, again in zip(one, other, strict=True):
        assert again["seconds_by_set"] == pytest.approx(line["seconds_by_set"], rel=1e-12)
        assert again["loss"] == pytest.approx(line["loss"], rel=1e-4)
    (receipt,) = read_lines(killed / "resumes.jsonl")
    assert (receipt["before"]["ranks"], receipt["now"]["ranks"], receipt["clips_again"]) == (2, 1, 0)
    seconds = {name: sum(line["seconds_by_set"].get(name, 0.0) for line in other) for name in ("many", "few")}
    assert seconds["few"] / sum(seconds.values()) == pytest.approx(0.3, abs=0.04)
    valid = [[line["valid_loss"] for line in read_lines(run / "metrics.jsonl")] for run in (whole, killed)]
    assert valid[1] == pytest.approx(valid[0], rel=1e-4)
    assert read_settings(killed)["ranks"] == 1
    print("losses", [round(line["loss"], 4) for line in other][::6], "valid", valid[1], receipt)
