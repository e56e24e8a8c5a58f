"""Source files of a corpus: what their headers say, and stretches of them really decoded.

Chosen for packing: libsndfile, block by block. It is slower than dr_flac and stricter: a FLAC stream that the
reference decoder refuses is damage here, and a file read whole must also match the MD5 that its encoder left.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.bounds import check_resampling, refuse_bomb
from s3prl_stream.audio.decode import float_to_int16, read_blocks
from s3prl_stream.audio.headers import FlacHeader, flac_header
from s3prl_stream.audio.lengths import ClipLength, checked_length
from s3prl_stream.audio.open_source import HEADER_BYTES, open_file, opened
from s3prl_stream.audio.silences import FRAME_SECONDS, levels_db
from s3prl_stream.errors import SampleError

Channel: TypeAlias = Literal["first", "mean"] | int

SNAP_SECONDS = 0.01
"""A stretch that ends this near to the end of its file, before or behind it, ends there: manifests round."""

OTHER_MD5 = "decoded sound differs from the MD5 in the FLAC header: damaged"

_AS_INT16 = frozenset({"PCM_S8", "PCM_U8", "PCM_16"})
_FLAC_KINDS = {8: "FLAC PCM_S8", 16: "FLAC PCM_16", 24: "FLAC PCM_24"}
_FULL_SCALE = {"int16": 2.0**15, "int32": 2.0**31}


class SourceInfo(NamedTuple):
    """What a source file's header says."""

    frames: int
    """Samples per channel."""
    sample_rate: int
    channels: int
    kind: str
    """Container and sample type as libsndfile names them, such as "FLAC PCM_16"."""
    num_bytes: int

    @property
    def seconds(self) -> float:
        """Length of the file."""
        return self.frames / self.sample_rate


def probe(path: str) -> SourceInfo:
    """Read the header of a source file; nothing is decoded but an MP3 whose header does not tell its length.

    Raises:
        SampleError: reason "missing", "unreadable", "empty" (no bytes or no frames), "decode" or "too_large".
    """
    info = _plain_flac(path)
    if info is None:
        with opened(path) as (sound, _):
            info = SourceInfo(
                int(sound.frames),
                int(sound.samplerate),
                int(sound.channels),
                f"{sound.format} {sound.subtype}",
                Path(path).stat().st_size,
            )
    if info.frames <= 0:
        raise SampleError("the file holds no frames", reason="empty")
    checked_length(ClipLength(info.frames, info.sample_rate, False), info.num_bytes, info.kind)
    return info


def _plain_flac(path: str) -> SourceInfo | None:
    """Of a FLAC with all in its header, without libsndfile: a third of the time. None: that should look at it."""
    try:
        with open_file(path) as file:
            num_bytes = os.fstat(file.fileno()).st_size
            flac = flac_header(file.read(HEADER_BYTES) or b"", num_bytes)
    except (OSError, SampleError):
        return None
    if flac is None or not flac.frames or flac.bits not in _FLAC_KINDS:
        return None
    return SourceInfo(flac.frames, flac.sample_rate, flac.channels, _FLAC_KINDS[flac.bits], num_bytes)


def stretch_frames(info: SourceInfo, start_seconds: float | None, end_seconds: float | None) -> tuple[int, int]:
    """First frame, and the one behind the last, of a stretch at the file's own rate (rounded to the nearest frame).

    Raises:
        SampleError(reason="range"): the stretch is empty or reaches beyond the file by more than `SNAP_SECONDS`.
    """
    # beyond what any file holds, a time may be too large to become a number of frames
    most = info.seconds + 1.0
    start, end = (None if one is None else max(-1.0, min(one, most)) for one in (start_seconds, end_seconds))
    first = round((start or 0.0) * info.sample_rate)
    stop = info.frames if end is None else round(end * info.sample_rate)
    if abs(stop - info.frames) <= SNAP_SECONDS * info.sample_rate:
        stop = info.frames
    if not 0 <= first < stop <= info.frames:
        raise SampleError(
            f"stretch {start_seconds} to {end_seconds} s does not lie in the file's 0 to {info.seconds:.3f} s",
            reason="range",
        )
    return first, stop


