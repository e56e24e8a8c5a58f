"""From listed utterances to the clips that will be packed, by the headers of their files.

Each utterance becomes one clip, several pieces, or an entry in the list of what was left out. Only recordings that are
to be cut at their silences are decoded here.
"""

from __future__ import annotations

import functools
import itertools
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from s3prl_stream.audio.silences import FRAME_SECONDS, SHORTEST_SILENCE_SECONDS, cuts_in_silences, find_silences
from s3prl_stream.audio.source import Channel, SourceInfo, levels_of_source, probe, stretch_frames
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.packing.listing import Listed
from s3prl_stream.packing.settings import PackSettings
from s3prl_stream.shards.bytes import metadata_json
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.workers import Workers, chunks

TEXT_FIELDS = frozenset({"text", "transcription", "transcript", "sentence", "normalized_text", "words", "phones"})
"""Metadata that describe the whole recording and would be wrong on a piece of it."""

_PATHS_PER_TASK = 64


class Clip(NamedTuple):
    """One sample to be packed."""

    position: int  # of its utterance in the corpus
    key: str
    unsafe_key: bool
    audio: str
    first_frame: int  # at the source's own rate
    stop_frame: int
    metadata: bytes  # JSON
    source: SourceInfo

    @property
    def seconds(self) -> float:
        """Length of the stretch."""
        return (self.stop_frame - self.first_frame) / self.source.sample_rate

    @property
    def is_whole_file(self) -> bool:
        """The stretch is all of the file."""
        return (self.first_frame, self.stop_frame) == (0, self.source.frames)


class Selection(NamedTuple):
    """What becomes of some utterances, both in their order."""

    clips: list[Clip]
    left_out: list[tuple[int, LeftOut]]
    """With the position of the utterance."""


def select_clips(
    utterances: Sequence[Listed], first_position: int, settings: PackSettings, workers: Workers
) -> Selection:
    """What is packed of some neighbours in the corpus. Each of their files is opened once.

    Raises:
        UsageError: a field of the utterance has the name that pieces need, or its segments cannot be cut.
    """
    infos = _probe_all([one.audio for one in utterances], workers)
    left_out: list[tuple[int, LeftOut]] = []
    wholes: list[Clip] = []
    for position, one in enumerate(utterances, start=first_position):
        path = os.fsdecode(one.audio)
        try:
            found = infos[one.audio]
            if isinstance(found, SampleError):
                raise found
            first, stop = stretch_frames(found, one.start, one.end)
        except SampleError as error:
            left_out.append((position, LeftOut(one.key, path, "damaged", error.reason, str(error))))
            continue
        clip = Clip(position, one.key, one.unsafe, path, first, stop, one.metadata, found)
        unfit = _unfit(clip.seconds, settings)
        if unfit is None:
            wholes.append(clip)
        else:
            left_out.append((position, LeftOut(one.key, path, "skipped", *unfit)))
    clips: list[Clip] = []
    for clip, edges in zip(wholes, _edges(wholes, settings, workers), strict=True):
        if isinstance(edges, SampleError):
            left_out.append((clip.position, LeftOut(clip.key, clip.audio, "damaged", edges.reason, str(edges))))
        elif len(edges) == 2:
            clips.append(clip)
        else:
            clips += _pieces(clip, edges)
    return Selection(clips, sorted(left_out))


def _probe_all(paths: Sequence[bytes], workers: Workers) -> dict[bytes, SourceInfo | SampleError]:
    distinct = list(dict.fromkeys(paths))
    infos = workers.map(_probe_some, chunks(distinct, _PATHS_PER_TASK))
    return dict(zip(distinct, (info for some in infos for info in some), strict=True))


def _probe_some(paths: list[bytes]) -> list[SourceInfo | SampleError]:
    found: list[SourceInfo | SampleError] = []
    for path in paths:
        try:
            found.append(probe(os.fsdecode(path)))
        except SampleError as error:
            found.append(error)
    return found


def _unfit(seconds: float, settings: PackSettings) -> tuple[str, str] | None:
    if settings.min_seconds is not None and seconds < settings.min_seconds:
        return "too_short", f"{seconds:.3f} s, shorter than {settings.min_seconds:g} s"
    if settings.max_seconds is not None and seconds > settings.max_seconds:
        return "too_long", f"{seconds:.3f} s, longer than {settings.max_seconds:g} s"
    return None


