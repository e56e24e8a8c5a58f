"""How much sound a clip may become: a few bytes that claim days, or are, are refused before they fill memory."""

from __future__ import annotations

from s3prl_stream.errors import SampleError

MAX_SAMPLE_RATE = 768_000

ANY_CLIP_VALUES = 1 << 27
"""Samples (of all channels) that any clip may have: 2.3 h of one channel at 16 kHz, 256 MB of int16."""
MAX_VALUES_PER_BYTE = 256
"""Of a longer one. Speech in Opus of 6 kbit/s has 64 at 48 kHz; digital silence in FLAC up to 6500."""
MAX_STRETCH = 16
"""By which resampling may lengthen a longer one: from 1 kHz to 16 kHz."""


def refuse_bomb(num_values: int, num_bytes: int, codec: str) -> None:
    """Raises SampleError(reason="too_large") where so many bytes would become an unlikely amount of sound.

    Args:
        num_values: samples of all channels that would be held at once.
        num_bytes: of the whole clip.
        codec: for the message.
    """
    if num_values > max(ANY_CLIP_VALUES, num_bytes * MAX_VALUES_PER_BYTE):
        raise SampleError(
            f"{codec} of {num_bytes} bytes would become {num_values} samples: refused", reason="too_large"
        )


def check_resampling(num_frames: int, sample_rate: int, wanted_rate: int) -> None:
    """Raises SampleError where a header's sample rate (Hz) makes resampling absurd: reason "decode" of no possible
    rate, "too_large" of one that would make days of a small file."""
    if not 0 < sample_rate <= MAX_SAMPLE_RATE:
        raise SampleError(f"the audio claims a sample rate of {sample_rate} Hz: impossible", reason="decode")
    after = num_frames * wanted_rate // sample_rate
    if after > max(ANY_CLIP_VALUES, num_frames * MAX_STRETCH):
        raise SampleError(
            f"{num_frames} frames at {sample_rate} Hz would become {after} at {wanted_rate} Hz: refused",
            reason="too_large",
        )
