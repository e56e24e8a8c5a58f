"""To a frame of a file in libsndfile, so that what is read there is what would have come from the beginning."""

from __future__ import annotations

import io
from typing import Any

from s3prl_stream.audio.glued import OGG_PAGE, OGG_PAGE_BYTES, Content

_LEAD_SECONDS = {"OPUS": 10, "MPEG_LAYER_III": 1}
"""Decoded before a stretch and left out, for what no seek restores. Opus has a state: after 4 s of speech no bit
differed any more; of steady tones some do after 20 s too, so only in the first 10 s it is always that of the whole. A
frame of an MP3 takes up to 511 bytes of those before it, half a second at the lowest bit rate; without them a stretch
begins with a click. What is left of an MP3 is a rounding."""

_GRANULE = slice(6, 14)
_BLOCK_FRAMES = 1 << 16


def open_sound(file: io.BytesIO | int) -> Any:
    """A `soundfile.SoundFile` of bytes or of a descriptor, which stays open, whose reads go on where the last ended.

    soundfile itself would seek there after each of them, and the last samples of an Opus stream are others then.
    """
    import soundfile

    sound: Any = soundfile.SoundFile(file, closefd=False)
    sound.seekable = lambda: False
    return sound


def seek(sound: Any, frame: int, content: Content) -> None:
    """Go to a frame of an open `soundfile.SoundFile` (or what stands for one), of which these are the bytes.

    The last page of a Vorbis stream holds more samples than it says, to be cut off at its end. libsndfile counts back
    from there when it seeks into it, and gives samples some milliseconds later than those it was asked for. So that
    page is entered from the one before.
    """
    at = max(frame - _LEAD_SECONDS.get(sound.subtype, 0) * int(sound.samplerate), 0)
    if sound.subtype == "VORBIS":
        at = min(frame, max(_start_of_last_page(content) - 1, 0))
    if at:  # Opus is not as at its beginning after a seek to it
        sound.seek(at)
    while at < frame and (passed := len(sound.read(min(frame - at, _BLOCK_FRAMES), dtype="float32", always_2d=True))):
        at += passed


def _start_of_last_page(content: Content) -> int:
    """The frame with which the page before ended."""
    tail = bytes(content[max(0, len(content) - 2 * OGG_PAGE_BYTES) :])
    before = tail[max(tail.rfind(OGG_PAGE, 0, max(tail.rfind(OGG_PAGE), 0)), 0) :]
    return int.from_bytes(before[_GRANULE], "little", signed=True)
