"""RTTM files: who speaks when. NIST, "The 2009 (RT-09) rich transcription meeting recognition evaluation plan"."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeAlias

from s3prl_stream.corpora.lists import read_lines
from s3prl_stream.errors import UsageError
from s3prl_stream.tables import seconds

Segments: TypeAlias = list[dict[str, Any]]
"""{"start", "end" (s), "label"}, sorted by time."""


def read_rttm(path: Path) -> dict[str, Segments]:
    """Recording -> its speakers' turns; only lines of the type SPEAKER count.

    Raises:
        UsageError: no such file, or a line that is none of RTTM.
    """
    turns: dict[str, Segments] = {}
    expected = "TYPE RECORDING CHANNEL START DURATION <NA> <NA> SPEAKER <NA> <NA>"
    for where, fields in read_lines(path, 1, expected=expected):
        if fields[0] != "SPEAKER":
            continue
        if len(fields) < 8:
            raise UsageError(f"{where}: {' '.join(fields)[:80]!r} is not {expected}.")
        start, duration = seconds(fields[3], where, "START"), seconds(fields[4], where, "DURATION")
        turns.setdefault(fields[1], []).append(segment(start, start + duration, fields[7]))
    return {recording: in_time(found) for recording, found in turns.items()}


def segment(start: float, end: float, label: str) -> dict[str, Any]:
    """One segment; times (s) to the microsecond."""
    return {"start": round(start, 6), "end": round(end, 6), "label": label}


def in_time(segments: Segments) -> Segments:
    """Sorted by time, then label."""
    return sorted(segments, key=lambda one: (one["start"], one["end"], one["label"]))


def about_turns(segments: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The metadata of a recording with these turns: `segments`, and `num_speakers` (int)."""
    return {"segments": list(segments), "num_speakers": len({one["label"] for one in segments})}
