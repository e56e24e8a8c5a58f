"""What a launcher says of a process, where it is not whole."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed
from downstream.synthetic import classes

import s3prl_stream as ss
from s3prl_stream.errors import UsageError
from s3prl_stream.launcher import launched, speaks
from s3prl_stream.stores.alone import alone_in
from s3prl_stream.trainer.ranks import joined_ranks

ALL = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"WORLD_SIZE": "two"}, "WORLD_SIZE='two' in the environment is no number .*torchrun, or unset WORLD_SIZE"),
        ({"WORLD_SIZE": "0"}, "WORLD_SIZE='0'"),
        ({"WORLD_SIZE": "2", "RANK": "-1"}, "RANK='-1'"),
        ({"WORLD_SIZE": "2"}, "WORLD_SIZE is 2 .*RANK expected, but not set.*torchrun, or unset WORLD_SIZE"),
        ({"WORLD_SIZE": "2", "RANK": "1"}, "WORLD_SIZE is 2 .*MASTER_ADDR expected"),
    ],
)
def test_half_a_launcher_is_told(environment: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=words), joined_ranks(torch.device("cpu")):
        pass


def test_a_process_without_a_launcher_is_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "")
    assert speaks()
    monkeypatch.setenv("RANK", "")
    assert speaks()
    assert [launched(name) for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE")] == [0, 0, 1]
    with joined_ranks(torch.device("cpu")):
        assert not torch.distributed.is_initialized()


def test_mistakes_in_the_settings_are_told_before_the_ranks_join(
    sample_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """These ranks cannot join, which is told where nothing else is wrong."""
    for name in ALL:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")

    def trained(**settings: Any) -> Any:
        return ss.train("ks", classes(), upstream="logmel80", out=tmp_path / "out", device="cpu", **settings)

    def pretrained(recipe: str = "apc", **settings: Any) -> Any:
        settings = {"steps": 1, "hidden_size": 8, "update_batches": 2, **settings}
        return ss.pretrain(recipe, sample_set, out=tmp_path / "out", device="cpu", **settings)

    wrong: list[tuple[Callable[..., Any], dict[str, Any], str]] = [
        (trained, {"head": "linaer"}, "head 'linaer' is unknown"),
        (trained, {"update_batches": 3}, "update_batches is 3, and 2 ranks cannot share"),
        (trained, {"update_batches": 2, "num_workers": -1}, "num_workers"),
        (trained, {"update_batches": 2}, "WORLD_SIZE is 2 in the environment, but"),
        (pretrained, {"lr": -1.0}, "lr is -1.0"),
        (pretrained, {"update_batches": 3}, "update_batches is 3, and 2 ranks cannot share"),
        (pretrained, {"recipe": "distilhubert"}, "learns from a teacher"),
        (pretrained, {"where": "nobody == 1"}, "no column 'nobody'"),
        (pretrained, {"skip_batches": [(1,)]}, "is no pair of batches"),
        (pretrained, {"init": tmp_path / "nowhere"}, "no checkpoint"),
        (pretrained, {}, "WORLD_SIZE is 2 in the environment, but"),
    ]
    for call, settings, said in wrong:
        with pytest.raises(UsageError, match=said):
            call(**settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_mistake_is_told_once_under_torchrun(sample_set: Path, tmp_path: Path) -> None:
    torchrun = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "s3prl_stream"]
    words = ["train", "ks", "--data", sample_set, "--upstream", "fbank", "--out", tmp_path / "out", "--label"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(ss.__file__).parents[1])}
    with alone_in(tmp_path / "out"):  # which the first rank alone finds out, when all have joined
        for label, said in (("nothing", "has no column 'nothing'"), ("speaker", "works in this folder")):
            command = [sys.executable, *torchrun, *words, label, "--set", "update_batches=2"]
            done = subprocess.run(command, capture_output=True, text=True, env=environment)
            assert done.returncode
            assert done.stderr.count(said) == 1, done.stderr
            assert "[rank1]" not in done.stderr
