"""Segments in seconds -> labels of frames, and back. F frames, S speakers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError
from s3prl_stream.metrics import Turn
from s3prl_stream.sample import Batch


def turns_of(batch: Batch) -> list[list[Turn] | None]:
    """The `segments` of each utterance of a batch as turns; None where there is no such list.

    Raises:
        UsageError: the batch has no segments, or one of them has no start, end and label.
    """
    if "segments" not in batch:
        raise UsageError("the set has no column 'segments' (who or what from when to when); pack it with one")
    pairs = zip(batch["key"], batch["segments"], strict=True)
    return [None if segments is None else [_turn(one, key) for one in segments] for key, segments in pairs]


def active_frames(
    turns: Sequence[Turn], labels: Sequence[str], num_frames: int, frame_seconds: float
) -> npt.NDArray[np.bool_]:
    """bool [F, S]: whether the middle of a frame lies in a turn of each label."""
    middles = (np.arange(num_frames) + 0.5) * frame_seconds
    active = np.zeros((num_frames, len(labels)), dtype=np.bool_)
    columns = {label: number for number, label in enumerate(labels)}
    for turn in turns:
        if turn.speaker in columns:
            active[(turn.start <= middles) & (middles < turn.end), columns[turn.speaker]] = True
    return active


def turns_from(active_FS: npt.NDArray[np.bool_], labels: Sequence[str], frame_seconds: float) -> Iterator[Turn]:
    """A turn for each stretch of frames in which one is active."""
    edges = np.diff(np.pad(active_FS.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    for column, label in enumerate(labels):
        starts, ends = np.flatnonzero(edges[:, column] == 1), np.flatnonzero(edges[:, column] == -1)
        for start, end in zip(starts, ends, strict=True):
            yield Turn(float(start * frame_seconds), float(end * frame_seconds), label)


def rttm(turns: Sequence[Turn], recording: str) -> str:
    """The turns as lines of an RTTM file."""
    lines = (
        f"SPEAKER {recording} 1 {turn.start:.3f} {turn.end - turn.start:.3f} <NA> <NA> {turn.speaker} <NA> <NA>"
        for turn in sorted(turns)
    )
    return "\n".join(lines)


def _turn(segment: Mapping[str, Any], key: str) -> Turn:
    try:
        return Turn(float(segment["start"]), float(segment["end"]), str(segment["label"]))
    except (KeyError, TypeError, ValueError):
        raise UsageError(f"{key}: segment {segment!r:.100} should have start and end (s) and a label") from None
