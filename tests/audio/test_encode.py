"""Encoders: the same bytes from the same sound, the length and the place of every sample, and checksums that hold."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from s3prl_stream.audio.decode import decode
from s3prl_stream.audio.encode import OPUS_RATES, encode
from s3prl_stream.audio.ogg import SERIAL, with_fixed_serial
from s3prl_stream.errors import SampleError, UsageError


def crc_of_page(page: bytes) -> int:
    """Ogg's CRC-32 as RFC 3533 describes it, bit by bit."""
    crc = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        crc ^= byte << 24
        for _ in range(8):
            crc = (crc << 1 ^ 0x04C11DB7 if crc >> 31 else crc << 1) & 0xFFFFFFFF
    return crc


def pages_of(data: bytes) -> list[bytes]:
    pages = []
    while data:
        assert data[:4] == b"OggS"
        body = 27 + data[26]
        stop = body + sum(data[27:body])
        pages.append(data[:stop])
        data = data[stop:]
    return pages


def speech_like(frames: int, seed: int = 0, rate: int = 16_000) -> np.ndarray:
    """Noise below about 1 kHz."""
    width = rate // 1000 | 1
    noise = np.random.default_rng(seed).normal(size=frames + width - 1)
    return (np.convolve(noise, np.hanning(width + 2)[1:-1], "valid") * 9000 / width**0.5).astype(np.int16)


@settings(max_examples=20)
@given(rate=st.sampled_from(OPUS_RATES), frames=st.integers(1, 60_000), seed=st.integers(0, 99))
def test_opus_keeps_length_and_place_and_gives_the_same_bytes(rate: int, frames: int, seed: int) -> None:
    wav = speech_like(frames, seed, rate)
    encoded = encode(wav, rate, "opus")
    assert encoded == encode(wav, rate, "opus")
    decoded, decoded_rate = decode(encoded, "opus")
    assert (len(decoded), decoded_rate) == (frames, rate)
    if frames > rate:  # no delay: the sound lies where it lay
        inner = wav[rate // 20 : -rate // 20].astype(np.float64)
        scores = {
            shift: float(np.dot(inner, decoded[rate // 20 + shift :][: len(inner), 0])) for shift in range(-20, 21)
        }
        assert abs(max(scores, key=scores.__getitem__)) <= 1


def test_pages_have_the_fixed_serial_and_sums_that_hold() -> None:
    pages = pages_of(encode(speech_like(16_000 * 5), 16_000, "opus"))
    assert len(pages) > 3
    for page in pages:
        assert int.from_bytes(page[14:18], "little") == SERIAL
        assert int.from_bytes(page[22:26], "little") == crc_of_page(page)


def test_what_libsndfile_writes_differs_only_by_the_serial() -> None:
    written = []
    for _ in range(2):
        file = io.BytesIO()
        soundfile.write(file, speech_like(9000), 16_000, format="OGG", subtype="OPUS")
        written.append(file.getvalue())
    assert written[0] != written[1], "libsndfile has become reproducible: ogg.py is not needed any more"
    assert with_fixed_serial(written[0]) == with_fixed_serial(written[1])


def test_less_than_half_of_the_bytes_of_flac(sample_set: Path) -> None:
    with tarfile.open(sample_set / "sample-000000.tar") as tar:
        flac = tar.extractfile(tar.next()).read()  # type: ignore[arg-type,union-attr]
    wav, rate = decode(flac, "flac")
    assert len(encode(wav[:, 0], rate, "opus")) < len(flac) / 2


@pytest.mark.parametrize("data", [b"no pages", b"OggS" + bytes(10)])
def test_other_bytes_are_no_pages(data: bytes) -> None:
    with pytest.raises(SampleError, match="no Ogg page at byte 0"):
        with_fixed_serial(data)


def test_what_cannot_be_encoded() -> None:
    with pytest.raises(UsageError, match="'opus' cannot be written at 22050 Hz: choose one of 8000"):
        encode(speech_like(100), 22_050, "opus")
    with pytest.raises(UsageError, match="codec 'mp3'"):
        encode(speech_like(100), 16_000, "mp3")


@given(st.lists(st.integers(-32768, 32767), min_size=1, max_size=300), st.sampled_from(["flac", "wav"]))
@settings(max_examples=30)
def test_lossless_codecs_are(values: list[int], codec: str) -> None:
    wav = np.array(values, dtype=np.int16)
    decoded, _ = decode(encode(wav, 16_000, codec), codec)
    np.testing.assert_array_equal(decoded[:, 0], wav)
