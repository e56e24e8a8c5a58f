"""Several ranks of one training, as processes: `python ranks_program.py SET OUT`. Started by test_ranks.py.

The children are forked when everything is imported and nothing is running yet, so a rank costs a fraction of a second.
That includes what torch and pyarrow import when they are first used, which takes a second.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pyarrow.dataset  # noqa: F401  # before the forks
import pytest
import torch
import torch._dynamo  # before the forks
import torch.distributed as dist
from downstream.synthetic import texts
from small_recipes import TINY
from torch import nn

import s3prl_stream.recipes.pretrain  # noqa: F401  # before the forks
from s3prl_stream import early_probe
from s3prl_stream.downstream.train import train as train_for_task
from s3prl_stream.errors import StateError, UsageError
from s3prl_stream.loader import Loader
from s3prl_stream.objectives.loss import Loss, sum_of_zeros
from s3prl_stream.probe import ProbeResult, probe
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.pretrain import pretrain
from s3prl_stream.sample import Batch
from s3prl_stream.stream import ShardStream
from s3prl_stream.tokenizers.lexicon import Lexicon
from s3prl_stream.trainer.loop import Hook, train
from s3prl_stream.trainer.ranks import Ranks, joined_ranks
from s3prl_stream.trainer.settings import TrainSettings

UPDATE_BATCHES = 4
SIZES: dict[str, Any] = {
    **TINY, "max_batch_seconds": 6.0, "crop_seconds": 1.5, "lr": 1e-3, "schedule": "constant", "warmup_share": 0.0,
    "update_batches": UPDATE_BATCHES, "valid": {"share": 0.2, "subset": "9s", "every": 3}, "checkpoint_every": 2,
}  # fmt: skip
FEW: dict[str, Any] = {
    "hidden_size": 8, "update_batches": UPDATE_BATCHES, "max_batch_seconds": 6.0, "crop_seconds": 1.5, "device": "cpu",
    "quiet": True,
}  # fmt: skip
TASK: dict[str, Any] = {
    "lexicon": Lexicon({"abc": "AH0 B K", "dab": "D AH0 B", "cd": "K D"}),  # not of "bad"
    "upstream": "logmel80", "max_batch_size": 1, "update_batches": UPDATE_BATCHES, "steps": 1, "device": "cpu",
    "quiet": True,
}  # fmt: skip
STEPS, STOPPED_AFTER = 6, 4
MOST_SECONDS_OF_A_SUM = 3.0


class Level(nn.Module):
    """Predicts the loudness of clips; its weights begin differently on every rank, and it has a batch norm, an unused
    weight, a table that each rank makes as it needs it, and memory for batches with an even number only if `greedy`."""

    def __init__(self, rank: int, *, greedy_at: int = -1) -> None:
        super().__init__()
        torch.manual_seed(rank)
        self.net = nn.Sequential(nn.Linear(1, 4), nn.BatchNorm1d(4), nn.Dropout(0.3), nn.Linear(4, 1))
        self.unused = nn.Linear(2, 2)
        self.greedy_at = greedy_at
        self.table: torch.Tensor
        self.register_buffer("table", torch.zeros(1), persistent=False)

    def forward(self, batch: Batch) -> Loss:
        if not batch["key"]:
            return Loss(sum_of_zeros(self), torch.tensor(0))
        if batch["batch_index"] == self.greedy_at:
            torch.empty(2**60)
        self.table = torch.zeros(max(len(self.table), batch["wav"].shape[1]))
        level = batch["wav"].abs().mean(dim=1, keepdim=True).repeat(2, 1)
        seconds = batch["wav_len"][:, None] / 16_000
        found = self.net(torch.cat([seconds, -seconds]))  # a batch norm wants two rows
        return Loss((found - level).abs().mean(), torch.tensor(len(batch["key"])))


def levels(out: Path, data: Path, *, num_steps: int, greedy_at: int = -1, rank: int = 0) -> int:
    """Train on one epoch; returns the number of updates left out."""
    stream = ShardStream(data, epochs=1, max_batch_seconds=5.0, where="digit < 4").load_audio(sample_rate=16_000)
    settings = TrainSettings(num_steps=num_steps, lr=1e-2, update_batches=UPDATE_BATCHES, warmup_share=0.0)
    level, ranks = Level(rank, greedy_at=greedy_at), Ranks()

    def ask(_step: int) -> dict[str, float]:
        counted: Any = level.net[1].running_var
        mean = counted.clone()
        ranks.sum(mean)
        torch.testing.assert_close(mean / ranks.world_size, counted)  # of all ranks: it is evaluated by the same
        return {"rank_sum": float(ranks.rank), "counted": float(counted.sum())}

    result = train(
        level,
        Loader(stream),
        settings,
        run=out,
        set_names=["sample"],
        seconds_by_set=lambda batch: dict.fromkeys(batch["set"], float(batch["wav_len"].sum()) / 16_000),
        hooks=[Hook(2, ask)],
        quiet=True,
    )
    return result.skipped_steps


def num_updates(data: Path) -> int:
    """In one epoch; the last one has fewer batches."""
    stream = ShardStream(data, epochs=1, max_batch_seconds=5.0, where="digit < 4").load_audio(sample_rate=16_000)
    num_batches = len(Loader(stream, rank=0, world_size=1))
    assert num_batches % UPDATE_BATCHES, "the last update is to be an incomplete one"
    return -(-num_batches // UPDATE_BATCHES)


def everything(data: Path, out: Path) -> None:
    """What each rank of a world does."""
    ranks = Ranks()
    pretrain("tera", data, steps=STEPS, out=out / f"tera-{ranks.world_size}", **SIZES)
    if ranks.world_size > 1:
        steps = STOPPED_AFTER - 2 if ranks.world_size == 4 else STOPPED_AFTER
        pretrain("tera", data, steps=steps, out=out / "tera-4-2-1", **SIZES)
    left_out = pretrain(
        "apc", data, steps=1, out=out / f"nothing-{ranks.world_size}", skip_batches=[(0, 3)], **FEW
    ).left_out
    (out / f"left-out-{ranks.world_size}-{ranks.rank}").write_text(str(left_out))
    unusable = train_for_task("pr", texts(), out=out / f"task-{ranks.world_size}", **TASK).left_out
    (out / f"unusable-{ranks.world_size}-{ranks.rank}").write_text(str(unusable))
    updates = num_updates(data)
    assert levels(out / f"greedy-{ranks.world_size}", data, num_steps=2, greedy_at=3, rank=ranks.rank) == 1
    with pytest.raises(UsageError, match=f"ended before step {updates + 1}"):
        levels(out / f"levels-{ranks.world_size}", data, num_steps=updates + 1, rank=ranks.rank)
    if ranks.world_size > 1:
        own_folder = out / (f"greedy-{ranks.world_size}" if ranks.is_first else "not-the-folder-of-the-first")
        with pytest.raises(StateError, match=r"do not agree on the newest checkpoint: \[2, 0"):
            levels(own_folder, data, num_steps=3, rank=ranks.rank)
        with pytest.raises(UsageError, match="cannot share that evenly"):
            pretrain("tera", data, steps=1, out=out / "odd", **{**SIZES, "update_batches": 3})


def a_long_probe(data: Path) -> None:
    """The first rank probes for longer than the others may wait in the sum that comes next."""

    def slow(*args: Any, **settings: Any) -> ProbeResult:
        time.sleep(MOST_SECONDS_OF_A_SUM + 1)
        return probe(*args, **settings)

    early_probe.probe = slow  # type: ignore[attr-defined]
    asked = early_probe.ProbeSettings(label="digit", where="digit < 3")
    recipe = find_recipe("apc").having({"hidden_size": 8})
    hook = early_probe.early_probe(asked, data)(recipe, build_objective(recipe))
    ranks = Ranks()
    assert len(hook.ask(1)) == (2 if ranks.is_first else 0)
    done = torch.ones(1)
    ranks.sum(done)
    assert done.item() == ranks.world_size


def on_ranks(world_size: int, work: Callable[[], None], meeting_point: Path, *, seconds: float = 60) -> list[int]:
    """Do it in so many processes that know each other; their numbers, for `end_well`.

    Args:
        world_size: how many.
        work: what each does.
        meeting_point: a file for them.
        seconds: that a rank waits for the others in what they do together.
    """

    def joined(rank: int) -> None:
        dist.init_process_group(
            "gloo",
            init_method=f"file://{meeting_point}",
            rank=rank,
            world_size=world_size,
            timeout=timedelta(seconds=seconds),
        )
        work()
        dist.destroy_process_group()

    return forked(world_size, joined)


def forked(world_size: int, work: Callable[[int], None]) -> list[int]:
    """Do it in so many processes, each with its rank; their numbers, for `end_well`."""
    children = []
    for rank in range(world_size):
        child = os.fork()
        if child == 0:
            status = 1
            try:
                work(rank)
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(status)
        children.append(child)
    return children


def end_well(children: list[int]) -> bool:
    """Wait for them; False if one of them failed."""
    statuses = [os.waitpid(child, 0)[1] for child in children]
    return not any(statuses)


def trainings_of_one_torchrun(port: int, rank: int) -> None:
    """Join and leave the ranks once for each, as a program of torchrun does that trains twice: its store stays."""
    os.environ.update(RANK=str(rank), WORLD_SIZE="2", TORCHELASTIC_USE_AGENT_STORE="True")
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port))
    signal.alarm(60)  # they do not find each other
    for _ in range(3):
        with joined_ranks(torch.device("cpu")):
            done = torch.ones(1)
            Ranks().sum(done)
            Ranks().patient_meeting()()
            assert done.item() == 2
    assert not dist.is_initialized()


def main() -> int:
    """All worlds, one after another; beside them the probe, which mostly sleeps."""
    data, out = Path(sys.argv[1]), Path(sys.argv[2])
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    probing = on_ranks(2, lambda: a_long_probe(data), out / "meeting-probe", seconds=MOST_SECONDS_OF_A_SUM)
    for world_size in (4, 2):
        if not end_well(on_ranks(world_size, lambda: everything(data, out), out / f"meeting-{world_size}")):
            return 1
    agent: Any = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    if not end_well(forked(2, lambda rank: trainings_of_one_torchrun(agent.port, rank))):
        return 1
    everything(data, out)
    pretrain("tera", data, steps=STEPS, out=out / "tera-4-2-1", **SIZES)
    return 0 if end_well(probing) else 1


if __name__ == "__main__":
    sys.exit(main())
