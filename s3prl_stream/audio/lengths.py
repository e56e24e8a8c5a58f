"""How long an encoded clip is, from as few of its bytes as it takes: exactly as many frames as decoding will give.

FLAC and WAV say it in their first bytes (`headers.py`). For the rest libsndfile opens a file that reads only what it
is asked for: Vorbis and Opus cost their first and last pages, MP3 the frame with its Xing header. What no header
tells (MP3 without one, FLAC that was written to a pipe) is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from s3prl_stream.audio.bounds import MAX_SAMPLE_RATE, refuse_bomb
from s3prl_stream.audio.decode import blocks_of_unknown_length, first_mp3_frame, libsndfile_reason, mp3_says_its_length
from s3prl_stream.audio.glued import end_of_first
from s3prl_stream.audio.headers import after_id3, flac_header, wav_header
from s3prl_stream.errors import SampleError

if TYPE_CHECKING:
    from typing_extensions import Buffer

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> that many bytes of the clip, fewer where it ends."""

MAX_FRAMES_PER_BYTE = 8192
"""Of any codec here: a Vorbis packet of one byte, in the longest block. More is a lie."""

MAX_DECODED_BYTES = 256 << 20
"""Of a clip whose length no header tells: more is refused."""
MAX_DECODED_FRAMES = 1 << 31
"""37 hours at 16 kHz."""

_END_NOT_FOUND = (1 << 63) - 1
"""Says libsndfile of an Ogg behind which another lies in the same file."""

_HEAD_BYTES = 4096
_LARGE_HEAD_BYTES = 1 << 20
"""A WAV may carry a list of remarks before its sound, a FLAC or MP3 an ID3 tag with a picture."""


class ClipLength(NamedTuple):
    """What a clip holds."""

    frames: int
    """Samples per channel."""
    sample_rate: int
    was_decoded: bool
    """No header told: all of it was read and decoded."""
    is_glued: bool = False
    """Another follows it in its file, as the bytes tell that had to be read."""


def clip_length(read: ReadAt, size: int, codec: str) -> ClipLength:
    """The length of one encoded clip.

    Args:
        read: from the clip.
        size: its bytes.
        codec: its file extension: flac, wav, ogg, opus or mp3.

    Raises:
        SampleError: reason "empty" (no bytes or no frames), "decode" (a header that is damaged or impossible) or
            "too_large" (a few bytes that claim to be days of sound).
    """
    if not size:
        raise SampleError("the audio has no bytes", reason="empty")
    if codec == "flac":
        length = _flac(read, size)
    elif codec == "wav":
        length = _wav(read, size)
    elif codec == "mp3":
        length = _mp3(read, size)
    else:
        length = _by_libsndfile(read, size, codec)
    return checked_length(length, size, codec)


def length_in(data: bytes | memoryview, codec: str) -> ClipLength:
    """`clip_length` of a clip that is here as a whole."""
    return clip_length(lambda offset, size: bytes(data[offset : offset + size]), len(data), codec)


def checked_length(length: ClipLength, size: int, codec: str) -> ClipLength:
    """The same length.

    Raises:
        SampleError: no clip of so many bytes has it; reasons as of `clip_length`.
    """
    if length.frames <= 0:
        raise SampleError("the audio holds no frames", reason="empty")
    if not 0 < length.sample_rate <= MAX_SAMPLE_RATE or length.frames > size * MAX_FRAMES_PER_BYTE:
        raise SampleError(
            f"{codec} of {size} bytes claims {length.frames} frames at {length.sample_rate} Hz: impossible",
            reason="decode",
        )
    refuse_bomb(length.frames, size, codec)
    return length


def rate_in_head(read: ReadAt, size: int, codec: str) -> int | None:
    """Sample rate in Hz of a clip whose first 4 kB tell its rate but not its length, which `clip_length` would find
    farther on; None: they tell both, or neither."""
    if not size:
        return None
    head = read(0, _HEAD_BYTES)
    try:
        if codec == "flac":
            flac = flac_header(head, size)
            return flac.sample_rate if flac is not None and not flac.frames else None
    except SampleError:
        return None
    if codec == "mp3":
        start = after_id3(memoryview(head))
        return _mp3_rate(first_mp3_frame(read(start, _HEAD_BYTES) if start else head))
    return _ogg_rate(head)


def _mp3_rate(frame: bytes) -> int | None:
    """ISO/IEC 11172-3, 2.4.1.3 and 13818-3: the rates of MPEG 1, 2 and (a half of those) 2.5."""
    if len(frame) < 4 or frame[2] >> 2 & 3 == 3:
        return None
    return (44_100, 48_000, 32_000)[frame[2] >> 2 & 3] >> {3: 0, 2: 1, 0: 2}[frame[1] >> 3 & 3]


def _ogg_rate(head: bytes) -> int | None:
    """Of Vorbis (Vorbis I, 4.2.2) and Opus (RFC 7845, 5.1; other rates than these become 48 kHz somewhere) in Ogg."""
    if head[:4] != b"OggS" or len(head) < 64:
        return None
    packet = head[27 + head[26] :][:32]
    if packet[:7] == b"\1vorbis":
        return int.from_bytes(packet[12:16], "little")
    if packet[:8] == b"OpusHead":
        rate = int.from_bytes(packet[12:16], "little")
        return rate if rate in (8_000, 12_000, 16_000, 24_000, 48_000) else None
    return None


