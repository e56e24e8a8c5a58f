"""Where in one answer a fault is carried out: from the fault and the answer's headers, before its body is read."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from s3prl_stream.chaos.faults import ChangedEtag, Cut, Fault, FlippedByte, Short, Slow, Stall, WholeObject
from s3prl_stream.chaos.http1 import PIECE_BYTES, Head, length_of_answer

_CONTENT_RANGE = re.compile(rb"bytes (\d+)-(\d+)/")
_STEPS_PER_SECOND = 20
"""A slow body is sent in as many parts a second."""


@dataclass
class Damage:
    """What is done to one answer; offsets count from the first byte of its body."""

    kind: str | None = None
    """For the log; None: the answer has nothing that the fault could break."""
    at: int | None = None
    """For the log."""
    send_nothing: bool = False
    reset: bool = False
    pause_seconds: float = 0.0
    pause_before_headers: bool = False
    pause_at: int | None = None
    end_at: int | None = None
    flip_at: int | None = None
    bytes_per_second: int | None = None

    def parts(self, piece: bytes, begin: int) -> Iterator[bytes]:
        """A piece of the body, cut where something happens, and with its byte flipped; it begins at byte `begin`."""
        end = begin + len(piece)
        stops = {stop for stop in (self.pause_at, self.end_at) if stop is not None}
        if self.bytes_per_second is not None:
            stops.update(range(begin, end, max(self.bytes_per_second // _STEPS_PER_SECOND, 1)))
        if self.flip_at is not None and begin <= self.flip_at < end:
            broken = bytearray(piece)
            broken[self.flip_at - begin] ^= 0xFF
            piece = bytes(broken)
        edges = [begin, *sorted(stop for stop in stops if begin < stop < end), end]
        return (piece[first - begin : last - begin] for first, last in pairwise(edges))


def plan_damage(fault: Fault | None, method: str, answer: Head, uniform: float) -> Damage:
    """What `fault` does to an answer. Headers that the fault changes are changed in `answer`.

    Args:
        uniform: in [0, 1): stands for a place that the fault leaves open.
    """
    length = length_of_answer(method, answer)
    size = PIECE_BYTES if length < 0 else length  # an unknown length: a place near the beginning
    last = size - 1 if length >= 0 else None

    def place(wanted: int | None) -> int:
        found = int(uniform * size) if wanted is None else wanted
        return found if last is None else min(found, last)

    match fault:
        case Cut() if length == 0:
            return Damage(fault.kind, send_nothing=True, reset=fault.reset)
        case Cut():
            end_at = place(fault.after_bytes)
            return Damage(fault.kind, end_at, end_at=end_at, reset=fault.reset)
        case Stall() if fault.before_headers or length == 0:
            return Damage(fault.kind, pause_seconds=fault.seconds, pause_before_headers=True)
        case Stall():
            pause_at = place(fault.after_bytes)
            return Damage(fault.kind, pause_at, pause_seconds=fault.seconds, pause_at=pause_at)
        case Short(honest=False) if length == 0:
            return Damage(fault.kind, send_nothing=True)
        case Short(honest=False):
            missing = 1 + int(uniform * size) if fault.missing_bytes is None else fault.missing_bytes
            end_at = max(size - missing, 0)
            return Damage(fault.kind, end_at, end_at=end_at)
        case Short(honest=True) if _is_object(method, answer) and length > 1:
            missing = 1 + int(uniform * (size - 1)) if fault.missing_bytes is None else fault.missing_bytes
            kept = max(size - missing, 1)
            _tell_of_fewer(answer, kept)
            return Damage(fault.kind, kept)
        case ChangedEtag() if answer.get(b"ETag") is not None:
            answer.replace(b"ETag", fault.etag.encode("latin-1"))
            return Damage(fault.kind)
        case FlippedByte() if _is_object(method, answer) and length > 0:
            begin = _first_byte(answer)
            offset = begin + int(uniform * size) if fault.object_offset is None else fault.object_offset
            if begin <= offset < begin + size:
                return Damage(fault.kind, offset, flip_at=offset - begin)
        case WholeObject() if method == "GET":
            return Damage()  # done already, by the request
        case Slow() if length != 0:
            return Damage(fault.kind, bytes_per_second=fault.bytes_per_second)
    return Damage()


def _is_object(method: str, answer: Head) -> bool:
    """Rather than a listing or an error, whose texts nobody protects by a checksum."""
    marks = (b"ETag", b"Last-Modified", b"Content-Range")
    return method == "GET" and answer.status in (200, 206) and any(answer.get(name) is not None for name in marks)


def _first_byte(answer: Head) -> int:
    found = _CONTENT_RANGE.match(answer.get(b"Content-Range") or b"")
    return 0 if found is None else int(found[1])


def _tell_of_fewer(answer: Head, kept: int) -> None:
    answer.replace(b"Content-Length", b"%d" % kept)
    content_range = answer.get(b"Content-Range") or b""
    first = _first_byte(answer)
    answer.replace(b"Content-Range", _CONTENT_RANGE.sub(b"bytes %d-%d/" % (first, first + kept - 1), content_range))
