"""What WAV and FLAC headers say, read from a buffer without decoding anything.

libsndfile quietly shortens a WAV whose data chunk is cut, and dr_flac quietly shortens a FLAC with damaged frames.
Reading the headers ourselves is what makes the missing frames visible. Layouts: Microsoft's RIFF WAVE chunks;
RFC 9639 (FLAC), section 8.2.
"""

from __future__ import annotations

import struct
from typing import NamedTuple

from s3prl_stream.errors import SampleError

_PCM, _EXTENSIBLE = 0x0001, 0xFFFE
_UNKNOWN_SIZE = 0xFFFFFFFF
_SMALLEST_FLAC_FRAME_BYTES = 10
"""Sync, block size, number and CRC-8 (6 bytes), one constant subframe of 8 bits (2), CRC-16 (2)."""


class WavHeader(NamedTuple):
    """Where the sound of a WAV lies in its buffer."""

    is_pcm16: bool
    sample_rate: int
    channels: int
    data_offset: int
    frames: int


class FlacHeader(NamedTuple):
    """The STREAMINFO block."""

    sample_rate: int
    channels: int
    bits: int
    frames: int
    """0: the encoder did not know."""
    md5: bytes
    """Of the decoded PCM, interleaved, little-endian, ceil(bits / 8) bytes a value; zeros: unknown."""


def wav_header(data: bytes | memoryview, num_bytes: int | None = None) -> WavHeader | None:
    """The header of a RIFF WAVE in `data`; None if it is of a kind that only libsndfile should judge (RF64, AIFF ...).

    Args:
        data: the file, or its beginning.
        num_bytes: of the whole file, where `data` is its beginning.

    Raises:
        SampleError(reason="decode"): chunks are missing, or the data chunk claims more bytes than there are.
    """
    view = memoryview(data)
    size = len(view) if num_bytes is None else num_bytes
    if bytes(view[:4]) != b"RIFF" or bytes(view[8:12]) != b"WAVE":
        return None
    form, position = None, 12
    while position + 8 <= len(view):
        name, claimed = bytes(view[position : position + 4]), struct.unpack_from("<I", view, position + 4)[0]
        body = position + 8
        if name == b"fmt " and claimed >= 16 and body + claimed <= len(view):
            form = view[body : body + claimed]
        if name == b"data":
            return _wav_sound(form, body, claimed, size - body)
        position = body + claimed + claimed % 2
    raise SampleError(f"WAV of {size} bytes has no data chunk", reason="decode")


def _wav_sound(form: memoryview | None, offset: int, claimed: int, present: int) -> WavHeader:
    if form is None:
        raise SampleError("WAV has no fmt chunk before its data chunk", reason="decode")
    tag, channels, sample_rate, _, frame_bytes, bits = struct.unpack_from("<HHIIHH", form)
    if tag == _EXTENSIBLE and len(form) >= 26:
        tag = struct.unpack_from("<H", form, 24)[0]
    # A writer to a pipe cannot know the size: then the sound lasts until the end of the file.
    size = present if claimed == _UNKNOWN_SIZE else claimed
    if size > present:
        raise SampleError(f"WAV is truncated: {present} of {size} bytes of sound are there", reason="decode")
    if not (channels and sample_rate and frame_bytes):
        raise SampleError(
            f"WAV header is impossible: {channels} channels, {sample_rate} Hz, {frame_bytes} bytes a frame",
            reason="decode",
        )
    is_pcm16 = tag == _PCM and bits == 16 and frame_bytes == 2 * channels
    return WavHeader(is_pcm16, sample_rate, channels, offset, size // frame_bytes)


def flac_header(data: bytes | memoryview, num_bytes: int | None = None) -> FlacHeader | None:
    """STREAMINFO of the FLAC in `data`; None if it does not begin like a plain FLAC (or one behind an ID3v2 tag).

    Args:
        data: the file, or its beginning.
        num_bytes: of the whole file, where `data` is its beginning.

    Raises:
        SampleError(reason="decode"): STREAMINFO is cut or missing, or it claims more frames than so many bytes can
            hold. So nothing is allocated on the word of a header alone.
    """
    size = len(data) if num_bytes is None else num_bytes
    start = after_id3(memoryview(data))
    head = bytes(data[start : start + 42])
    if head[:4] != b"fLaC":
        return None
    if len(head) < 42 or head[4] & 0x7F != 0:
        raise SampleError(f"FLAC of {size} bytes has no whole STREAMINFO block", reason="decode")
    max_block_frames = int.from_bytes(head[10:12], "big")
    packed = int.from_bytes(head[18:26], "big")
    header = FlacHeader(
        sample_rate=packed >> 44,
        channels=(packed >> 41 & 0x7) + 1,
        bits=(packed >> 36 & 0x1F) + 1,
        frames=packed & 0xFFFFFFFFF,
        md5=head[26:42],
    )
    most = size // _SMALLEST_FLAC_FRAME_BYTES * max_block_frames
    if header.sample_rate == 0 or header.frames > most:
        raise SampleError(
            f"FLAC header is impossible: {header.frames} frames at {header.sample_rate} Hz; "
            f"{size} bytes hold at most {most} frames",
            reason="decode",
        )
    return header


def after_id3(view: memoryview) -> int:
    """Where the sound begins behind an ID3v2 tag; 0 without one."""
    if bytes(view[:3]) != b"ID3" or len(view) < 10:
        return 0
    size = 0
    for byte in view[6:10]:
        size = size << 7 | byte & 0x7F
    return 10 + size
