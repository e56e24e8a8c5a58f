"""Encoded bytes, a file or an array -> one channel at one sample rate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.arguments import one_of, rate_or_none, whole_number
from s3prl_stream.audio.bounds import check_resampling
from s3prl_stream.audio.decode import decode
from s3prl_stream.audio.lengths import length_in
from s3prl_stream.batch_memory import Row
from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.effects import apply_effects, check_effects, keeps_length, needs_rng, stretch_of
from s3prl_stream.pipes.outline import Outline
from s3prl_stream.pipes.recording import AUDIO_KEYS, array_of, bytes_of, file_of, rate_of
from s3prl_stream.pipes.segments import cut_segments
from s3prl_stream.pipes.sox_effects import CUTTING, REORDERING, scaled_segments
from s3prl_stream.pipes.stage import Samples, Source, Stage, root_of
from s3prl_stream.sample import UNCUTTABLE_KEYS, Sample
from s3prl_stream.shards.npy import FRAMES_PER_SECOND

INT16_SCALE = np.float32(1 / 32768)
START_KEYS, END_KEYS = ("start_sec", "start_seconds"), ("end_sec", "end_seconds")

SNAP_SECONDS = 0.01
"""A segment that ends this little behind the end of its file ends there: tables of segments round."""


class Stretch(NamedTuple):
    """Which frames of a recording a sample is, at the recording's own rate."""

    first: int
    num_frames: int | None
    """None: to the end."""


@chained(
    "load_audio",
    aliases={"audio_sample_rate": "sample_rate", "audio_channel_reduction": "channel"},
    key_names={
        "wav_path_name": "wav_path",
        "wav_name": "wav",
        "start_sec_name": "start_sec",
        "end_sec_name": "end_sec",
    },
)
class LoadAudio(Stage):
    """Decode each sample's audio: only the frames of its stretch.

    In:     audio (bytes) with codec, first_frame, num_frames; or wav_path; or wav [T] or [T, channels] (int16, or
            floats in [-1, 1]) as it is; start_sec, end_sec if crop_segment; segments, if there are.
    Out:    wav [T] float32 in [-1, 1) or int16; sample_rate (Hz). 1 -> 1. `audio` and `codec` go; `segments` are
            those of the stretch, from its beginning (`cut_segments`).
    Random: none, but for the effect "dither", by identity.

    In this order: the stretch is decoded, one channel taken, the effects applied at the file's own rate, resampled.

    Args:
        sample_rate: Hz; another rate is resampled by soxr (HQ). None: as it is.
        dtype: "float32", or "int16": half the bytes between processes and to the GPU.
        channel: "first", "mean" or a number from 0.
        sox_effects: effects in sox's spelling, such as [["gain", "-3.0"]], see `effects.apply_effects`.
        crop_segment: load only start_sec to end_sec (or start_seconds, end_seconds) of the recording, at its own rate;
            one that a sample lacks is the beginning or the end. False: all of it, whatever these keys say.

    Raises:
        UsageError: an argument out of range, at construction; later, a wav of another type or shape.
        ChainError: nothing before provides audio, at construction.
        SampleError: reason "decode", "read", "channel", "range" (a segment outside of its recording) or "too_large" (a
            few bytes that would become days of sound); costs that sample alone.
    """

    removes = frozenset({"audio", "codec", "num_frames", "clip_frames", "decode_into"})

    def __init__(
        self,
        source: Samples | None = None,
        *,
        sample_rate: int | None = 16_000,
        dtype: str = "float32",
        channel: str | int = "first",
        sox_effects: Sequence[Sequence[str | float]] | None = None,
        crop_segment: bool = False,
    ) -> None:
        if isinstance(channel, str) and channel not in ("first", "mean"):
            raise UsageError(f'load_audio: channel={channel!r} must be "first", "mean" or a number from 0')
        if not isinstance(crop_segment, bool):
            raise UsageError(f"load_audio: crop_segment {crop_segment!r} must be True or False")
        if sox_effects is not None:
            check_effects(sox_effects)
            names = {str(effect[0]) for effect in sox_effects}
            lost = ("segments", *UNCUTTABLE_KEYS) if names & CUTTING else ("segments",) if names & REORDERING else ()
            self.removes = self.removes | {*lost}
            self.stretch = max(1.0, stretch_of(sox_effects))
        self.sample_rate = rate_or_none("load_audio", sample_rate)
        self.dtype = one_of("load_audio", "dtype", dtype, ("float32", "int16"))
        self.channel = channel if isinstance(channel, str) else whole_number("load_audio", "channel", channel, least=0)
        self._sox_effects = None if sox_effects is None else [list(effect) for effect in sox_effects]
        self.crop_segment = crop_segment
        self.provides = {"wav": f"{dtype} [T]", "sample_rate": "any"}
        super().__init__(source)

    def check_chain(self, source: Source) -> None:
        known = source.known_keys()
        wanted = [self.names.get(key, key) for key in AUDIO_KEYS]
        if known is not None and FRAMES_PER_SECOND in known:
            raise ChainError(
                "LoadAudio: this set holds features, which .load_feat() reads; give the set of audio that they are of."
            )
        if known is not None and not any(key in known for key in wanted):
            raise ChainError(
                f"LoadAudio takes {' or '.join(map(repr, wanted))}, which nothing before it provides. "
                f"{type(source).__name__} gives: {', '.join(sorted(known))}."
            )
        if self.crop_segment and root_of(source).splits:
            raise ChainError(
                "LoadAudio(crop_segment=True) cuts by seconds what the stream cuts already (chunk_seconds, "
                "crop_seconds): leave out one of them."
            )

    def emit(self, sample: Sample) -> Iterator[Sample]:
        row: Row | None = sample.get("decode_into")
        wav, rate, stretch = self._frames(sample, None if row is None else row.array)
        loaded = dict(sample)
        for name in self.removes:
            loaded.pop(name, None)
        if sample.get("segments") is not None and (stretch.first or stretch.num_frames is not None):
            loaded.update(cut_segments(sample, stretch.first / rate, (stretch.first + len(wav)) / rate))
        mono = _one_channel(wav, self.channel, str(sample["key"]))
        if self._sox_effects is not None:
            rng = self.rng(sample) if needs_rng(self._sox_effects) else None
            mono, rate = apply_effects(_as_floats(mono), rate, self._sox_effects, rng)
            if loaded.get("segments") is not None:
                loaded["segments"] = scaled_segments(loaded, stretch_of(self._sox_effects))
        if self.sample_rate is not None and rate != self.sample_rate:
            mono, rate = _resample(mono, rate, self.sample_rate), self.sample_rate
        loaded["wav"] = _as_tensor(mono, self.dtype, row)
        loaded["sample_rate"] = rate
        yield loaded

    def outline(self, before: Outline) -> list[Outline]:
        """The stretch, at the rate that comes out."""
        if not keeps_length(self._sox_effects or []):
            raise TypeError(f"what LoadAudio makes of a waveform by {self._sox_effects} is not known beforehand")
        frames = before.num_frames
        if self.crop_segment:
            stretch = _segment_of(before.sample, frames, before.sample_rate)
            frames = frames - stretch.first if stretch.num_frames is None else stretch.num_frames
        rate = before.sample_rate if self.sample_rate is None else self.sample_rate
        return [Outline(before.sample, int(frames * rate / before.sample_rate + 0.5), rate)]

    def _frames(self, sample: Sample, out: npt.NDArray[Any] | None) -> tuple[npt.NDArray[Any], int, Stretch]:
        """([frames, channels] int16 or float32, sample rate, which part of the recording it is)."""
        stretch = Stretch(sample.get("first_frame", 0), sample.get("num_frames"))
        if self.crop_segment and (stretch.first or stretch.num_frames != sample.get("clip_frames")):
            raise UsageError(
                f"load_audio: {sample['key']!r} is longer than a batch, and the plan has split it: with "
                "crop_segment=True its segment would be loaded several times. Raise max_batch_seconds."
            )
        if sample.get("wav") is not None and "audio" not in sample:
            wav, rate = array_of(sample), rate_of(sample)
            if self.crop_segment:
                stretch = _segment_of(sample, len(wav), rate)
            return wav[stretch.first :][: stretch.num_frames], rate, stretch
        data, codec = bytes_of(sample) if "audio" in sample else file_of(sample)
        if self.crop_segment:
            length = length_in(data, codec)
            stretch = _segment_of(sample, length.frames, length.sample_rate)
        wav, rate = decode(
            data,
            codec,
            first_frame=stretch.first,
            num_frames=stretch.num_frames,
            clip_frames=sample.get("clip_frames"),
            out=out,
        )
        return wav, rate, stretch


