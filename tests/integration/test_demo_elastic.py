"""`tools/demo_elastic`: the whole of it once, and that its receipt sees a clip that is lost, doubled or read again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from elastic.ledger import Attempt, Clip, Handed, Run, judge

TOOLS = Path(__file__).resolve().parents[2] / "tools"
KEYS = ["a", "b", "c", "d"]


def batch(number: int) -> Handed:
    """Two clips a batch, two batches an epoch, and a beginning of epoch 2."""
    first = 2 * (number % 2)
    return Handed(number, 100 + number, tuple(Clip(number // 2, key, 0) for key in KEYS[first : first + 2]))


def run_of(*attempts: tuple[int, int], loss: float = 1.0) -> Run:
    """Attempts that were handed batches `begins_at` to `end`, of 5 in all, one a step, and read them."""
    handed = [[batch(number) for number in range(begin, end)] for begin, end in attempts]
    read = [[clip for one in some for clip in one.clips] for some in handed]
    losses = [(step, loss) for step in range(1, 6)]
    return Run([Attempt(4, begin, None, 0, losses) for begin, _ in attempts], 5, handed, read)


def test_what_was_done_again_after_a_checkpoint_is_no_loss() -> None:
    found = judge(run_of((0, 5)), run_of((0, 3), (2, 5)), KEYS)
    assert found["failures"] == []
    assert (found["clips"], found["lost"], found["twice"], found["consumed_clips_read_again"]) == (10, 0, 0, 0)
    assert (found["whole_epochs"], found["clips_done_again_after_a_checkpoint"], found["clips_read"]) == (2, 2, 12)


def without_one(run: Run) -> None:
    run.handed[0][1] = run.handed[0][1]._replace(clips=run.handed[0][1].clips[1:])


def with_one_twice(run: Run) -> None:
    run.handed[1][0] = run.handed[1][0]._replace(clips=run.handed[1][0].clips + batch(0).clips[:1])


def with_other_masks(run: Run) -> None:
    run.handed[1][2] = run.handed[1][2]._replace(digest=1)


def with_another_loss(run: Run) -> None:
    run.attempts[-1].losses[2] = (3, 1.001)


def without_a_step(run: Run) -> None:
    del run.attempts[-1].losses[2]


@pytest.mark.parametrize(
    ("spoil", "figure", "said"),
    [
        (without_one, "lost", "1 clips were lost: c of epoch 0"),
        (with_one_twice, "twice", "1 clips came twice, or ones that were not due: a of epoch 0"),
        (lambda run: run.read[1].append(Clip(0, "b", 0)), "consumed_clips_read_again", "b of epoch 0"),
        (with_other_masks, "batches_with_other_numbers", "undisturbed run's: 4"),
        (with_another_loss, None, "the loss of step 3 differs by 1.0e-03 of it; at most 0.0001"),
        (without_a_step, None, "1 steps have no loss: 3"),
    ],
)
def test_the_receipt_sees(spoil: Callable[[Run], Any], figure: str | None, said: str) -> None:
    elastic = run_of((0, 3), (2, 5))
    spoil(elastic)
    found = judge(run_of((0, 5)), elastic, KEYS)
    (failure,) = found["failures"]
    assert said in failure
    assert figure is None or found[figure] == 1


def test_a_clip_that_neither_run_was_handed_is_lost() -> None:
    whole, elastic = run_of((0, 5)), run_of((0, 5))
    for run in (whole, elastic):
        without_one(run)
    assert judge(whole, elastic, KEYS)["failures"] == ["1 clips were lost: c of epoch 0"]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_demo(tmp_path: Path) -> None:
    """Any store will do: the one that the tool chooses."""

    def demo(*words: str | Path) -> tuple[int, str, dict[str, Any]]:
        done = subprocess.run([TOOLS / "demo_elastic", *words], capture_output=True, text=True)
        if done.returncode == 2:
            pytest.skip(f"no store: {done.stderr.splitlines()[-2]}")
        print(done.stdout, done.stderr)
        return done.returncode, done.stdout, json.loads((tmp_path / "receipt.json").read_text())

    status, text, receipt = demo("--out", tmp_path)
    assert (status, receipt["failures"]) == (0, [])
    assert "All of it held." in text
    assert [one["ranks"] for one in receipt["attempts"]] == [4, 3, 1]
    assert [one["processes_killed"] for one in receipt["attempts"]] == [5, 4, 0]
    assert (receipt["batches"], receipt["losses"]) == (216, 18)
    assert receipt["clips"] >= 4 * 336
    assert (receipt["lost"], receipt["twice"], receipt["consumed_clips_read_again"]) == (0, 0, 0)
    assert sum(receipt["faults"].values()) > 0
    assert (tmp_path / "loss.png").read_bytes().startswith(b"\x89PNG")

    ledger = tmp_path / "elastic" / "handed-0-1.jsonl"
    first, *rest = ledger.read_text().splitlines(keepends=True)
    number, digest, clips = json.loads(first)
    ledger.write_text("".join([json.dumps([number, digest, clips[1:]]) + "\n", *rest]))
    status, text, receipt = demo("--judge", tmp_path)
    assert (status, receipt["lost"]) == (1, 1)
    assert f"FAILED: 1 clips were lost: {clips[0][1]} of epoch 0" in text


@pytest.mark.slow
def test_a_demo_that_is_killed_leaves_no_process(tmp_path: Path) -> None:
    """Not its store, not torchrun, not a rank."""
    log = tmp_path / "undisturbed" / "run" / "losses.jsonl"
    with (tmp_path / "said").open("wb") as said:
        demo = subprocess.Popen([TOOLS / "demo_elastic", "--out", tmp_path], stdout=said, stderr=said)
        while demo.poll() is None and not (log.exists() and log.stat().st_size):
            time.sleep(0.05)
        if demo.poll() == 2:
            pytest.skip("no store")
        assert demo.poll() is None, (tmp_path / "said").read_text()
        servers = json.loads((tmp_path / "server" / "server.json").read_text())["processes"].values()
        left = [psutil.Process(one["pid"]) for one in servers]
        left += psutil.Process(demo.pid).children(recursive=True)
        assert len(left) >= len(servers) + 5  # torchrun, its ranks
        demo.send_signal(signal.SIGKILL)
        demo.wait()
    end = time.monotonic() + 90
    while not all(map(is_gone, left)) and time.monotonic() < end:
        time.sleep(0.1)
    assert [one for one in left if not is_gone(one)] == []
    assert not (tmp_path / "server").exists()


def is_gone(process: psutil.Process) -> bool:
    """Who reaps the orphans of this machine may take his time."""
    try:
        return process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
