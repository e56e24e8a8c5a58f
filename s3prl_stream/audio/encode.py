"""int16 samples -> encoded bytes of one clip, the same for the same libsndfile."""

from __future__ import annotations

import io

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.ogg import with_fixed_serial
from s3prl_stream.errors import UsageError

ENCODERS = ("flac", "wav", "opus")

OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
"""Hz that Opus knows (RFC 6716)."""

_ANY_FLAC_RATE = 65_535
"""Up to here FLAC knows every rate (Hz), and beyond it multiples of 10 (RFC 9639, 9.1.2)."""


def check_codec(codec: str, sample_rate: int | None = None) -> None:
    """Raises UsageError unless `encode` knows the codec, and the codec the rate (Hz)."""
    if codec not in ENCODERS:
        raise UsageError(f"codec {codec!r} cannot be written: choose one of {', '.join(ENCODERS)}")
    if codec == "opus" and sample_rate not in (None, *OPUS_RATES):
        known = ", ".join(map(str, OPUS_RATES))
        raise UsageError(f"codec 'opus' cannot be written at {sample_rate} Hz: choose one of {known}, or codec='flac'.")
    if codec == "flac" and sample_rate is not None and sample_rate > _ANY_FLAC_RATE and sample_rate % 10:
        raise UsageError(
            f"codec 'flac' cannot be written at {sample_rate} Hz: above {_ANY_FLAC_RATE} Hz choose a multiple of 10, "
            "or codec='wav'."
        )


def encode(wav: npt.NDArray[np.int16], sample_rate: int, codec: str) -> bytes:
    """Encode one channel.

    Args:
        wav: [T] int16.
        sample_rate: Hz.
        codec: "flac" or "wav" (16 bits, without loss), or "opus" (in Ogg, at libsndfile's own bit rate: about 27 kbit/s
            for speech at 16 kHz). Opus keeps length and alignment to the sample: its delay is in its header, and
            decoders take it off.

    Raises:
        UsageError: unknown codec, or a rate that Opus or FLAC does not know.
    """
    check_codec(codec, sample_rate)
    import soundfile

    encoded = io.BytesIO()
    if codec == "opus":
        soundfile.write(encoded, wav, sample_rate, format="OGG", subtype="OPUS")
        return with_fixed_serial(encoded.getvalue())
    soundfile.write(encoded, wav, sample_rate, format=codec.upper(), subtype="PCM_16")
    return encoded.getvalue()
