"""SIGKILL after SIGKILL, to all processes of a run or to one of them, with other ranks and workers after each.

The promise: what was delivered before each cursor that a run went on from, and then the rest, is what an undisturbed
run delivers, batch for batch and draw for draw; and a network trained on it has the same losses to the last bit.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest
from chaos.obstore_client import obstore_process
from integration.consumer import Settings, chain, main
from integration.forked import Forked
from integration.reading import upload
from integration.run_log import num_steps
from integration.servers import Rgw
from streams import delivered

import s3prl_stream as ss
from s3prl_stream.trainer.checkpoint import list_checkpoints

TESTS = Path(__file__).resolve().parents[1]
SECONDS_TO_END = 180.0
URL = "s3://test/kill-chain/sample"


def undisturbed(folder: Path, stream: dict[str, Any]) -> list[Any]:
    """All batches of the local set, as JSON gives them back."""
    return [json.loads(json.dumps(delivered(batch))) for batch in ss.Loader(chain(folder, stream))]


class Chain:
    """Attempts to get to the end of one stream, each from the cursor that the last one left.

    Args:
        url: of the set.
        out: folder for ledgers and the cursor.
        stream: settings of the stream.
        environment: of the set's store.
        seed: of who is killed when.
    """

    def __init__(
        self, url: str, out: Path, stream: dict[str, Any], environment: dict[str, str] | None = None, *, seed: int
    ) -> None:
        self.url, self.out, self.stream = url, out, stream
        self.environment = environment
        self.random = random.Random(seed)
        self.began_at: list[int] = []
        """The cursor of each attempt."""
        out.mkdir()

    def attempt(self, world: int, workers: int) -> Settings:
        """Of the next attempt; takes note of where it begins."""
        cursor = self.out / "cursor.json"
        self.began_at.append(json.loads(cursor.read_text())["next_batch"] if cursor.exists() else 0)
        return Settings(self.url, str(self.out), len(self.began_at) - 1, world, workers, self.stream)

    def start(self, world: int, workers: int) -> list[Forked]:
        """One process a rank, each leader of its own group."""
        settings = self.attempt(world, workers)
        errors = self.out / f"errors-{settings.attempt}"
        return [Forked(main, settings, rank, stderr=errors, environment=self.environment) for rank in range(world)]

    def lines(self, attempt: int) -> list[Any]:
        """What an attempt's ranks were handed, by batch."""
        files = self.out.glob(f"ledger-{attempt}-*.jsonl")
        complete = (line for file in files for line in file.read_text().splitlines(keepends=True) if line[-1] == "\n")
        return sorted(json.loads(line) for line in complete)

    def kill(self, world: int, workers: int, victim: str, after: int, delay_seconds: float) -> None:
        """Start, and SIGKILL `victim` ("all", "main" or "worker") a while after `after` batches were handed over."""
        ranks = self.start(world, workers)
        try:
            wait_until(lambda: len(self.lines(len(self.began_at) - 1)) >= after or not all_run(ranks))
            time.sleep(delay_seconds)
            assert all_run(ranks), f"ended before it was killed: {self.errors()}"
            one = self.random.choice(ranks)
            if victim == "all":
                for rank in ranks:
                    os.killpg(rank.pid, signal.SIGKILL)
            elif victim == "main":
                one.kill()
            else:
                self.random.choice(workers_of(one)).kill()
            # the others notice: a worker that its loader is gone, a loader that its worker is, a rank that one is
            wait_until(lambda: not any(rank.poll() is None for rank in ranks))
            wait_until(lambda: not any(group_of(rank) for rank in ranks))
        finally:
            end(ranks)

    def finish(self, world: int, workers: int) -> None:
        """An attempt that is left alone."""
        ranks = self.start(world, workers)
        try:
            codes = [rank.wait(SECONDS_TO_END) for rank in ranks]
        finally:
            end(ranks)
        assert codes == [0] * world, self.errors()

    def errors(self) -> str:
        """What the last attempt said."""
        return (self.out / f"errors-{len(self.began_at) - 1}").read_text()[-2000:]

    def assert_ledger_is(self, expected: list[Any]) -> None:
        """Each attempt until the cursor of the next one, put together; and nobody was ever handed anything else."""
        ledger = []
        for attempt, (begin, end_) in enumerate(zip(self.began_at, [*self.began_at[1:], len(expected)], strict=True)):
            handed = [line for line in self.lines(attempt) if line[1]]  # without the empty batches of a last round
            assert [line[0] for line in handed] == sorted({line[0] for line in handed})
            assert all(line == expected[line[0]] for line in handed)
            ledger += [line for line in handed if begin <= line[0] < end_]
        assert ledger == expected


def wait_until(ready: Callable[[], bool]) -> None:
    end_at = time.monotonic() + SECONDS_TO_END
    while not ready():
        assert time.monotonic() < end_at, "waited in vain"
        time.sleep(0.005)


def all_run(ranks: list[Forked]) -> bool:
    return all(rank.poll() is None for rank in ranks)


def workers_of(rank: Forked | psutil.Popen) -> list[psutil.Process]:
    """Its worker processes, whether forked or from a fork server (which is one too while it has no worker)."""
    all_below = psutil.Process(rank.pid).children(recursive=True)
    below = [one for one in all_below if "resource_tracker" not in " ".join(one.cmdline())]
    return [one for one in below if not one.children()]


def group_of(rank: Forked | psutil.Popen) -> list[int]:
    """Processes of a rank's group that are still there, the fork server and the workers among them."""
    found = []
    for pid in psutil.pids():
        try:
            if os.getpgid(pid) == rank.pid and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                found.append(pid)
        except (ProcessLookupError, psutil.NoSuchProcess):
            continue
    return found


