"""int16 samples -> encoded bytes of one clip, the same for the same libsndfile."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import UsageError

ENCODERS = ("flac", "wav")


def check_codec(codec: str) -> None:
    """Raises UsageError unless `encode` knows the codec."""
    if codec not in ENCODERS:
        raise UsageError(f"codec {codec!r} cannot be written: choose one of {', '.join(ENCODERS)}")


def encode(wav: npt.NDArray[np.int16], sample_rate: int, codec: str) -> bytes:
    """Encode one channel without loss.

    Args:
        wav: [T] int16.
        sample_rate: Hz.
        codec: "flac" or "wav" (16 bits both).

    Raises:
        UsageError: unknown codec.
    """
    check_codec(codec)
    import soundfile

    encoded = io.BytesIO()
    soundfile.write(encoded, wav, sample_rate, format=codec.upper(), subtype="PCM_16")
    return encoded.getvalue()
