"""What a sample may have of its recording: encoded bytes, a file, or a waveform that is there already."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.kinds import told
from s3prl_stream.sample import Sample

AUDIO_KEYS = ("audio", "wav", "wav_path", "audio_path")
"""Where it is."""


def file_of(sample: Sample) -> tuple[bytes, str]:
    """(the bytes of a sample's file, its codec)."""
    given = next((sample[name] for name in ("wav_path", "audio_path") if sample.get(name) is not None), None)
    if given is None:
        raise UsageError(f"load_audio: sample {sample['key']!r} has neither audio bytes nor wav_path nor wav")
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"load_audio: sample {sample['key']!r} has {told(given)} as 'wav_path'; expected a path")
    path = Path(given)
    try:
        return path.read_bytes(), path.suffix[1:].lower()
    except OSError as error:
        raise SampleError(f"{given}: cannot be read: {error.strerror}", reason="read") from None


def bytes_of(sample: Sample) -> tuple[bytes | memoryview, str]:
    """(the bytes that a sample has, their codec)."""
    data, codec = sample["audio"], sample.get("codec")
    data = bytes(data) if isinstance(data, bytearray) else data
    if not isinstance(data, bytes | memoryview) or not isinstance(codec, str):
        hint = ""
        if isinstance(data, Mapping):  # the column of a Hugging Face data set
            hint = ' Of {"array", "sampling_rate"} give the array as "wav", the other as "sample_rate".'
        elif isinstance(data, str | Path):
            hint = ' Call a path "wav_path".'
        raise UsageError(
            f"load_audio: sample {sample['key']!r} has {told(data)} as 'audio' and {codec!r} as 'codec'; expected the "
            f'bytes of a file, and what they are, such as "flac".{hint}'
        )
    return data, codec


def rate_of(sample: Sample) -> int:
    """The sample rate of a waveform that is there already; 16 kHz where none is told."""
    found = sample.get("sample_rate", 16_000)
    try:
        rate = int(found)
    except (TypeError, ValueError, OverflowError):
        rate = 0
    if rate <= 0:
        raise UsageError(f"load_audio: sample {sample['key']!r} has the sample_rate {found!r}; expected Hz > 0")
    return rate


def array_of(sample: Sample) -> npt.NDArray[Any]:
    """The waveform that a sample has already: [frames, channels] int16 or float32."""
    wav = np.asarray(sample["wav"])
    if wav.ndim not in (1, 2) or (wav.dtype != np.int16 and wav.dtype.kind != "f"):
        hint = 'Call a path "wav_path".' if wav.dtype.kind in "US" else "Scale other integers to floats."
        raise UsageError(
            f"load_audio: sample {sample['key']!r} has {told(wav)} as 'wav'; expected int16, or floats in [-1, 1], [T] "
            f"or [T, channels]. {hint}"
        )
    if wav.ndim == 2 and 0 < wav.shape[0] < wav.shape[1]:
        raise UsageError(
            f"load_audio: sample {sample['key']!r} has {told(wav)} as 'wav', which would be {wav.shape[1]} channels of "
            f"{wav.shape[0]} samples; expected [T] or [T, channels]. Of torchaudio's [channels, T] give wav.T."
        )
    wav = wav[:, None] if wav.ndim == 1 else wav
    return wav if wav.dtype == np.int16 else wav.astype(np.float32, copy=False)