def _segment_of(sample: Sample, num_frames: int, rate: int) -> Stretch:
    """start_sec to end_sec of a recording, in frames at its own rate (rounded to the nearest)."""
    start, end = (
        next((sample[key] for key in keys if sample.get(key) is not None), None) for keys in (START_KEYS, END_KEYS)
    )
    if start is None and end is None:
        return Stretch(0, None)
    try:
        first = 0 if start is None else round(float(start) * rate)
        stop = num_frames if end is None else round(float(end) * rate)
    except (TypeError, ValueError, OverflowError):  # a text, or what is not finite
        raise SampleError(
            f"{sample['key']}: the segment from {start!r} to {end!r} is not told in seconds", reason="range"
        ) from None
    if num_frames < stop <= num_frames + SNAP_SECONDS * rate:
        stop = num_frames
    if not 0 <= first <= stop <= num_frames:
        raise SampleError(
            f"{sample['key']}: the segment from {start} to {end} s does not lie in its recording, which has "
            f"{num_frames / rate:.3f} s",
            reason="range",
        )
    return Stretch(first, stop - first)


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


def _as_floats(wav: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if wav.dtype == np.int16:
        floats: npt.NDArray[np.float32] = np.multiply(wav, INT16_SCALE, dtype=np.float32)
        return floats
    return np.ascontiguousarray(wav, dtype=np.float32)


def _resample(wav: npt.NDArray[Any], rate: int, sample_rate: int) -> npt.NDArray[Any]:
    import soxr

    check_resampling(len(wav), rate, sample_rate)
    # as floats: soxr dithers its 16-bit output with a seed from the clock
    resampled: npt.NDArray[Any] = soxr.resample(_as_floats(wav), rate, sample_rate, quality="HQ")
    return resampled


def _as_tensor(wav: npt.NDArray[Any], dtype: str, row: Row | None) -> torch.Tensor:
    """Contiguous and writable. In the batch's row if there is one and it fits, so that collation need not copy."""
    if row is None or len(wav) != len(row.array):  # resampled, for one
        array = np.empty(len(wav), dtype=dtype)
        row = Row(torch.from_numpy(array), array)
    target = row.array
    if wav.dtype == np.int16 and dtype == "float32":
        target[:] = (
            wav  # two passes: in one, numpy would convert through a small buffer, which costs half as much again
        )
        target *= INT16_SCALE
    elif wav.dtype != np.int16 and dtype == "int16":
        target[:] = np.clip(np.rint(wav * 32768.0), -32768, 32767)
    elif not np.may_share_memory(wav, target):
        target[:] = wav
    return row.tensor
