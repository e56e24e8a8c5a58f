"""What a launcher says of a process, where it is not whole."""

from __future__ import annotations

import pytest
import torch
import torch.distributed

from s3prl_stream.errors import UsageError
from s3prl_stream.launcher import launched, speaks
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
