"""An MP3 that does not say how long it is, read like any other source file.

libsndfile would guess the length from the bit rate of the first frame, and stop there: of a recording that begins
loudly, three quarters may be missing. So it is decoded once to count its frames, and again to read them.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.decode import blocks_of_unknown_length, mp3_says_its_length
from s3prl_stream.audio.headers import after_id3
from s3prl_stream.audio.lengths import length_in

_HEAD_BYTES = 4096
_ID3_HEADER_BYTES = 10


def is_uncounted(path: str) -> bool:
    """True of an MP3 whose first frame is no Xing header with a count of frames."""
    with open(path, "rb", buffering=0) as file:
        file.seek(after_id3(memoryview(file.read(_ID3_HEADER_BYTES))))
        return not mp3_says_its_length(file.read(_HEAD_BYTES))


class UncountedMp3:
    """As much of a `soundfile.SoundFile` as reading a source file needs.

    Args:
        path: of the file, which is held in memory as it is, and decoded in blocks.

    Raises:
        SampleError: reason "empty", "decode" or "too_large" (see `lengths.clip_length`).
    """

    format, subtype = "MP3", "MPEG_LAYER_III"

    def __init__(self, path: str) -> None:
        self._data = Path(path).read_bytes()
        length = length_in(self._data, "mp3")
        self.frames, self.samplerate = length.frames, length.sample_rate
        self._blocks = self._decoded()
        self._rest = next(self._blocks)
        self.channels = self._rest.shape[1]

    def seek(self, frame: int) -> None:
        """The next `read` begins at this frame."""
        self._blocks = self._decoded()
        self._rest = next(self._blocks)
        while frame > len(self._rest):
            frame -= len(self._rest)
            self._rest = next(self._blocks)
        self._rest = self._rest[frame:]

    def read(self, frames: int, dtype: str, always_2d: bool) -> npt.NDArray[np.float32]:  # noqa: ARG002
        """[<= frames, channels] float32, of which none are left at the end of the file."""
        if not len(self._rest):
            self._rest = next(self._blocks, self._rest)
        block, self._rest = self._rest[:frames], self._rest[frames:]
        values: npt.NDArray[np.float32] = block.astype(np.float32) / np.float32(32768.0)
        return values

    def _decoded(self) -> Iterator[npt.NDArray[Any]]:
        return (block for block, _ in blocks_of_unknown_length(self._data, "mp3"))
