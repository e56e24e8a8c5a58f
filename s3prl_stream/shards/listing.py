"""From utterances to the clips that will be packed, by their headers alone.

What a corpus lists is checked (names, keys, metadata), every file's header is read once, and each utterance becomes
one clip, several pieces, or an entry in the list of what was left out.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from s3prl_stream.audio.source import SourceInfo, probe, stretch_frames
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.sample import RESERVED_KEYS, Utterance
from s3prl_stream.shards.keys import escape_key
from s3prl_stream.shards.workers import Workers, chunks

TEXT_FIELDS = frozenset({"text", "transcription", "transcript", "sentence", "normalized_text", "words", "phones"})
"""Metadata that describe the whole recording and would be wrong on a piece of it."""

_PATHS_PER_TASK = 64


class Clip(NamedTuple):
    """One sample to be packed."""

    key: str
    audio: str
    first_frame: int  # at the source's own rate
    stop_frame: int
    seconds: float
    metadata: Mapping[str, Any]
    source: SourceInfo


class LeftOut(NamedTuple):
    """One utterance that is not in the set, and why."""

    key: str
    audio: str
    kind: str  # "damaged", "skipped", or, of tars made elsewhere, "refused"
    reason: str  # machine-readable: missing, unreadable, empty, decode, md5, channel, range, too_short, too_long
    message: str


class Lengths(NamedTuple):
    """Which lengths are packed (s); None: no limit. The first two look at whole utterances, before any splitting."""

    min_seconds: float | None = None
    max_seconds: float | None = None
    split_seconds: float | None = None


def list_utterances(corpus: Iterable[Utterance], progress: Callable[[int], None]) -> list[Utterance]:
    """The corpus with escaped keys, checked.

    Raises:
        UsageError: no utterance at all, two of one key, reserved names or values that JSON cannot hold in metadata.
    """
    listed: list[Utterance] = []
    audio_of: dict[str, str] = {}
    for utterance in corpus:
        key = escape_key(utterance.key)
        if not key:
            raise UsageError(f"{utterance.audio}: the utterance's key is empty.")
        if key in audio_of:
            raise UsageError(
                f"two utterances have the key {key!r}: {audio_of[key]} and {utterance.audio}. Keys must be unique: "
                "rename one file, or give keys in a manifest."
            )
        audio_of[key] = utterance.audio
        _check_metadata(utterance)
        stretch = (utterance.start_seconds, utterance.end_seconds)
        listed.append(Utterance(key, utterance.audio, *stretch, **utterance.metadata))
        progress(len(listed))
    if not listed:
        raise UsageError("the corpus lists no utterances: there is nothing to pack.")
    return listed


def metadata_json(metadata: Mapping[str, Any]) -> bytes:
    """Sorted, compact UTF-8; ValueError or TypeError for what JSON cannot hold."""
    text = json.dumps(metadata, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return text.encode()


def probe_all(
    utterances: Sequence[Utterance], workers: Workers, progress: Callable[[int, int], None]
) -> dict[str, Any]:
    """Path -> `SourceInfo`, or the `SampleError` that reading its header raised. Each file is opened once."""
    paths = list(dict.fromkeys(utterance.audio for utterance in utterances))
    found: dict[str, Any] = {}
    for infos, some in zip(
        workers.map(_probe_some, chunks(paths, _PATHS_PER_TASK)), chunks(paths, _PATHS_PER_TASK), strict=True
    ):
        found.update(zip(some, infos, strict=True))
        progress(len(found), len(paths))
    return found


def select_clips(
    utterances: Iterable[Utterance], infos: Mapping[str, Any], lengths: Lengths
) -> tuple[list[Clip], list[LeftOut]]:
    """What is packed and what is left out, both in the order of the corpus.

    Raises:
        UsageError: a piece's key or metadata collide with another's.
    """
    clips: list[Clip] = []
    left_out: list[LeftOut] = []
    for utterance in utterances:
        found = infos[utterance.audio]
        try:
            if isinstance(found, SampleError):
                raise found
            first, stop = stretch_frames(found, utterance.start_seconds, utterance.end_seconds)
        except SampleError as error:
            left_out.append(LeftOut(utterance.key, utterance.audio, "damaged", error.reason, str(error)))
            continue
        whole = Clip(utterance.key, utterance.audio, first, stop, (stop - first) / found.sample_rate,
                     utterance.metadata, found)  # fmt: skip
        unfit = _unfit(whole.seconds, lengths)
        if unfit is not None:
            left_out.append(LeftOut(utterance.key, utterance.audio, "skipped", *unfit))
            continue
        clips.extend(_pieces(whole, lengths.split_seconds))
    _check_pieces(clips)
    return clips, left_out


def corpus_hash(clips: Iterable[Clip], left_out: Iterable[LeftOut]) -> str:
    """32 hexadecimal digits that change when any clip's key, stretch, metadata, file length or file size changes.

    The order of the corpus and the folder it lies in have no say.
    """
    lines = [
        f"{clip.key} {clip.first_frame} {clip.stop_frame} {clip.source} ".encode() + metadata_json(clip.metadata)
        for clip in clips
    ]
    lines += [f"{out.key} {out.kind} {out.reason}".encode() for out in left_out]
    return hashlib.blake2b(b"\n".join(sorted(lines)), digest_size=16).hexdigest()


def _probe_some(paths: list[str]) -> list[SourceInfo | SampleError]:
    return [_probe_one(path) for path in paths]


def _probe_one(path: str) -> SourceInfo | SampleError:
    try:
        return probe(path)
    except SampleError as error:
        return error


def _check_metadata(utterance: Utterance) -> None:
    taken = sorted(RESERVED_KEYS.intersection(utterance.metadata))
    if taken:
        raise UsageError(
            f"utterance {utterance.key!r}: the stream uses the name {taken[0]!r} itself; call that field another name."
        )
    try:
        metadata_json(utterance.metadata)
    except (TypeError, ValueError) as error:
        raise UsageError(f"utterance {utterance.key!r}: its metadata do not fit into JSON: {error}.") from None


def _unfit(seconds: float, lengths: Lengths) -> tuple[str, str] | None:
    if lengths.min_seconds is not None and seconds < lengths.min_seconds:
        return "too_short", f"{seconds:.3f} s, shorter than {lengths.min_seconds:g} s"
    if lengths.max_seconds is not None and seconds > lengths.max_seconds:
        return "too_long", f"{seconds:.3f} s, longer than {lengths.max_seconds:g} s"
    return None


def _pieces(clip: Clip, split_seconds: float | None) -> Iterator[Clip]:
    """The clip itself, or equal pieces of it no longer than `split_seconds`, without its text."""
    num_frames, sample_rate = clip.stop_frame - clip.first_frame, clip.source.sample_rate
    longest = num_frames if split_seconds is None else max(1, math.floor(split_seconds * sample_rate))
    num_pieces = -(-num_frames // longest)
    if num_pieces == 1:
        yield clip
        return
    if "first_second" in clip.metadata:
        raise UsageError(f"utterance {clip.key!r}: splitting gives its pieces a field first_second; rename yours.")
    kept = {name: value for name, value in clip.metadata.items() if name not in TEXT_FIELDS}
    for number in range(num_pieces):
        first, stop = (clip.first_frame + num_frames * n // num_pieces for n in (number, number + 1))
        start_second, seconds = (first - clip.first_frame) / sample_rate, (stop - first) / sample_rate
        metadata = {**kept, "first_second": start_second}
        if "segments" in kept:
            metadata["segments"] = _shifted(kept["segments"], start_second, seconds)
        key = f"{clip.key}-{number:04d}"
        yield clip._replace(key=key, first_frame=first, stop_frame=stop, seconds=seconds, metadata=metadata)


def _shifted(segments: Sequence[Mapping[str, Any]], start_second: float, seconds: float) -> list[dict[str, Any]]:
    """The segments that lie in a piece, cut to it, in seconds from its beginning."""
    stop = start_second + seconds
    inside = [segment for segment in segments if segment["start"] < stop and segment["end"] > start_second]
    return [
        {**one, "start": max(one["start"] - start_second, 0.0), "end": min(one["end"] - start_second, seconds)}
        for one in inside
    ]


def _check_pieces(clips: Sequence[Clip]) -> None:
    """Only the key of a piece can still collide: with an utterance that is called like it."""
    audio_of: dict[str, str] = {}
    for clip in clips:
        if clip.key in audio_of:
            raise UsageError(
                f"a piece of {audio_of[clip.key]} and {clip.audio} would both have the key {clip.key!r}: rename a file."
            )
        audio_of[clip.key] = clip.audio
