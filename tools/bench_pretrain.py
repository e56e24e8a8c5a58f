"""`tools/bench pretrain`: our recipes beside S3PRL's own code, in turns, each in a process of its own.

Two questions: the CPU seconds of data and features for an hour of audio, and of a whole update on a prepared batch. The
floor of an update is counted by `bench_floor.py`.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

DATA, DATA_DEVICE = "data and features in the loader", "data and features on the device"
PAIRS = {
    DATA: ("data", "data"),
    DATA_DEVICE: ("data device", "data"),
    **{
        what: (what, what.removesuffix(" without attention dropout").removesuffix(" in bf16"))
        for what in (
            "tera 300",
            "tera 300 without attention dropout",
            "tera 300 in bf16",
            "mockingjay 300",
            "apc 300",
            "distilhubert 5 s",
            "tera 1500",
            "tera 1500 without attention dropout",
            "tera 1500 in bf16",
        )
    },
}
"""What -> (our case, S3PRL's, which is always in float32).

Batches of 8 and so many frames; of DistilHuBERT 4 waveforms and the student alone.
"""


def bench_pretrain(
    folder: Path, recordings: Path, s3prl_python: str, rounds: int, threads: int, only: str | None
) -> dict[str, Any]:
    """All cases, or those whose names are in `only`, separated by commas. The system's allocator serves both sides."""
    chosen = [what for what in PAIRS if only is None or what in only.split(",")]
    return {
        "threads": threads,
        **{what: _case(what, folder, recordings, s3prl_python, rounds, threads) for what in chosen},
    }


def _case(what: str, folder: Path, recordings: Path, s3prl_python: str, rounds: int, threads: int) -> dict[str, Any]:
    tools, (ours, theirs) = Path(__file__).resolve().parent, PAIRS[what]
    sides = [
        _begin([sys.executable, str(tools / "bench_ours.py"), str(folder), str(threads)]),
        _begin([s3prl_python, str(tools / "bench_s3prl.py"), str(recordings.resolve()), str(threads)]),
    ]
    if "data" in ours:  # what is imported at the first clip
        for side, case in zip(sides, (ours, theirs), strict=True):
            _ask(side, case)
    told = [[_ask(side, case) for side, case in zip(sides, (ours, theirs), strict=True)] for _ in range(rounds)]
    floor = {} if "data" in ours else _ask(sides[0], ours, floor=True)["floor"]
    for side in sides:
        assert side.stdin is not None
        side.stdin.close()
        side.wait()
    cpu = [[one["cpu"] / (one["hours"] or 1.0) for one in pair] for pair in told]
    found = {
        "ours_cpu_s": _spread([one for one, _ in cpu]),
        "s3prl_cpu_s": _spread([other for _, other in cpu]),
        "s3prl_over_ours_cpu": _spread([other / one for one, other in cpu]),
        "wall_s": [round(statistics.median(pair[side]["wall"] for pair in told), 2) for side in (0, 1)],
        "peak_mb": [told[-1][side]["peak_mb"] for side in (0, 1)],
        **{name: round(value, 2) for name, value in floor.items()},
    }
    if floor:
        found["ours_over_floor"] = round(found["ours_cpu_s"][0] / floor["floor_cpu_s"], 2)
    print(what, json.dumps(found), file=sys.stderr, flush=True)
    return found


def _spread(values: Sequence[float]) -> list[float]:
    """Median, least and largest."""
    return [round(one, 2) for one in (statistics.median(values), min(values), max(values))]


def _begin(command: list[str]) -> subprocess.Popen[str]:
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, text=True)


def _ask(side: subprocess.Popen[str], case: str, **more: Any) -> dict[str, Any]:
    assert side.stdin is not None
    assert side.stdout is not None
    side.stdin.write(json.dumps({"case": case, **more}) + "\n")
    side.stdin.flush()
    line = side.stdout.readline()
    if not line:
        raise SystemExit(
            f"bench pretrain: {side.args!r} ended at the case {case!r}; run it by hand, it reads JSON lines"
        )
    answer: dict[str, Any] = json.loads(line)
    return answer
