"""One clip of a batch as HTML: what was read, and after each stage what is new or another."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from s3prl_stream.batch_page.markup import Room, escaped, table
from s3prl_stream.batch_page.media import Scale, as_int16, draw_features, draw_mask, draw_waveform, scale_of, wav_bytes
from s3prl_stream.batch_page.trace import Trace
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample

Array = npt.NDArray[Any]

MOST_PIECES = 8
"""Of what a stage has made of one clip."""
MOST_VALUES = 60
"""Of one sample after one stage."""
MOST_NUMBERS = 48
"""Of one list."""

_ELSEWHERE = frozenset({
    "audio", "batch_index", "decode_into", "draws", "epoch", "first_frame", "identity", "item", "key", "num_frames",
    "set", "slot",
})  # fmt: skip
"""Keys that the page tells in another place, or that are of no use to a reader."""
_DEFAULT_RATE = 16_000
_PIXELS_A_SECOND = 100


def steps_of(trace: Trace, slot: int, room: Room) -> str:
    """What happened to the clip at this place of the batch: an item for the reading and for each stage."""
    return f'<ol class="steps">{"".join(_Clip(trace, slot, room).steps())}</ol>'


class _Clip:
    def __init__(self, trace: Trace, slot: int, room: Room) -> None:
        self.stages, self.room = trace.stages, room
        self.after = [seen.get(slot, []) for seen in trace.after]
        self.waveform_keys = {"wav"}.union(
            *({k for k, v in s.provides.items() if v.endswith(" [T]")} for s in self.stages)
        )
        self.peak = max((self._peak(piece) for pieces in self.after for piece in pieces), default=0)
        self.scales: dict[tuple[str, int], Scale] = {}

    def steps(self) -> list[str]:
        """As far as the clip came."""
        steps = [self._step("read", None, [], self.after[0])]
        for stage, before, pieces in zip(self.stages, self.after[:-1], self.after[1:], strict=True):
            if not before:
                break
            steps.append(self._step(stage.stage_id, stage, before, pieces))
        return steps

    def _step(self, name: str, stage: Stage | None, before: Sequence[Sample], pieces: Sequence[Sample]) -> str:
        parts = [f"<h3>{escaped(name)}</h3>"]
        if stage is not None:
            parts.append(f"<p><code>{escaped(stage.describe())}</code></p>")
        for number, piece in enumerate(pieces[:MOST_PIECES]):
            if len(pieces) > 1:
                parts.append(f"<h4>Piece {number + 1} of {len(pieces)}</h4>")
            # of a stage that makes several samples of one, each is compared with that one
            parts.append(
                self._changes(stage, before[number if len(before) == len(pieces) else 0] if before else {}, piece)
            )
        if len(pieces) > MOST_PIECES:
            parts.append(f'<p class="left-out">{len(pieces) - MOST_PIECES} more pieces are not shown.</p>')
        return f"<li>{''.join(parts)}</li>" if pieces else f"<li>{''.join(parts)}<p>No sample came out.</p></li>"

    def _changes(self, stage: Stage | None, before: Sample, piece: Sample) -> str:
        rows: dict[str, Any] = {}
        figures: list[str] = []
        for key, value in piece.items():
            array = _as_array(value)
            if key in _ELSEWHERE or (key in before and _equal(_as_array(before[key]), array, before[key], value)):
                continue
            if array is None:
                rows[key] = value
            elif self._is_waveform(key, array):
                figures.append(self._waveform(key, array, _rate(piece)))
            elif array.size and array.ndim == 2 and array.dtype.kind in "bf" and key not in self.waveform_keys:
                figures.append(self._matrix(key, array, self._width(piece, len(array))))
            elif array.size and array.ndim == 1 and array.dtype.kind == "b":
                figures.append(self._matrix(key, array[:, None], self._width(piece, len(array))))
            else:
                rows[key] = _in_words(array)
        gone = [key for key in before if key not in piece and key not in _ELSEWHERE]
        if gone:
            rows["no longer there"] = ", ".join(gone)
        drawn = {} if stage is None else piece.get("draws", {}).get(stage.stage_id, {})
        told = [table(drawn, "Drawn"), table(dict(list(rows.items())[:MOST_VALUES]), "New or changed")]
        if len(rows) > MOST_VALUES:
            told.append(f'<p class="left-out">{len(rows) - MOST_VALUES} more values are not shown.</p>')
        return "".join([*told, *figures]) or "<p>Nothing changed.</p>"

    # ---- sound ---------------------------------------------------------------------------------

    def _is_waveform(self, key: str, array: Array) -> bool:
        return key in self.waveform_keys and array.ndim == 1 and (array.dtype.kind == "f" or array.dtype == np.int16)

    def _peak(self, piece: Sample) -> int:
        """Highest absolute value of its waveforms as int16."""
        arrays = {key: _as_array(piece[key]) for key in self.waveform_keys if key in piece}
        waveforms = [one for key, one in arrays.items() if one is not None and one.size and self._is_waveform(key, one)]
        return max((int(np.abs(as_int16(one).astype(np.int32)).max()) for one in waveforms), default=0)

    def _width(self, piece: Sample, num_frames: int) -> int:
        """Pixels that features [num_frames, ...] get: as many as the waveform from which they are."""
        for key in sorted(self.waveform_keys & piece.keys()):
            if len(piece[key]):
                return _pixels(len(piece[key]) / _rate(piece))
        return _pixels(num_frames / 100)

    def _waveform(self, key: str, wav: Array, rate: int) -> str:
        samples, seconds = as_int16(wav), len(wav) / rate
        told = f"{escaped(key)}: {seconds:.3f} s, {len(wav)} samples at {rate} Hz{_levels(wav)}"
        if not len(wav):
            return _figure("", told)
        sound = self.room.data_uri("audio/wav", wav_bytes(samples, rate)) if self.room.has(samples.nbytes) else None
        if sound is None:
            return _figure("", f"{told}. The page is full: the sound is left out.")
        width = _pixels(seconds)
        picture = self._picture(
            draw_waveform(samples, self.peak, width), width, f"Waveform of {escaped(key)}", "waveform"
        )
        label = f"{escaped(key)}, {seconds:.2f} s"
        return _figure(f'{picture}<audio controls preload="none" aria-label="{label}" src="{sound}"></audio>', told)

    # ---- pictures ------------------------------------------------------------------------------

    def _matrix(self, key: str, array_FD: Array, width: int) -> str:
        frames, bins = array_FD.shape
        told = f"{escaped(key)}: {frames} frames" + (f", {bins} bins" if bins > 1 else "")
        if array_FD.dtype.kind == "b":
            picture = draw_mask(array_FD)
            told += f", {array_FD.mean():.1%} of it chosen (orange)"
        else:
            # what a mask leaves of the features is shown on their scale
            name = "feat" if key == "masked_feat" and ("feat", bins) in self.scales else key
            scale = self.scales.setdefault((name, bins), scale_of(array_FD))
            picture = draw_features(array_FD, scale)
            told += f", from {scale.lowest:.3g} (dark) to {scale.highest:.3g} (light)"
            bad = array_FD.size - int(np.isfinite(array_FD).sum())
            told += f"; <strong>{bad} values are not finite (red)</strong>" if bad else ""
        kind = "matrix" if bins > 1 else "strip"
        return _figure(self._picture(picture, width, f"Picture of {escaped(key)}", kind), told)

    def _picture(self, png: bytes, width: int, alt: str, kind: str) -> str:
        uri = self.room.data_uri("image/png", png)
        if uri is None:
            return "<p>The page is full: the picture is left out.</p>"
        return f'<img class="{kind}" alt="{alt}" style="width:min(100%,{width}px)" src="{uri}">'


def _figure(content: str, caption: str) -> str:
    return f"<figure>{content}<figcaption>{caption}</figcaption></figure>"


def _pixels(seconds: float) -> int:
    return round(min(max(seconds * _PIXELS_A_SECOND, 160), 1000))


def _rate(piece: Sample) -> int:
    rate = piece.get("sample_rate")
    return int(rate) if isinstance(rate, int | np.integer) and rate > 0 else _DEFAULT_RATE


def _levels(wav: Array) -> str:
    """RMS and peak in dB of full scale, and what a 16-bit file cannot hold."""
    floats = wav.astype(np.float64) / (32768.0 if wav.dtype == np.int16 else 1.0)
    finite = floats[np.isfinite(floats)]
    if not finite.size or not finite.any():
        told = ", silent" if finite.size else ""
    else:
        told = f", RMS {_db(math.sqrt(np.mean(finite**2)))}, peak {_db(float(np.abs(finite).max()))}"
    bad, loud = len(floats) - finite.size, int((np.abs(finite) > 1.0).sum())
    told += f"; {loud} samples beyond full scale are clipped on this page" if loud else ""
    return told + (f"; <strong>{bad} samples are not finite</strong>" if bad else "")


def _db(amplitude: float) -> str:
    return f"{20 * math.log10(amplitude):.1f} dB"


def _as_array(value: Any) -> Array | None:
    """Of tensors and numpy's arrays; None of anything else."""
    if isinstance(value, torch.Tensor):
        return value.detach().cpu().numpy()
    return value if isinstance(value, np.ndarray) else None


def _equal(one: Array | None, other: Array | None, value: Any, other_value: Any) -> bool:
    if one is None or other is None:
        return one is None and other is None and (value is other_value or repr(value) == repr(other_value))
    if one.dtype == other.dtype:
        return np.array_equal(one, other, equal_nan=one.dtype.kind == "f")
    # the same sound in another type is nothing to listen to
    sounds = {one.dtype.name, other.dtype.name} == {"int16", "float32"} and one.ndim == other.ndim == 1
    return sounds and np.array_equal(as_int16(one), as_int16(other))


def _in_words(array: Array) -> str:
    if array.ndim > 1:
        return f"{array.dtype} {list(array.shape)}"
    values = np.atleast_1d(array)
    rest = f" ... ({len(values)} in all)" if len(values) > MOST_NUMBERS else ""
    return (
        ", ".join(f"{one:.6g}" if isinstance(one, float) else str(one) for one in values[:MOST_NUMBERS].tolist()) + rest
    )
