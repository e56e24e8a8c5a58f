"""A killed process leaves no workers behind, and an interrupted one no tracebacks of them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from s3prl_stream.errors import StreamError
from s3prl_stream.shards.workers import Workers

SCRIPT = """
import multiprocessing, sys, time
from s3prl_stream.shards.workers import end_with_parent

def work(started):
    end_with_parent(0)
    started.set()
    time.sleep(1000)

if __name__ == "__main__":
    for context in map(multiprocessing.get_context, sys.argv[1:]):
        for _ in range(2):
            started = context.Event()
            context.Process(target=work, args=(started,)).start()
            started.wait()
    print("ready", flush=True)
    time.sleep(1000)
"""


def test_an_interrupted_worker_ends_without_a_word_and_tasks_for_it_say_so(capfd: pytest.CaptureFixture[str]) -> None:
    with Workers(1) as workers:
        future = workers.submit(signal.raise_signal, signal.SIGINT)
        with pytest.raises(StreamError, match="a worker process died"):
            workers.wait([future], 60.0)
        with pytest.raises(StreamError, match="a worker process died"):
            workers.submit(os.getpid, None)  # type: ignore[arg-type]
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("contexts", ["fork forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_workers_end_with_a_killed_parent(tmp_path: Path, contexts: str) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    parent = subprocess.Popen(
        [sys.executable, tmp_path / "script.py", *contexts.split()], stdout=subprocess.PIPE, start_new_session=True
    )
    assert parent.stdout is not None
    try:
        assert parent.stdout.readline() == b"ready\n"
        below = psutil.Process(parent.pid).children(recursive=True)
        assert len(below) >= 2 * len(contexts.split())
        parent.kill()
        _, alive = psutil.wait_procs(below, timeout=20)
        assert alive == []
    finally:
        os.killpg(parent.pid, signal.SIGKILL) if psutil.pid_exists(parent.pid) else None
        parent.stdout.close()
        parent.wait()
