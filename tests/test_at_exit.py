"""A program may end while it holds iterators: without a word, and without waiting."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

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


@pytest.mark.slow
def test_iterators_with_workers_that_are_held_at_the_end(sample_set: Path, tmp_path: Path) -> None:
    script = tmp_path / "held.py"
    script.write_text(HELD)
    assert run(script, str(sample_set), "workers") == (0, "8\n", "")
