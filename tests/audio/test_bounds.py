"""Few bytes that claim to be days of sound, or are: refused before they take memory, each for itself."""

from __future__ import annotations

import io
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s3prl_stream.audio.bounds import ANY_CLIP_VALUES, MAX_VALUES_PER_BYTE, check_resampling, refuse_bomb
from s3prl_stream.audio.decode import decode
from s3prl_stream.audio.lengths import length_in
from s3prl_stream.audio.source import probe, read_source
from s3prl_stream.errors import SampleError
from s3prl_stream.pipes import LoadAudio
from s3prl_stream.pipes.effects import apply_effects

MOST_BYTES = 16 << 20


def flac_claiming(frames: int) -> bytes:
    """A FLAC of 1 MB with zeros behind its only block, which a header of `frames` frames would allow."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(3000, np.int16), 16_000, format="FLAC")
    data = bytearray(file.getvalue())
    data[10:12] = b"\xff\xff"  # the largest block
    data[21:26] = bytes([data[21] & 0xF0 | frames >> 32]) + struct.pack(">I", frames & 0xFFFFFFFF)
    return bytes(data) + bytes((1 << 20) - len(data))


def wav_at(sample_rate: int) -> bytes:
    """A WAV of 100 000 frames."""
    form = struct.pack("<4sI4s4sIHHIIHH", b"RIFF", 200_036, b"WAVE", b"fmt ", 16, 1, 1, sample_rate, 0, 2, 16)
    return form + struct.pack("<4sI", b"data", 200_000) + bytes(200_000)


def reason_of(attempt: Callable[[], object]) -> str:
    tracemalloc.start()
    try:
        with pytest.raises(SampleError) as error:
            attempt()
        assert tracemalloc.get_traced_memory()[1] < MOST_BYTES
    finally:
        tracemalloc.stop()
    return error.value.reason


def loaded(path: Path) -> object:
    return next(LoadAudio(sample_rate=16_000).emit({"key": "k", "wav_path": str(path)}))["wav"]


def test_a_flac_that_claims_days(tmp_path: Path) -> None:
    data = flac_claiming(6_000_000_000)
    path = tmp_path / "x.flac"
    path.write_bytes(data)
    doors = [lambda: decode(data, "flac"), lambda: length_in(data, "flac"), lambda: loaded(path),
             lambda: probe(str(path)), lambda: read_source(str(path), sample_rate=16_000)]  # fmt: skip
    assert [reason_of(door) for door in doors] == ["too_large"] * 5


@pytest.mark.parametrize(("sample_rate", "reason"), [(1, "too_large"), (7, "too_large"), (0xFFFF_FFFF, "decode")])
def test_a_wav_of_an_absurd_rate(sample_rate: int, reason: str, tmp_path: Path) -> None:
    """Of 1 Hz, a megabyte would become 32 GB at 16 kHz."""
    path = tmp_path / "x.wav"
    path.write_bytes(wav_at(sample_rate))
    assert reason_of(lambda: loaded(path)) == reason
    assert reason_of(lambda: read_source(str(path), sample_rate=16_000)) == reason
    wav = np.zeros(100_000, np.float32)
    assert reason_of(lambda: apply_effects(wav, sample_rate, [["rate", "16000"]])) == reason


def test_what_is_real_passes() -> None:
    refuse_bomb(ANY_CLIP_VALUES, 1, "flac")
    refuse_bomb(MAX_VALUES_PER_BYTE << 30, 1 << 30, "flac")
    check_resampling(1 << 40, 1000, 16_000)
    check_resampling(8000, 1, 16_000)
    wav, rate = apply_effects(np.zeros(8, np.float32), 4, [["rate", "16"]])
    assert (len(wav), rate) == (32, 16)


def test_a_flac_of_unknown_length_that_goes_on_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of silence, 4096 frames take 12 bytes. A whole bomb would take long to write: the bound is moved instead."""
    file = io.BytesIO()
    soundfile.write(file, np.zeros(1 << 20, np.int16), 16_000, format="FLAC")
    data = bytearray(file.getvalue())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])
    assert len(decode(bytes(data), "flac")[0]) == 1 << 20
    monkeypatch.setattr("s3prl_stream.audio.bounds.ANY_CLIP_VALUES", 1 << 19)
    monkeypatch.setattr("s3prl_stream.audio.bounds.MAX_VALUES_PER_BYTE", 8)
    assert reason_of(lambda: decode(bytes(data), "flac")) == "too_large"
    assert len(decode(bytes(data), "flac", first_frame=1 << 19, num_frames=1 << 10)[0]) == 1 << 10