def read_source(
    path: str, *, first_frame: int = 0, stop_frame: int | None = None, sample_rate: int, channel: Channel = "first"
) -> npt.NDArray[np.int16]:
    """Decode a stretch of a source file to one channel at one rate.

    16-bit (and 8-bit) sources at the wanted rate pass unchanged when one of their channels is taken. Everything else
    goes through float32, resampled by soxr (HQ), then scaled by 32768, rounded half to even and clipped.

    Args:
        path: the file.
        first_frame, stop_frame: the stretch at the file's own rate; None: to the end.
        sample_rate: of the result (Hz).
        channel: "first", "mean", or the number of a channel from 0.

    Returns:
        [T] int16.

    Raises:
        SampleError: reason "missing", "unreadable", "empty", "decode" (refused, or fewer frames than promised), "md5"
            (a FLAC read whole differs from its encoder's checksum), "channel" (the file has no such channel) or
            "too_large" (a few bytes that would become days of sound).
    """
    with opened(path, first_frame) as (sound, flac):
        stop = int(sound.frames) if stop_frame is None else stop_frame
        if not 0 <= first_frame < stop <= sound.frames:
            raise SampleError(
                f"the file holds {sound.frames} frames, wanted {first_frame} to {stop}",
                reason="decode" if sound.frames else "empty",
            )
        refuse_bomb(stop - first_frame, os.path.getsize(path), sound.format)
        source_rate = int(sound.samplerate)
        check_resampling(stop - first_frame, source_rate, sample_rate)
        whole = (first_frame, stop) == (0, sound.frames)
        digest = hashlib.md5(usedforsecurity=False) if flac and whole and any(flac.md5) else None
        wav = _one_channel(sound, flac, digest, stop - first_frame, channel)
        if flac and digest and digest.digest() != flac.md5:
            raise SampleError(OTHER_MD5, reason="md5")
    if wav.dtype == np.int16 and source_rate == sample_rate:
        return wav
    if wav.dtype == np.int16:
        wav = wav.astype(np.float32) / np.float32(_FULL_SCALE["int16"])
    return float_to_int16(_resampled(wav, source_rate, sample_rate))


def read_flac_unchecked(path: str) -> tuple[npt.NDArray[np.int16], bytes | None]:
    """The samples of a whole FLAC of one channel of 16 bits, and the MD5 they should have; None: it does not say.

    For whoever encodes them as FLAC: the MD5 is in the new header at no cost, and must be the same. Else use
    `read_source`.

    Returns:
        ([T] int16, MD5 of 16 bytes).

    Raises:
        SampleError: as `read_source`, but for "md5".
    """
    with opened(path) as (sound, flac):
        wav = np.empty(int(sound.frames), dtype=np.int16)
        found = len(sound.read(out=wav))
    if found != len(wav):
        raise SampleError(f"decoded {found} of {len(wav)} frames: damaged or cut", reason="decode")
    return wav, flac.md5 if flac is not None and any(flac.md5) else None


def levels_of_source(
    path: str, first_frame: int, stop_frame: int, channel: Channel
) -> tuple[npt.NDArray[np.float64], int]:
    """Levels (dB of full scale) of a stretch of a file in frames of 10 ms, and how many samples such a frame has.

    Raises:
        SampleError: as `read_source`.
    """
    with opened(path, first_frame) as (sound, flac):
        hop = max(1, round(FRAME_SECONDS * int(sound.samplerate)))
        wav = _one_channel(sound, flac, None, stop_frame - first_frame, channel)
    return levels_db(wav if wav.dtype == np.int16 else float_to_int16(wav), hop), hop


def _one_channel(
    sound: Any, flac: FlacHeader | None, digest: Any, num_frames: int, channel: Channel
) -> npt.NDArray[Any]:
    """The next frames: [T] int16 if the source is that deep and no channels are mixed, else float32. Only one channel
    is ever held."""
    number = 0 if channel in ("first", "mean") else int(channel)
    if not 0 <= number < sound.channels:
        raise SampleError(f"the file has {sound.channels} channels, wanted number {number} from 0", reason="channel")
    dtype = "int16" if sound.subtype in _AS_INT16 else "int32" if flac else "float32"
    parts: list[npt.NDArray[Any]] = []
    for block in read_blocks(sound, num_frames, dtype):
        if digest is not None and flac is not None:
            digest.update(_flac_md5_bytes(block, flac.bits))
        wanted = block if channel == "mean" and sound.channels > 1 else block[:, number]
        if dtype != "int16" or wanted.ndim == 2:
            if dtype == "float32" and not np.isfinite(wanted).all():
                raise SampleError("the sound holds values that are not finite", reason="decode")
            wanted = wanted.astype(np.float32) / np.float32(_FULL_SCALE.get(dtype, 1.0))
        parts.append(wanted.mean(axis=1, dtype=np.float32) if wanted.ndim == 2 else wanted.copy())
    return np.concatenate(parts)


def _flac_md5_bytes(block: npt.NDArray[Any], bits: int) -> bytes:
    """Left-justified [frames, channels] -> the bytes over which a FLAC encoder takes its MD5 (RFC 9639, 8.2)."""
    values = block.astype("<i4") >> (8 * block.dtype.itemsize - bits)
    return values.view(np.uint8).reshape(-1, 4)[:, : (bits + 7) // 8].tobytes()


def _resampled(wav: npt.NDArray[np.float32], source_rate: int, sample_rate: int) -> npt.NDArray[np.float32]:
    if source_rate == sample_rate:
        return wav
    import soxr

    resampled: npt.NDArray[np.float32] = soxr.resample(wav, source_rate, sample_rate, quality="HQ")
    return resampled
