"""FLACs, Oggs or WAVs that were glued into one file (`cat a.flac b.flac`): the first is the clip, as its header says.

libsndfile, asked to seek in the first, may seek into the second, and gives its samples without a word. Of an Ogg it
looks for the end in the last 64 kB, and gives 2**63 - 1 frames where others fill those, or the length of the last where
that has its serial number. Of two WAVs it reads none. So it is given the first alone.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import islice
from typing import TypeAlias

from s3prl_stream.audio.headers import FlacHeader, after_id3, flac_header

Content: TypeAlias = bytes | memoryview

OGG_PAGE = b"OggS\0"
"""Of version 0, the only one (RFC 3533, 6)."""
OGG_PAGE_BYTES = 65_307
"""At most."""

_FLAC_START = re.compile(rb"fLaC[\x00\x80]\x00\x00\x22")
"""With STREAMINFO, which always has 34 bytes."""
_OGG_START = re.compile(rb"OggS\x00\x02\x00{8}")
"""A page that begins a stream, with which no sample ends."""
_OGG_LATER_PAGE = re.compile(rb"OggS\x00[\x00\x01\x04\x05]")
_OGG_ANY_PAGE = re.compile(rb"OggS\x00[\x00-\x07]")
_OGG_SERIAL, _OGG_NUMBER = slice(14, 18), slice(18, 22)
_LOOKS = 8


def end_of_first(content: Content) -> int | None:
    """Where the second stream begins; None: there is one alone. All bytes are looked through."""
    start, kind = _beginning(content)
    another = None
    if kind == b"fLaC":
        another = _FLAC_START.search(content, start + 4)
    elif kind == b"OggS" and (later := _OGG_LATER_PAGE.search(content, start)):  # those before it are mixed, not glued
        another = _OGG_START.search(content, later.end())
    elif kind == b"RIFF":
        return _next_wav(content, start)
    return another.start() if another else None


def may_be_glued(content: Content) -> bool:
    """False: there is one stream alone, as some looks at a file tell, which may be too long to be read for that.

    The last page of an Ogg has the serial number of the first. Its pages, and the frames of a FLAC, are numbered: they
    never begin anew, and the last frame has the number that the header promises. Not seen are two FLACs of as many
    frames, one of them in less than an eighth of the bytes, and before an Ogg a short one with its serial number.
    """
    start, kind = _beginning(content)
    if kind == b"OggS":
        tail = bytes(content[max(start, len(content) - OGG_PAGE_BYTES) :])
        last = tail[tail.rfind(OGG_PAGE) :]
        pages = [_OGG_ANY_PAGE.search(content, look) for look in _looks(content, start)]
        heads = [bytes(content[page.start() : page.start() + 22]) for page in pages if page] + [last[:22]]
        numbers = [int.from_bytes(head[_OGG_NUMBER], "little") for head in heads]
        return last[_OGG_SERIAL] != heads[0][_OGG_SERIAL] or numbers != sorted(numbers)
    if kind == b"RIFF":
        return _next_wav(content, start) is not None
    if kind != b"fLaC":
        return False
    flac = flac_header(content[start:])
    return flac is not None and not _numbers_are_of_one(content, start, flac)


def _beginning(content: Content) -> tuple[int, bytes]:
    """(where the sound begins behind an ID3 tag, its first four bytes)."""
    start = after_id3(memoryview(content[:10]))
    return start, bytes(content[start : start + 4])


def _next_wav(content: Content, start: int) -> int | None:
    """Where another WAV begins behind all that the first says it has."""
    size = 8 + int.from_bytes(content[start + 4 : start + 8], "little")
    at = start + size + size % 2
    head = bytes(content[at : at + 12])
    return at if head[:4] == b"RIFF" and head[8:] == b"WAVE" else None


def _looks(content: Content, start: int) -> list[int]:
    return [start + (len(content) - start) * number // _LOOKS for number in range(_LOOKS)]


def _numbers_are_of_one(content: Content, start: int, flac: FlacHeader) -> bool:
    at, is_last = start + 4, False
    while not is_last and at + 4 <= len(content):  # over the metadata
        is_last = bool(content[at] & 0x80)
        at += 4 + int.from_bytes(content[at + 1 : at + 4], "big")
    block_frames = int.from_bytes(content[start + 10 : start + 12], "big")
    frame_bytes = 64 + block_frames * flac.channels * (flac.bits + 1) // 8  # at most: samples as they are
    like = bytes(content[at : at + 4])
    end = content[max(at, len(content) - 2 * frame_bytes) :]
    if _FLAC_START.search(end):  # a short one, whose frames may be unlike those of the first
        return False
    tail = list(_frame_numbers(end, like))
    windows = (content[look : look + 2 * frame_bytes] for look in _looks(content, at))
    numbers = [one for window in windows for one in islice(_frame_numbers(window, like), 1)] + tail[-1:]
    counts_samples = like[1:2] == b"\xf9"
    behind = flac.frames - numbers[-1] * (1 if counts_samples else block_frames) if tail else 0
    return 0 < behind <= block_frames and numbers == sorted(numbers)


def _frame_numbers(window: Content, like: bytes) -> Iterator[int]:
    """Of the FLAC frames that begin in a window, which have the same rate and depth as one of the clip (RFC 9639,
    9.1): of the frame, or of its first sample."""
    for found in re.finditer(re.escape(like[:2]), window):
        head = bytes(window[found.start() : found.start() + 11])
        if len(head) == 11 and head[2] & 15 == like[2] & 15 and head[3] & 15 == like[3] & 15:
            more = max(7 - (~head[4] & 0xFF).bit_length(), 0)  # as in UTF-8: as many bytes follow as ones, less one
            number = head[4] & 0x7F >> (more + 1 if more else 0)
            for byte in head[5 : 5 + more]:
                number = number << 6 | byte & 0x3F
            yield number
