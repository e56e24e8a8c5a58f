"""Segments of a recording (who speaks, what sounds, which phone): one list, whatever form they came in.

A segment is {"start", "end", "label"} in seconds from the beginning of the waveform. S3PRL's form is accepted,
{label: [(start, end), ...]}.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Any, TypeAlias

from s3prl_stream.errors import SampleError
from s3prl_stream.pipes.categories import plain_label
from s3prl_stream.sample import Sample

Segments: TypeAlias = list[dict[str, Any]]


def as_segments(value: Any, key: str) -> Segments:
    """The segments of a sample in the form of a list, in their order.

    Args:
        value: a list of {"start", "end", "label"}, or {label: [(start, end), ...]}; None is no segment.
        key: of the sample, for the error.

    Raises:
        SampleError: reason "segments": something else, or a segment that ends before it begins.
    """
    try:
        segments = [_segment(**segment) for segment in _listed(value)]
    except (TypeError, ValueError, AttributeError):
        raise SampleError(
            f'{key}: segments must be a list of {{"start", "end", "label"}} in seconds, or {{label: [(start, end), '
            f"...]}}; found {value!r:.100}",
            reason="segments",
        ) from None
    wrong = next((segment for segment in segments if not segment["start"] <= segment["end"]), None)
    if wrong is not None:
        raise SampleError(f"{key}: a segment ends before it begins: {wrong}", reason="segments")
    if not all(isinstance(segment["label"], Hashable) for segment in segments):
        raise SampleError(
            f"{key}: labels of segments must be texts or integers; found {value!r:.100}", reason="segments"
        )
    return segments


def cut_segments(sample: Sample, start_seconds: float, stop_seconds: float) -> Sample:
    """What a piece of the sample, from start to stop, has of its segments: {} if it has none.

    `segments` are those that lie in the piece, cut to it and counted from its beginning; `segment_labels` names all
    labels of the whole recording, so that all pieces of it have the same columns (`tag_frames`).
    """
    if sample.get("segments") is None:
        return {}
    segments = as_segments(sample["segments"], str(sample.get("key")))
    return {
        "segments": [
            {
                **segment,
                "start": max(segment["start"], start_seconds) - start_seconds,
                "end": min(segment["end"], stop_seconds) - start_seconds,
            }
            for segment in segments
            if segment["start"] < stop_seconds and segment["end"] > start_seconds
        ],
        "segment_labels": labels_of(sample, segments),
    }


def labels_of(sample: Sample, segments: Segments) -> list[Any]:
    """All labels of the recording that a sample is, or is a piece of, sorted: integers before texts."""
    known = sample.get("segment_labels")
    if known is not None:
        return list(known)
    return sorted({segment["label"] for segment in segments}, key=_integers_first)


def _integers_first(label: Any) -> tuple[bool, int, str]:
    return (False, label, "") if isinstance(label, int) else (True, 0, str(label))


def _listed(value: Any) -> Iterable[Mapping[str, Any]]:
    if value is None:
        return []
    if isinstance(value, Mapping):
        return [{"label": label, "start": start, "end": end} for label, times in value.items() for start, end in times]
    return list(value)


def _segment(*, start: Any, end: Any, label: Any, **more: Any) -> dict[str, Any]:
    return {"start": float(start), "end": float(end), "label": plain_label(label), **more}