def _flac(read: ReadAt, size: int) -> ClipLength:
    head = read(0, _HEAD_BYTES)
    if after_id3(memoryview(head)) + 64 > len(head):
        head = read(0, _LARGE_HEAD_BYTES)
    flac = flac_header(head, size)
    if flac is None:
        return _by_libsndfile(read, size, "flac")
    if not flac.frames:
        return _decoded(read, size, "flac")
    return ClipLength(flac.frames, flac.sample_rate, False)


def _wav(read: ReadAt, size: int) -> ClipLength:
    head = read(0, _HEAD_BYTES)
    try:
        wav = wav_header(head, size)
    except SampleError:
        if len(head) == size:
            raise
        wav = wav_header(read(0, _LARGE_HEAD_BYTES), size)
    if wav is None or not wav.is_pcm16:
        return _by_libsndfile(read, size, "wav")
    claimed = 8 + int.from_bytes(head[4:8], "little")
    behind = read(claimed + claimed % 2, 12) if claimed + 12 <= size else b""
    return ClipLength(wav.frames, wav.sample_rate, False, behind[:4] == b"RIFF" and behind[8:] == b"WAVE")


def _mp3(read: ReadAt, size: int) -> ClipLength:
    head = read(0, _HEAD_BYTES)
    if start := after_id3(memoryview(head)):
        head = read(start, _HEAD_BYTES)
    if not mp3_says_its_length(head):
        return _decoded(read, size, "mp3")
    return _by_libsndfile(read, size, "mp3")._replace(is_glued=goes_on_behind_mp3(read, size))


def goes_on_behind_mp3(read: ReadAt, size: int) -> bool:
    """Whether there are more frames behind those that the Xing header of an MP3 counts, which are all that is read."""
    head = read(0, _HEAD_BYTES)
    start = after_id3(memoryview(head))
    head = read(start, _HEAD_BYTES) if start else head
    if not mp3_says_its_length(head):
        return False
    frame = first_mp3_frame(head)
    tag = max(frame.find(b"Xing", 0, 64), frame.find(b"Info", 0, 64))
    if not frame[tag + 7] & 2:  # it does not say in how many bytes
        return False
    behind = start + len(head) - len(frame) + int.from_bytes(frame[tag + 12 : tag + 16], "big")
    if behind + 1500 > size:  # some count all frames but that of the header
        return False
    behind += after_id3(memoryview(read(behind, 10)))
    more = read(behind, _HEAD_BYTES)
    length = _mp3_frame_bytes(more)
    return length > 0 and _mp3_frame_bytes(more[length:]) > 0


_MP3_KBITS = (8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MP3_KBITS_OF_MPEG_1 = (32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)


def _mp3_frame_bytes(head: bytes) -> int:
    """Of the frame that begins there; 0: none does."""
    if first_mp3_frame(head[:5]) != head[:5] or (rate := _mp3_rate(head)) is None:
        return 0
    is_mpeg_1 = head[1] >> 3 & 3 == 3
    kbits = (_MP3_KBITS_OF_MPEG_1 if is_mpeg_1 else _MP3_KBITS)[(head[2] >> 4) - 1]
    return (144_000 if is_mpeg_1 else 72_000) * kbits // rate + (head[2] >> 1 & 1)


def _decoded(read: ReadAt, size: int, codec: str) -> ClipLength:
    if size > MAX_DECODED_BYTES:
        raise SampleError(
            f"no header tells the length of this {codec}, and {size} bytes are too many to decode for it",
            reason="too_large",
        )
    frames = sample_rate = 0
    for block, sample_rate in blocks_of_unknown_length(read(0, size), codec):  # noqa: B007  # every block says it
        frames += len(block)
        if frames > MAX_DECODED_FRAMES:
            raise SampleError(f"{codec} of {size} bytes decodes to more than {frames} frames", reason="too_large")
    return ClipLength(frames, sample_rate, True)


def _by_libsndfile(read: ReadAt, size: int, codec: str) -> ClipLength:
    import soundfile

    try:
        with soundfile.SoundFile(io.BufferedReader(ReadAtFile(read, size), 1 << 16)) as sound:
            length = ClipLength(int(sound.frames), int(sound.samplerate), False)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = libsndfile_reason(error)
        raise SampleError(f"{codec} of {size} bytes cannot be decoded: {reason}", reason="decode") from None
    if length.frames == _END_NOT_FOUND and size <= MAX_DECODED_BYTES:
        first = (data := read(0, size))[: end_of_first(data)]
        return length if len(first) == len(data) else length_in(first, codec)._replace(is_glued=True)
    return length


class ReadAtFile(io.RawIOBase):
    """Bytes as a file, for those who want one; only what is asked for is read."""

    def __init__(self, read: ReadAt, size: int) -> None:
        self._read, self._size, self._position = read, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Buffer, /) -> int:
        target = memoryview(buffer).cast("B")
        wanted = min(len(target), max(self._size - self._position, 0))
        data = self._read(self._position, wanted) if wanted else b""
        target[: len(data)] = data
        self._position += len(data)
        return len(data)
