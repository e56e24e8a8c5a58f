"""Encoded bytes of one clip -> int16 samples, or float32 where they are wanted so and it costs nothing.

WAV (16-bit PCM) is a view of the buffer, a FLAC of which half or more is wanted goes whole through dr_flac (the fastest
found), everything else through libsndfile, which seeks, so only the wanted frames are decoded. dr_flac could seek too,
but it goes on behind a damaged block as if nothing were missing, and only the count of all frames shows that. Whatever
the library, missing frames are an error here: both may return fewer than the header says without a word.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.bounds import refuse_bomb
from s3prl_stream.audio.glued import end_of_first
from s3prl_stream.audio.headers import FlacHeader, WavHeader, after_id3, flac_header, wav_header
from s3prl_stream.audio.seeking import open_sound, seek
from s3prl_stream.errors import SampleError, UsageError

_BLOCK_VALUES = 1 << 20
_SMALL_BLOCK_FRAMES = 1 << 16
_MP3_SYNC_BYTES = 4096
_INTEGER_SUBTYPES = frozenset({"PCM_S8", "PCM_U8", "PCM_16", "PCM_24", "PCM_32"})


def decode(
    data: bytes | memoryview,
    codec: str,
    *,
    first_frame: int = 0,
    num_frames: int | None = None,
    clip_frames: int | None = None,
    out: npt.NDArray[Any] | None = None,
) -> tuple[npt.NDArray[Any], int]:
    """Decode a clip or a stretch of it.

    Args:
        data: the encoded bytes, as they lie in a shard.
        codec: the file extension: flac, wav, ogg, opus, mp3 or whatever else libsndfile reads.
        first_frame: where the stretch begins (samples per channel).
        num_frames: its length; None: to the end.
        clip_frames: length of the whole clip, as an index has it; None: unknown.
        out: [>= frames] contiguous int16 or float32, where that saves a pass over the audio (a whole FLAC of one
            channel): its beginning becomes the result, or it is left alone. Floats (of 16 bits or fewer) are the int16
            over 32768, to the last bit.

    Returns:
        ([frames, channels], sample rate in Hz): int16 but for a float32 `out` that was used. The array may be a
        read-only view of `data`. Deeper integers lose their lower bits (floor); floats are scaled by 32768, rounded
        half to even and clipped.

    Raises:
        SampleError(reason="decode"): the bytes cannot be decoded, or fewer frames came than the header or the caller
            promised.
        SampleError(reason="differs"): the clip is longer or shorter than `clip_frames`, as far as its header tells; of
            a clip without a length in its header, as far as it is decoded.
        SampleError(reason="too_large"): a few bytes claim to be days of sound, or are (`bounds.refuse_bomb`).
        UsageError: a negative stretch.
    """
    if first_frame < 0 or (num_frames is not None and num_frames < 0):
        raise UsageError(f"frames {first_frame} + {num_frames} are no stretch of a clip: both must be 0 or more")
    if codec == "wav" and (wav := wav_header(data)) is not None and wav.is_pcm16:
        stop = _stop_frame(wav.frames, first_frame, num_frames, clip_frames)
        return _wav_frames(data, wav, first_frame, stop), wav.sample_rate
    if codec == "flac" and (flac := flac_header(data)) is not None:
        if not flac.frames:  # written to a pipe
            return _of_unknown_length(data, codec, first_frame, num_frames, clip_frames)
        stop = _stop_frame(flac.frames, first_frame, num_frames, clip_frames)
        if (first_frame, stop) == (0, flac.frames):
            return _whole_flac(data, flac, out), flac.sample_rate
        if 2 * (stop - first_frame) >= flac.frames:
            return _whole_flac(data, flac, None)[first_frame:stop], flac.sample_rate
    if codec == "mp3" and not mp3_says_its_length(data):
        return _of_unknown_length(data, codec, first_frame, num_frames, clip_frames)
    return _by_libsndfile(data, codec, first_frame, num_frames, clip_frames)


def float_to_int16(wav: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int16]:
    """Any shape, floats in [-1, 1) -> int16: scaled by 32768, rounded half to even, clipped. Overwrites nothing."""
    with np.errstate(over="ignore"):  # what is so large is clipped
        scaled = np.rint(wav * 32768.0)
    clipped: npt.NDArray[np.int16] = np.clip(scaled, -32768, 32767).astype(np.int16)
    return clipped


def _stop_frame(frames: int, first_frame: int, num_frames: int | None, clip_frames: int | None) -> int:
    if clip_frames is not None and frames != clip_frames:
        raise SampleError(f"the clip holds {frames} frames, its index says {clip_frames}", reason="differs")
    stop = frames if num_frames is None else first_frame + num_frames
    if max(first_frame, stop) > frames:
        raise SampleError(f"the clip holds {frames} frames, wanted {first_frame} to {stop}", reason="decode")
    return stop


def _wav_frames(data: bytes | memoryview, wav: WavHeader, first_frame: int, stop: int) -> npt.NDArray[np.int16]:
    offset = wav.data_offset + first_frame * 2 * wav.channels
    values = np.frombuffer(data, dtype="<i2", count=(stop - first_frame) * wav.channels, offset=offset)
    return values.reshape(-1, wav.channels).astype(np.int16, copy=False)


def _whole_flac(data: bytes | memoryview, flac: FlacHeader, out: npt.NDArray[Any] | None) -> npt.NDArray[Any]:
    """dr_flac writes straight into the result: its own one-call functions would allocate and copy it twice more."""
    import miniaudio

    refuse_bomb(flac.frames * flac.channels, len(data), "FLAC")
    lib, ffi = miniaudio.lib, miniaudio.ffi
    decoder = lib.ma_dr_flac_open_memory(ffi.from_buffer(data), len(data), ffi.NULL)
    if decoder == ffi.NULL:
        raise SampleError(f"FLAC of {len(data)} bytes cannot be decoded: no FLAC stream in it", reason="decode")
    try:
        if decoder.channels != flac.channels:
            raise SampleError(f"FLAC has {decoder.channels} channels, its header says {flac.channels}", reason="decode")
        frames: npt.NDArray[Any]
        if out is None or flac.channels != 1 or len(out) < flac.frames:
            frames = np.empty((flac.frames, flac.channels), dtype=np.int16)
        elif out.dtype == np.float32 and decoder.bitsPerSample > 16:  # whose lower bits int16 drops
            frames = np.empty((flac.frames, 1), dtype=np.int16)
        else:
            frames = out[: flac.frames, None]
        if frames.dtype == np.int16:
            found = lib.ma_dr_flac_read_pcm_frames_s16(
                decoder, flac.frames, ffi.from_buffer("ma_int16[]", frames, require_writable=True)
            )
        else:
            found = lib.ma_dr_flac_read_pcm_frames_f32(
                decoder, flac.frames, ffi.from_buffer("float[]", frames, require_writable=True)
            )
    finally:
        lib.ma_dr_flac_close(decoder)
    if found != flac.frames:
        raise SampleError(f"FLAC decodes to {found} of {flac.frames} frames: damaged or cut", reason="decode")
    return frames


def mp3_says_its_length(data: bytes | memoryview) -> bool:
    """True if the first frame of an MP3 is a Xing (or Info) header, which counts the frames.

    Args:
        data: the file or its beginning, from byte 0 or from behind its ID3v2 tag.
    """
    frame = first_mp3_frame(data)
    if len(frame) < 4:
        return False
    mono, mpeg_1 = frame[3] >> 6 == 3, frame[1] >> 3 & 3 == 3
    side_info_bytes = (17 if mono else 32) if mpeg_1 else (9 if mono else 17)
    tag = frame[4 + side_info_bytes :][:8]  # name and flags; the lowest flag: a count of frames follows
    return len(tag) == 8 and tag[:4] in (b"Xing", b"Info") and bool(tag[7] & 1)


def first_mp3_frame(data: bytes | memoryview) -> bytes:
    """The first frame of an MP3, from its header on, and what follows it; b"" if there is none near the beginning."""
    head = memoryview(data)[after_id3(memoryview(data)) :][:_MP3_SYNC_BYTES].tobytes()
    start = head.find(b"\xff")
    while 0 <= start < len(head) - 4:
        version, layer = head[start + 1] >> 3 & 3, head[start + 1] >> 1 & 3
        if head[start + 1] >> 5 == 7 and layer == 1 and version != 1 and head[start + 2] >> 4 not in (0, 15):
            return head[start:]
        start = head.find(b"\xff", start + 1)
    return b""


def blocks_of_unknown_length(data: bytes | memoryview, codec: str) -> Iterator[tuple[npt.NDArray[np.int16], int]]:
    """All frames of a FLAC or MP3 that does not say how long it is: blocks of [<= 65536, channels], and the rate in Hz.

    One block is held at a time, so a few bytes that decode to hours cost time and no memory. libsndfile would guess
    the length: that of an MP3 from the bit rate of its first frame, which may be half of it or twice as much.

    Raises:
        SampleError(reason="decode"): no such stream in it.
    """
    import miniaudio

    lib, ffi = miniaudio.lib, miniaudio.ffi
    buffer = ffi.from_buffer(data)
    if codec == "flac":
        decoder = lib.ma_dr_flac_open_memory(buffer, len(data), ffi.NULL)
        opened, read, close = decoder != ffi.NULL, lib.ma_dr_flac_read_pcm_frames_s16, lib.ma_dr_flac_close
    else:
        decoder = ffi.new("ma_dr_mp3 *")
        opened = bool(lib.ma_dr_mp3_init_memory(decoder, buffer, len(data), ffi.NULL))
        read, close = lib.ma_dr_mp3_read_pcm_frames_s16, lib.ma_dr_mp3_uninit
    if not opened:
        raise SampleError(f"{codec} of {len(data)} bytes cannot be decoded: no {codec} stream in it", reason="decode")
    try:
        channels, sample_rate = int(decoder.channels), int(decoder.sampleRate)
        while True:
            block = np.empty((_SMALL_BLOCK_FRAMES, channels), dtype=np.int16)
            target = ffi.from_buffer("ma_int16[]", block, require_writable=True)
            found = read(decoder, _SMALL_BLOCK_FRAMES, target)
            if not found:
                return
            yield block[:found], sample_rate
    finally:
        close(decoder)


def _of_unknown_length(
    data: bytes | memoryview, codec: str, first_frame: int, num_frames: int | None, clip_frames: int | None
) -> tuple[npt.NDArray[np.int16], int]:
    stop = None if num_frames is None else first_frame + num_frames
    to_its_end = stop is None or stop == clip_frames
    kept, num_kept, position, sample_rate = [], 0, 0, 0
    for block, sample_rate in blocks_of_unknown_length(data, codec):  # noqa: B007  # every block says it
        kept.append(block[max(first_frame - position, 0) : None if stop is None else max(stop - position, 0)])
        position += len(block)
        num_kept += kept[-1].size
        refuse_bomb(num_kept, len(data), codec)
        if stop is not None and (position > stop or (position == stop and not to_its_end)):
            break
    if not kept:
        raise SampleError(f"{codec} of {len(data)} bytes cannot be decoded: it holds no frames", reason="decode")
    _stop_frame(position, first_frame, num_frames, clip_frames if to_its_end else None)
    return np.concatenate(kept), sample_rate


def _by_libsndfile(
    data: bytes | memoryview, codec: str, first_frame: int, num_frames: int | None, clip_frames: int | None
) -> tuple[npt.NDArray[np.int16], int]:
    import soundfile

    data = data[: end_of_first(data)]
    try:
        with open_sound(io.BytesIO(data)) as sound:
            stop = _stop_frame(sound.frames, first_frame, num_frames, clip_frames)
            refuse_bomb((stop - first_frame) * sound.channels, len(data), codec)
            if 0 < first_frame < stop:
                seek(sound, first_frame, data)
            is_integer = sound.subtype in _INTEGER_SUBTYPES
            blocks = list(read_blocks(sound, stop - first_frame, "int16" if is_integer else "float32"))
            wav = np.concatenate(blocks) if blocks else np.zeros((0, sound.channels), np.int16)
            # libsndfile itself would round floats in [-1, 1] to -1, 0 or 1.
            return wav if is_integer else float_to_int16(np.nan_to_num(wav, posinf=1.0, neginf=-1.0)), int(
                sound.samplerate
            )
    except (soundfile.SoundFileError, RuntimeError) as error:
        reason = libsndfile_reason(error)
        raise SampleError(f"{codec} of {len(data)} bytes cannot be decoded: {reason}", reason="decode") from None


def read_blocks(sound: Any, num_frames: int, dtype: str) -> Iterator[npt.NDArray[Any]]:
    """The next frames of an open `soundfile.SoundFile` as blocks of [frames, channels] of `dtype`.

    In blocks of 2**20 values, so that a header's word alone allocates nothing.

    Raises:
        SampleError(reason="decode"): the file ends before. libsndfile's own errors pass through.
    """
    position, most = 0, max(1, _BLOCK_VALUES // sound.channels)
    while position < num_frames:
        block = sound.read(min(num_frames - position, most), dtype=dtype, always_2d=True)
        if not len(block):
            raise SampleError(f"decoded {position} of {num_frames} frames: damaged or cut", reason="decode")
        yield block
        position += len(block)


def libsndfile_reason(error: Exception) -> str:
    """What libsndfile said, without the address of a Python object in it."""
    return str(getattr(error, "error_string", error)).removeprefix("Error : ").rstrip(".")