def end(ranks: Sequence[Forked | psutil.Popen]) -> None:
    for rank in ranks:
        for pid in group_of(rank):
            os.kill(pid, signal.SIGKILL)
        rank.wait()


STREAM = {"epochs": 6, "max_batch_seconds": 12.0, "block_samples": 128, "run": 4, "seed": 5}


def test_killed_twice_with_other_ranks_and_workers(sample_set: Path, tmp_path: Path) -> None:
    stream = {**STREAM, "epochs": 1}
    runs = Chain(str(sample_set), tmp_path / "runs", stream, seed=1)
    runs.kill(world=2, workers=0, victim="main", after=7, delay_seconds=0.01)
    runs.kill(world=1, workers=2, victim="worker", after=5, delay_seconds=0.01)
    main(runs.attempt(world=1, workers=0), rank=0)
    assert runs.began_at[1] >= 4
    assert runs.began_at[2] >= runs.began_at[1] + 4
    runs.assert_ledger_is(undisturbed(sample_set, stream))


@pytest.fixture(scope="module")
def in_gateway(rgw: Rgw, sample_set: Path) -> Rgw:
    with obstore_process() as child:
        child(upload, rgw.environment(), sample_set, URL)
    return rgw


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_killed_twenty_times_reading_from_the_gateway(in_gateway: Rgw, sample_set: Path, tmp_path: Path) -> None:
    runs = Chain(URL, tmp_path / "runs", STREAM, in_gateway.environment(), seed=20)
    draw = random.Random(21)
    for _ in range(20):
        world, workers = draw.choice([1, 2, 3]), draw.choice([0, 2])
        victim = draw.choice(["all", "main", "worker"] if workers else ["all", "main"])
        after = draw.randint(victim == "worker", 9)
        delay_seconds = draw.uniform(0, 0.1 if after else 3.0)
        began = time.monotonic()
        runs.kill(world, workers, victim, after, delay_seconds)
        print(
            f"from batch {runs.began_at[-1]} on {world} ranks with {workers} workers, SIGKILL to {victim} "
            f"{delay_seconds:.3f} s after {after} batches; {time.monotonic() - began:.1f} s"
        )
    runs.finish(world=2, workers=2)
    assert len(set(runs.began_at)) > 10
    runs.assert_ledger_is(undisturbed(sample_set, STREAM))


WORDS = (
    "--hidden-size 16 --layers 1 --heads 2 --ffn-size 16 --batch-seconds 10 --crop-seconds 3 --device cpu "
    "--checkpoint-every 3"
)


def train(data: str | Path, out: Path, steps: int, workers: int, environment: dict[str, str]) -> psutil.Popen:
    words = ["pretrain", "tera", "--data", data, "--out", out, "--steps", steps, *WORDS.split(), "--workers", workers]
    with (out.parent / "errors").open("ab") as errors:
        return psutil.Popen(
            [sys.executable, "-m", "s3prl_stream", *map(str, words)],
            cwd=TESTS.parent,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=errors,
            env={**os.environ, **environment, "OMP_NUM_THREADS": "1"},
        )


def kill_trainer(process: psutil.Popen, run: Path, victim: str, steps: int, draw: random.Random) -> None:
    """SIGKILL a while after it has done `steps` steps of its own; 0: while it starts."""
    log = run / "losses.jsonl"
    written = log.stat().st_mtime_ns if log.exists() else 0
    checkpoints = list_checkpoints(run)
    begin = int(checkpoints[-1].name.removeprefix("step-")) if checkpoints else 0

    def has_done_steps() -> bool:
        """The log of the last attempt may go beyond the checkpoint, until it is cut."""
        return log.exists() and log.stat().st_mtime_ns != written and num_steps(run) >= begin + steps

    try:
        if steps:
            wait_until(lambda: has_done_steps() or process.poll() is not None)
        time.sleep(draw.uniform(0, 0.1 if steps else 3.0))
        assert process.poll() is None, f"ended before it was killed: {(run.parent / 'errors').read_text()[-2000:]}"
        if victim == "all":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            (process if victim == "main" else draw.choice(workers_of(process))).kill()
        wait_until(lambda: process.poll() is not None and not group_of(process))
    finally:
        end([process])


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_a_trainer_killed_twenty_times_has_the_losses_of_an_undisturbed_one(in_gateway: Rgw, tmp_path: Path) -> None:
    """The undisturbed one reads from the store too, where the plan has another `run`."""
    steps, whole, killed = 150, tmp_path / "whole", tmp_path / "killed"
    assert train(URL, whole, steps, 0, in_gateway.environment()).wait() == 0
    draw = random.Random(22)
    for number in range(20):
        workers = draw.choice([0, 2])
        victim = draw.choice(["all", "main", "worker"] if workers else ["all"])
        after = draw.randint(victim == "worker", 9)
        began = time.monotonic()
        kill_trainer(train(URL, killed, steps, workers, in_gateway.environment()), killed, victim, after, draw)
        print(
            f"{number}: SIGKILL to {victim} ({workers} workers) {after} steps after the start, at step "
            f"{num_steps(killed)}; {time.monotonic() - began:.1f} s"
        )
    assert train(URL, killed, steps, 2, in_gateway.environment()).wait() == 0
    assert num_steps(whole) == steps
    assert (killed / "losses.jsonl").read_bytes() == (whole / "losses.jsonl").read_bytes()