def _edges(wholes: Sequence[Clip], settings: PackSettings, workers: Workers) -> Iterator[list[int] | SampleError]:
    """For each clip the frames at which its pieces begin and end, at the source's rate."""
    if settings.split_seconds is None:
        yield from ([clip.first_frame, clip.stop_frame] for clip in wholes)
        return
    longest = [max(1, math.floor(settings.split_seconds * clip.source.sample_rate)) for clip in wholes]
    if settings.split == "length":
        yield from (equal_edges(c.first_frame, c.stop_frame, most) for c, most in zip(wholes, longest, strict=True))
        return
    tasks = list(zip(wholes, longest, strict=True))
    too_long = (task for task in tasks if not _is_short(*task))
    cut = workers.map(functools.partial(_cut_at_silences, settings.channel), too_long)
    for clip, most in tasks:
        yield [clip.first_frame, clip.stop_frame] if _is_short(clip, most) else next(cut)


def _is_short(clip: Clip, longest_frames: int) -> bool:
    return clip.stop_frame - clip.first_frame <= longest_frames


def equal_edges(first: int, stop: int, longest: int) -> list[int]:
    """Edges of equal pieces of at most `longest` frames."""
    num_pieces = -(-(stop - first) // longest)
    return [first + (stop - first) * number // num_pieces for number in range(num_pieces + 1)]


def _cut_at_silences(channel: Channel, task: tuple[Clip, int]) -> list[int] | SampleError:
    """Edges of pieces of a clip of at most so many frames; runs in a worker."""
    clip, longest_frames = task
    try:
        levels, hop = levels_of_source(clip.audio, clip.first_frame, clip.stop_frame, channel)
    except SampleError as error:
        return error
    if longest_frames < hop:
        return equal_edges(clip.first_frame, clip.stop_frame, longest_frames)
    silences = find_silences(levels, round(SHORTEST_SILENCE_SECONDS / FRAME_SECONDS))
    # the incomplete frame at the end belongs to the last piece, for which it leaves room
    edges = cuts_in_silences(len(levels) + 1, silences, longest_frames // hop)
    starts = [clip.first_frame + edge * hop for edge in edges[:-1]]
    return [*(start for start in starts if start < clip.stop_frame), clip.stop_frame]  # it may have no frames


def _pieces(clip: Clip, edges: Sequence[int]) -> Iterator[Clip]:
    """Pieces between the edges, without the text of the whole."""
    whole = json.loads(clip.metadata)
    if "first_second" in whole:
        raise UsageError(f"utterance {clip.key!r}: splitting gives its pieces a field first_second; rename yours.")
    kept = {name: value for name, value in whole.items() if name not in TEXT_FIELDS}
    sample_rate = clip.source.sample_rate
    for number, (first, stop) in enumerate(itertools.pairwise(edges)):
        start_second, seconds = (first - clip.first_frame) / sample_rate, (stop - first) / sample_rate
        metadata = {**kept, "first_second": start_second}
        if kept.get("segments") is not None:
            metadata["segments"] = _shifted(kept["segments"], start_second, seconds, clip.key)
        yield clip._replace(
            key=f"{clip.key}-{number:04d}", first_frame=first, stop_frame=stop, metadata=metadata_json(metadata)
        )


def _shifted(
    segments: Sequence[Mapping[str, Any]], start_second: float, seconds: float, key: str
) -> list[dict[str, Any]]:
    """The segments that lie in a piece, cut to it, in seconds from its beginning."""
    stop = start_second + seconds
    try:
        inside = [segment for segment in segments if segment["start"] < stop and segment["end"] > start_second]
    except (TypeError, KeyError):
        raise UsageError(
            f"utterance {key!r}: its segments are {segments!r:.80}, expected a list of {{start, end, label}} in "
            "seconds: they cannot be cut with it. Mend them, or call them another name."
        ) from None
    return [
        {**one, "start": max(one["start"] - start_second, 0.0), "end": min(one["end"] - start_second, seconds)}
        for one in inside
    ]
