"""Encoded bytes of one clip -> int16 samples.

WAV (16-bit PCM) is a view of the buffer, whole FLACs go through dr_flac (the fastest found), everything else and
parts of FLACs through libsndfile, which seeks, so only the wanted frames are decoded. Whatever the library, missing
frames are an error here: dr_flac and libsndfile may both return fewer than the header says without a word.
"""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.headers import FlacHeader, WavHeader, flac_header, wav_header
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.shards.layout import CODECS

_BLOCK_FRAMES = 1 << 20
_INTEGER_SUBTYPES = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32"})


def decode_int16(
    data: bytes | memoryview, codec: str, *, first_frame: int = 0, num_frames: int | None = None
) -> tuple[npt.NDArray[np.int16], int]:
    """Decode a clip or a stretch of it.

    Args:
        data: the encoded bytes, as they lie in a shard.
        codec: one of `layout.CODECS` (the file extension).
        first_frame: where the stretch begins (samples per channel).
        num_frames: its length; None: to the end.

    Returns:
        ([frames, channels] int16, sample rate in Hz). The array may be a read-only view of `data`. Deeper integers
        lose their lower bits (floor); floats are scaled by 32768, rounded half to even and clipped.

    Raises:
        SampleError(reason="decode"): the bytes cannot be decoded, or fewer frames came than the header or the caller
            promised.
        UsageError: unknown codec, or a negative stretch.
    """
    if codec not in CODECS:
        raise UsageError(f"codec {codec!r} is unknown: it is one of {', '.join(CODECS)}")
    if first_frame < 0 or (num_frames is not None and num_frames < 0):
        raise UsageError(f"frames {first_frame} + {num_frames} are no stretch of a clip: both must be 0 or more")
    if codec == "wav" and (wav := wav_header(data)) is not None:
        stop = _stop_frame(wav.frames, first_frame, num_frames)
        if wav.is_pcm16:
            return _wav_frames(data, wav, first_frame, stop), wav.sample_rate
    if codec == "flac" and (flac := flac_header(data)) is not None and flac.frames:
        stop = _stop_frame(flac.frames, first_frame, num_frames)
        if (first_frame, stop) == (0, flac.frames):
            return _whole_flac(data, flac), flac.sample_rate
    return _by_libsndfile(data, codec, first_frame, num_frames)


def float_to_int16(wav: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int16]:
    """Any shape, floats in [-1, 1) -> int16: scaled by 32768, rounded half to even, clipped. Overwrites nothing."""
    scaled = np.clip(np.rint(wav * 32768.0), -32768, 32767)
    return scaled.astype(np.int16)


def _stop_frame(frames: int, first_frame: int, num_frames: int | None) -> int:
    stop = frames if num_frames is None else first_frame + num_frames
    if max(first_frame, stop) > frames:
        raise SampleError(f"the clip holds {frames} frames, wanted {first_frame} to {stop}", reason="decode")
    return stop


def _wav_frames(data: bytes | memoryview, wav: WavHeader, first_frame: int, stop: int) -> npt.NDArray[np.int16]:
    offset = wav.data_offset + first_frame * 2 * wav.channels
    values = np.frombuffer(data, dtype="<i2", count=(stop - first_frame) * wav.channels, offset=offset)
    return values.reshape(-1, wav.channels).astype(np.int16, copy=False)


def _whole_flac(data: bytes | memoryview, flac: FlacHeader) -> npt.NDArray[np.int16]:
    import miniaudio

    try:
        decoded = miniaudio.flac_read_s16(miniaudio.ffi.from_buffer(data))
    except miniaudio.MiniaudioError as error:
        raise SampleError(f"FLAC of {len(data)} bytes cannot be decoded: {error}", reason="decode") from None
    values = np.frombuffer(decoded.samples, dtype=np.int16)
    if decoded.nchannels != flac.channels or len(values) != flac.frames * flac.channels:
        found = len(values) // max(decoded.nchannels, 1)
        raise SampleError(f"FLAC decodes to {found} of {flac.frames} frames: damaged or cut", reason="decode")
    return values.reshape(-1, flac.channels)


def _by_libsndfile(
    data: bytes | memoryview, codec: str, first_frame: int, num_frames: int | None
) -> tuple[npt.NDArray[np.int16], int]:
    import soundfile

    try:
        with soundfile.SoundFile(io.BytesIO(data)) as sound:
            stop = _stop_frame(sound.frames, first_frame, num_frames)
            return read_frames_int16(sound, first_frame, stop), int(sound.samplerate)
    except (soundfile.SoundFileError, RuntimeError, TypeError, ValueError) as error:
        raise SampleError(f"{codec} of {len(data)} bytes cannot be decoded: {error}", reason="decode") from None


def read_frames_int16(sound: Any, first_frame: int, stop: int) -> npt.NDArray[np.int16]:
    """Frames [first_frame, stop) of an open `soundfile.SoundFile` -> [frames, channels] int16, as in `decode_int16`.

    Raises:
        SampleError(reason="decode"): the file ends before `stop`. libsndfile's own errors pass through.
    """
    if sound.subtype in _INTEGER_SUBTYPES:
        return read_frames(sound, first_frame, stop, "int16")
    # libsndfile would round floats in [-1, 1) to -1, 0 or 1.
    return float_to_int16(read_frames(sound, first_frame, stop, "float32"))


def read_frames(sound: Any, first_frame: int, stop: int, dtype: str) -> npt.NDArray[Any]:
    """Frames [first_frame, stop) of an open `soundfile.SoundFile` -> [frames, channels] of `dtype`.

    Read in blocks: a header's word alone allocates nothing.

    Raises:
        SampleError(reason="decode"): the file ends before `stop`. libsndfile's own errors pass through.
    """
    blocks: list[npt.NDArray[Any]] = []
    if first_frame and stop > first_frame:
        sound.seek(first_frame)
    position = first_frame
    while position < stop:
        block = sound.read(min(stop - position, _BLOCK_FRAMES), dtype=dtype, always_2d=True)
        if not len(block):
            raise SampleError(
                f"decoded {position - first_frame} of {stop - first_frame} frames: damaged or cut", reason="decode"
            )
        blocks.append(block)
        position += len(block)
    if not blocks:
        return np.zeros((0, sound.channels), dtype=dtype)
    return blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
