"""Encoded bytes, a file or an array -> one channel at one sample rate."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes.stage import Samples, Stage, chained
from s3prl_stream.sample import Sample

INT16_SCALE = np.float32(1 / 32768)


@chained("load_audio", aliases={"audio_sample_rate": "sample_rate", "audio_channel_reduction": "channel"})
class LoadAudio(Stage):
    """Decode each sample's audio: only the frames of its stretch.

    In:     audio (bytes) with codec, first_frame, num_frames; or wav_path; or wav [T] (int16 or float) as it is.
    Out:    wav [T] float32 in [-1, 1) or int16; sample_rate (Hz). 1 -> 1. `audio` and `codec` go.
    Random: none.

    Args:
        sample_rate: Hz; another rate is resampled by soxr (HQ). None: as it is.
        dtype: "float32", or "int16": half the bytes between processes and to the GPU.
        channel: "first", "mean" or a number from 0.

    Raises:
        UsageError: an argument out of range, at construction.
        SampleError: reason "decode"; costs that sample alone.
    """

    removes = frozenset({"audio", "codec", "num_frames", "decode_into"})

    def __init__(
        self,
        source: Samples | None = None,
        *,
        sample_rate: int | None = 16_000,
        dtype: str = "float32",
        channel: str | int = "first",
    ) -> None:
        if sample_rate is not None and (not isinstance(sample_rate, int) or sample_rate <= 0):
            raise UsageError(f"load_audio: sample_rate {sample_rate!r} must be Hz > 0, or None")
        if dtype not in ("float32", "int16"):
            raise UsageError(f'load_audio: dtype {dtype!r} must be "float32" or "int16"')
        if channel not in ("first", "mean") and (not isinstance(channel, int) or channel < 0):
            raise UsageError(f'load_audio: channel {channel!r} must be "first", "mean" or a number from 0')
        self.sample_rate = sample_rate
        self.dtype = dtype
        self.channel = channel
        self.provides = {"wav": f"{dtype} [T]", "sample_rate": "any"}
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        """One sample with its `wav`."""
        row: torch.Tensor | None = sample.get("decode_into")
        wav, rate = _frames(sample, row.numpy() if row is not None and row.dtype == torch.int16 else None)
        mono = _one_channel(wav, self.channel, str(sample["key"]))
        if self.sample_rate is not None and rate != self.sample_rate:
            mono, rate = _resample(mono, rate, self.sample_rate), self.sample_rate
        kept = {name: value for name, value in sample.items() if name not in self.removes}
        yield {**kept, "wav": _as_tensor(mono, self.dtype, row), "sample_rate": rate}


def _frames(sample: Sample, out: npt.NDArray[np.int16] | None) -> tuple[npt.NDArray[Any], int]:
    """([frames, channels] int16 or float32, sample rate) of the sample's stretch."""
    first, count = sample.get("first_frame", 0), sample.get("num_frames")
    if "audio" in sample:
        from s3prl_stream.audio.decode import decode_int16

        return decode_int16(sample["audio"], sample["codec"], first_frame=first, num_frames=count, out=out)
    if "wav" in sample:
        wav = np.asarray(sample["wav"])
        wav = wav[:, None] if wav.ndim == 1 else wav
        if wav.dtype != np.int16:
            wav = wav.astype(np.float32, copy=False)
        return wav[first:] if count is None else wav[first : first + count], int(sample.get("sample_rate", 16_000))
    path = next((sample[name] for name in ("wav_path", "audio_path") if name in sample), None)
    if path is None:
        raise UsageError(f"load_audio: sample {sample['key']!r} has neither audio bytes nor wav_path nor wav")
    return _from_file(Path(path), first, count)


def _from_file(path: Path, first_frame: int, num_frames: int | None) -> tuple[npt.NDArray[np.int16], int]:
    from s3prl_stream.audio.decode import decode_int16

    try:
        data = path.read_bytes()
    except OSError as error:
        raise SampleError(f"{path}: cannot be read: {error.strerror}", reason="read") from None
    return decode_int16(data, path.suffix[1:].lower(), first_frame=first_frame, num_frames=num_frames)


def _one_channel(wav: npt.NDArray[Any], channel: str | int, key: str) -> npt.NDArray[Any]:
    if channel == "mean" and wav.shape[1] > 1:
        mean = wav.mean(axis=1, dtype=np.float64)
        rounded: npt.NDArray[Any] = (np.rint(mean) if wav.dtype == np.int16 else mean).astype(wav.dtype)
        return rounded
    index = channel if isinstance(channel, int) else 0
    if index >= wav.shape[1]:
        raise SampleError(f"{key}: channel {index} of {wav.shape[1]} channels (from 0)", reason="channel")
    mono: npt.NDArray[Any] = wav[:, index]
    return mono


def _resample(wav: npt.NDArray[Any], rate: int, sample_rate: int) -> npt.NDArray[Any]:
    import soxr

    # as floats: soxr dithers its 16-bit output with a seed from the clock
    floats = np.multiply(wav, INT16_SCALE, dtype=np.float32) if wav.dtype == np.int16 else np.ascontiguousarray(wav)
    resampled: npt.NDArray[Any] = soxr.resample(floats, rate, sample_rate, quality="HQ")
    return resampled


def _as_tensor(wav: npt.NDArray[Any], dtype: str, row: torch.Tensor | None) -> torch.Tensor:
    """Contiguous and writable. In the batch's row if there is one and it fits, so that collation need not copy."""
    if row is None or len(wav) > len(row):
        row = torch.from_numpy(np.empty(len(wav), dtype=dtype))
    row = row[: len(wav)]
    target = row.numpy()
    if wav.dtype == np.int16 and dtype == "float32":
        np.multiply(wav, INT16_SCALE, out=target)
    elif wav.dtype != np.int16 and dtype == "int16":
        target[:] = np.clip(np.rint(wav * 32768.0), -32768, 32767)
    elif not np.may_share_memory(wav, target):
        target[:] = wav
    return row
