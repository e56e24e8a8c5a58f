"""Start-up memory of the plan: bounded, and flat in the number of clips.

The full size (80 000 shards, 100 M clips) takes 7 minutes and 2.6 GB to make: `tools/bench plan` measures it, and
docs/measured.md has the numbers.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from synthetic_index import make_synthetic_index


def planned(folder: Path, repository: Path) -> dict[str, float]:
    """What `tools/bench plan` finds in a process of its own."""
    command = [sys.executable, str(repository / "tools" / "bench"), "plan", str(folder), "--blocks", "4"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


@pytest.mark.slow
def test_memory_is_flat(tmp_path: Path, repository: Path) -> None:
    held_by_this_process = np.ones(800_000_000, dtype=np.uint8)  # must not be counted
    make_synthetic_index(tmp_path / "small", 160)
    make_synthetic_index(tmp_path / "large", 3200)
    small, large = planned(tmp_path / "small", repository), planned(tmp_path / "large", repository)
    assert (small["clips"], large["clips"]) == (200_000, 4_000_000)
    assert large["startup_peak_mb"] < 300
    assert large["peak_mb_after_blocks"] < small["peak_mb_after_blocks"] + 20
    del held_by_this_process
