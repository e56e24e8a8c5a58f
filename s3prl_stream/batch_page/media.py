"""Sound and pictures as bytes that any browser knows: WAV of 16 bits, and PNG of one byte a pixel.

T waveform samples, F frames, D bins.
"""

from __future__ import annotations

import io
import struct
import wave
import zlib
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

MOST_COLUMNS, MOST_ROWS = 1000, 256
"""Of a picture. What has more frames or bins is averaged over neighbours."""
WAVEFORM_ROWS = 48

Colour: TypeAlias = tuple[int, int, int]

_ANCHORS: tuple[Colour, ...] = ((20, 12, 60), (62, 50, 134), (42, 112, 142), (66, 174, 122), (250, 232, 90))
"""From low to high, ever lighter: the order shows without colours too."""
_NOT_FINITE = 255
"""Place in the palette, which is red there."""


class Scale(NamedTuple):
    """Values that get the darkest and the lightest colour."""

    lowest: float
    highest: float


def as_int16(wav: npt.NDArray[Any]) -> npt.NDArray[np.int16]:
    """int16 [T] as it is; floats [T] in [-1, 1) times 32768, rounded, clipped; what is not finite becomes 0."""
    if wav.dtype == np.int16:
        return wav
    finite = np.where(np.isfinite(wav), wav, 0.0)
    return np.clip(np.rint(finite * 32768.0), -32768, 32767).astype(np.int16)


def wav_bytes(samples: npt.NDArray[np.int16], sample_rate: int) -> bytes:
    """One channel [T] as a WAV file."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(sample_rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return file.getvalue()


def scale_of(values: npt.NDArray[Any]) -> Scale:
    """Of what is finite, without the lowest and the highest hundredth."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        return Scale(0.0, 1.0)
    lowest, highest = np.percentile(finite, (1, 99)).tolist()
    return Scale(lowest, highest)


def draw_features(feat_FD: npt.NDArray[Any], scale: Scale) -> bytes:
    """PNG: frames from left to right, bins from below; a pixel with a value that is not finite is red."""
    small_FD = _means(_means(feat_FD.astype(np.float64), MOST_COLUMNS, 0), MOST_ROWS, 1)
    finite_FD = np.isfinite(small_FD)
    width = max(scale.highest - scale.lowest, 1e-12)
    shade_FD = np.clip((np.where(finite_FD, small_FD, 0.0) - scale.lowest) / width, 0.0, 1.0) * (_NOT_FINITE - 1)
    index_FD = np.where(finite_FD, np.rint(shade_FD), _NOT_FINITE).astype(np.uint8)
    return _picture(index_FD.T[::-1], [*_ramp(_NOT_FINITE), (220, 30, 30)])


def draw_mask(mask_FD: npt.NDArray[np.bool_]) -> bytes:
    """PNG: what is True in orange, on grey. Of neighbours that share a pixel, one is enough."""
    small_FD = _any(_any(mask_FD, MOST_COLUMNS, 0), MOST_ROWS, 1)
    return _picture(small_FD.T[::-1].astype(np.uint8), [(232, 232, 236), (214, 92, 0)])


def draw_waveform(wav: npt.NDArray[np.int16], peak: int, columns: int) -> bytes:
    """PNG: from the lowest to the highest sample [T] in each column; `peak` reaches the edges."""
    starts = np.unique(np.linspace(0, len(wav), min(columns, len(wav)), endpoint=False).astype(np.int64))
    half = WAVEFORM_ROWS / 2
    edges = [np.rint(half - half * f.reduceat(wav, starts) / max(peak, 1)) for f in (np.maximum, np.minimum)]
    row = np.arange(WAVEFORM_ROWS)[:, None]
    inside = (row >= np.minimum(edges[0], WAVEFORM_ROWS - 1)) & (row <= np.maximum(edges[1] - 1, edges[0]))
    return _picture(inside.astype(np.uint8), [(244, 246, 250), (36, 84, 164)])


def _groups(length: int, most: int) -> npt.NDArray[np.int64]:
    """Where each of at most `most` groups of neighbours begins."""
    return np.arange(0, length, -(-length // most), dtype=np.int64)


def _means(values: npt.NDArray[np.float64], most: int, axis: int) -> npt.NDArray[np.float64]:
    if values.shape[axis] <= most:
        return values
    starts = _groups(values.shape[axis], most)
    counts = np.diff(starts, append=values.shape[axis])
    sums: npt.NDArray[np.float64] = np.add.reduceat(values, starts, axis=axis)
    return sums / (counts[:, None] if axis == 0 else counts)


def _any(mask: npt.NDArray[np.bool_], most: int, axis: int) -> npt.NDArray[np.bool_]:
    if mask.shape[axis] <= most:
        return mask
    found: npt.NDArray[np.bool_] = np.logical_or.reduceat(mask, _groups(mask.shape[axis], most), axis=axis)
    return found


def _ramp(num_colours: int) -> list[Colour]:
    places = np.linspace(0, len(_ANCHORS) - 1, num_colours)
    channels = [np.interp(places, range(len(_ANCHORS)), channel) for channel in zip(*_ANCHORS, strict=True)]
    return [(int(red), int(green), int(blue)) for red, green, blue in zip(*channels, strict=True)]


def _picture(index_HW: npt.NDArray[np.uint8], palette: list[Colour]) -> bytes:
    """A PNG (RFC 2083) of places in a palette, without filters."""
    height, width = index_HW.shape
    rows = np.zeros((height, width + 1), np.uint8)  # each row begins with the number of its filter, 0: none
    rows[:, 1:] = index_HW
    parts = [
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),  # 8 bits, palette
        (b"PLTE", bytes(value for colour in palette for value in colour)),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    ]
    chunks = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in parts
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)
