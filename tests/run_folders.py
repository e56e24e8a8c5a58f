"""Another process that works in the folder of a run."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HOLDER = """
import contextlib, sys
from pathlib import Path
from s3prl_stream.stores.alone import alone_in
with contextlib.ExitStack() as held:
    for folder in sys.argv[1:]:
        held.enter_context(alone_in(Path(folder)))
    print("held", flush=True)
    sys.stdin.read()
"""


@contextmanager
def worked_in_by_another(*folders: Path) -> Iterator[int]:
    """The number of the process, which is killed behind the block."""
    words = [sys.executable, "-c", HOLDER, *map(str, folders)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == "held\n"
        try:
            yield other.pid
        finally:
            other.kill()
