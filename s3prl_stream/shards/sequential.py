"""Samples of a tar that is read once from front to back: a pipe, or a file as if it were one."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from s3prl_stream.audio.lengths import length_in
from s3prl_stream.errors import SampleError
from s3prl_stream.shards.foreign_sample import (
    MAX_SAMPLE_BYTES,
    Group,
    Stray,
    codec_of,
    group,
    is_used,
    metadata_of,
    parts_of,
)
from s3prl_stream.shards.keys import escape_foreign_key
from s3prl_stream.shards.tar_reads import FrontToBack, More
from s3prl_stream.shards.tarheader import compression_of
from s3prl_stream.shards.tarwalk import MAX_STEP_BACK, Gap, Member, ReadAt, shown, walk

MAX_HELD_BYTES = 2 * MAX_SAMPLE_BYTES
"""Of a sample, and of the beginning of the next, which tells that it is complete."""


class ForeignSample(NamedTuple):
    """A sound sample."""

    key: str
    audio: bytes
    codec: str
    num_frames: int
    metadata: Mapping[str, Any]


class Lost(NamedTuple):
    """A stretch of a tar that gave no sample."""

    key: str
    """Empty where it is not known."""
    offset: int
    size: int
    """Bytes, as far as it was read; 0 where that is not known."""
    reason: str
    message: str


def samples_in_order(
    more: More, num_bytes: int | None, max_seconds: float = math.inf
) -> Iterator[ForeignSample | Lost]:
    """What one tar holds, by the same rules as an index; only a key that comes twice is not noticed.

    Args:
        more: gives the tar piece by piece.
        num_bytes: of the tar, if it is known. Otherwise several tars may follow one another (`cat *.tar | ...`).
        max_seconds: longer clips are left out: a few bytes of FLAC can hold hours of silence.
    """
    reader = FrontToBack(more)

    def read(offset: int, size: int) -> bytes:
        reader.keep_from = offset - MAX_STEP_BACK
        return reader.read(offset, size)

    first = read(0, 512)
    kind = compression_of(first)
    if kind is not None or not first or (any(first) and len(first) < 512):
        what = f"compressed by {kind}: unpack it on the way" if kind else f"no tar: it has {len(first)} bytes"
        yield Lost("", 0, len(first), "compressed" if kind else "not_a_tar", what)
        return
    bodies: dict[int, bytes] = {}
    usual: Counter[frozenset[str]] = Counter()
    for found in group(_with_bodies(read, num_bytes, bodies)):
        if isinstance(found, Gap):
            yield Lost("", found.start, found.end - found.start, found.reason, found.message)
        elif isinstance(found, Stray):
            message = f"{shown(found.member.name)}: {found.message}"
            yield Lost("", found.member.start, found.member.end - found.member.start, found.reason, message)
        else:
            try:
                yield _sample(found, bodies, usual, max_seconds)
            except SampleError as error:
                start, end = found.files[0][1].start, found.files[-1][1].end
                yield Lost(escape_foreign_key(found.key), start, end - start, error.reason, str(error))
            for _, member in found.files:
                bodies.pop(member.content, None)


def _sample(
    found: Group, bodies: Mapping[int, bytes], usual: Counter[frozenset[str]], max_seconds: float
) -> ForeignSample:
    parts = parts_of(found)
    if any(member.content not in bodies for member in parts.used):
        raise SampleError(f"more than {MAX_HELD_BYTES} bytes of sound in one sample", reason="too_large")
    if not found.touches_gap:
        usual[found.suffixes] += 1
    elif not usual or not found.suffixes >= usual.most_common(1)[0][0]:
        raise SampleError("stands beside damage, and may have lost a file to it", reason="beside_damage")
    metadata = metadata_of(parts, lambda member: bodies[member.content])
    audio = bodies[parts.audio.content]
    codec = codec_of(parts, audio[:64])
    length = length_in(audio, codec)
    if length.frames > max_seconds * length.sample_rate:
        seconds = length.frames / length.sample_rate
        raise SampleError(f"{seconds:.1f} s, more than max_seconds={max_seconds:g}", reason="too_long")
    return ForeignSample(escape_foreign_key(found.key), audio, codec, length.frames, metadata)


def _with_bodies(read: ReadAt, num_bytes: int | None, bodies: dict[int, bytes]) -> Iterator[Member | Gap]:
    """The entries of the tar; the content of those that may be needed is in `bodies`, by its offset."""
    for entry in walk(read, 0, num_bytes, several=num_bytes is None):
        held = sum(map(len, bodies.values()))
        if isinstance(entry, Member) and is_used(entry) and held + entry.size <= MAX_HELD_BYTES:
            body = bodies[entry.content] = read(entry.content, entry.size)
            if len(body) < entry.size:
                message = f"{shown(entry.name)}: {len(body)} of {entry.size} bytes, then the tar ends"
                yield Gap(entry.start, entry.content + len(body), "truncated", message, entry.name)
                return
        yield entry
