"""A program may end while it holds iterators: without a word, and without waiting."""

from __future__ import annotations

import subprocess
import sys
import threading
import weakref
from collections.abc import Generator
from pathlib import Path

import pytest

from s3prl_stream import at_exit

HELD = """
import sys
from torch.utils.data import DataLoader
import s3prl_stream as ss

def stream(shards=None):
    return ss.ShardStream(shards or sys.argv[1], seed=0, max_batch_seconds=10.0).load_audio()

if __name__ == "__main__":
    held = [
        ss.Loader(stream()),
        ss.Loader(stream(ss.open_shards({sys.argv[1]: 1.0}))),
        ss.ShardStream(sys.argv[1]),
        stream().features("logmel80"),
        stream().collate(),
        DataLoader(stream().collate(), batch_size=None),
    ]
    if sys.argv[2:]:
        held += [ss.Loader(stream(), num_workers=1), DataLoader(stream().collate(), batch_size=None, num_workers=1)]
    held = list(map(iter, held))
    print(len([next(one) for one in held]))
"""


def run(script: Path, *arguments: str) -> tuple[int, str, str]:
    done = subprocess.run([sys.executable, script, *arguments], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stdout, done.stderr


def test_iterators_that_are_held_at_the_end(sample_set: Path, tmp_path: Path) -> None:
    script = tmp_path / "held.py"
    script.write_text(HELD)
    assert run(script, str(sample_set)) == (0, "6\n", "")


def test_one_that_another_thread_is_in_is_left_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    entered, may_go_on = threading.Event(), threading.Event()

    def numbers() -> Generator[int]:
        entered.set()
        may_go_on.wait()
        yield 1

    monkeypatch.setattr(at_exit, "_open", weakref.WeakSet())
    got: list[int] = []
    generator = at_exit.closed_at_exit(numbers())
    thread = threading.Thread(target=lambda: got.append(next(generator)))
    thread.start()
    entered.wait()
    try:
        at_exit._close_all()
    finally:
        may_go_on.set()
        thread.join()
    assert got == [1]


@pytest.mark.slow
def test_iterators_with_workers_that_are_held_at_the_end(sample_set: Path, tmp_path: Path) -> None:
    script = tmp_path / "held.py"
    script.write_text(HELD)
    assert run(script, str(sample_set), "workers") == (0, "8\n", "")


SPAWNED = """
import sys
import s3prl_stream as ss

if __name__ == "__main__":
    stream = ss.ShardStream(sys.argv[1], max_batch_seconds=60.0).load_audio()
    for _ in range(4):
        batches = iter(ss.Loader(stream, num_workers=2, multiprocessing_context="spawn"))
        next(batches)
        batches.close()
"""


@pytest.mark.slow
def test_spawned_workers_that_send_batches_nobody_waits_for_end_in_silence(sample_set: Path, tmp_path: Path) -> None:
    """Of four that were ended while they sent one, one aborted, which torch told of with a traceback."""
    script = tmp_path / "spawned.py"
    script.write_text(SPAWNED)
    assert run(script, str(sample_set)) == (0, "", "")
