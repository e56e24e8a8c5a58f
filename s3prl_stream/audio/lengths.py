"""How long an encoded clip is, from as few of its bytes as it takes: exactly as many frames as decoding will give.

FLAC and WAV say it in their first bytes (`headers.py`). For the rest libsndfile opens a file that reads only what it
is asked for: Vorbis and Opus cost their first and last pages, MP3 the frame with its Xing header. What no header
tells (MP3 without one, FLAC that was written to a pipe) is decoded.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from s3prl_stream.audio.decode import blocks_of_unknown_length, libsndfile_reason, mp3_says_its_length
from s3prl_stream.audio.headers import after_id3, flac_header, wav_header
from s3prl_stream.errors import SampleError

if TYPE_CHECKING:
    from typing_extensions import Buffer

ReadAt = Callable[[int, int], bytes]
"""(offset, size) -> that many bytes of the clip, fewer where it ends."""

MAX_SAMPLE_RATE = 768_000
MAX_FRAMES_PER_BYTE = 8192
"""Of any codec here: a Vorbis packet of one byte, in the longest block. More is a lie."""

MAX_DECODED_BYTES = 256 << 20
"""Of a clip whose length no header tells: more is refused."""
MAX_DECODED_FRAMES = 1 << 31
"""37 hours at 16 kHz."""

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


def clip_length(read: ReadAt, size: int, codec: str) -> ClipLength:
    """The length of one encoded clip.

    Args:
        read: from the clip.
        size: its bytes.
        codec: its file extension: flac, wav, ogg, opus or mp3.

    Raises:
        SampleError: reason "empty" (no bytes or no frames) or "decode" (a header that is damaged or impossible).
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
    if length.frames <= 0:
        raise SampleError("the audio holds no frames", reason="empty")
    if not 0 < length.sample_rate <= MAX_SAMPLE_RATE or length.frames > size * MAX_FRAMES_PER_BYTE:
        raise SampleError(
            f"{codec} of {size} bytes claims {length.frames} frames at {length.sample_rate} Hz: impossible",
            reason="decode",
        )
    return length


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
    return ClipLength(wav.frames, wav.sample_rate, False)


def _mp3(read: ReadAt, size: int) -> ClipLength:
    head = read(0, _HEAD_BYTES)
    if start := after_id3(memoryview(head)):
        head = read(start, _HEAD_BYTES)
    if not mp3_says_its_length(head):
        return _decoded(read, size, "mp3")
    return _by_libsndfile(read, size, "mp3")


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
        with soundfile.SoundFile(io.BufferedReader(_Clip(read, size), 1 << 16)) as sound:
            return ClipLength(int(sound.frames), int(sound.samplerate), False)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as error:
        reason = libsndfile_reason(error)
        raise SampleError(f"{codec} of {size} bytes cannot be decoded: {reason}", reason="decode") from None


class _Clip(io.RawIOBase):
    """A clip as a file for libsndfile; only what is asked for is read."""

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
