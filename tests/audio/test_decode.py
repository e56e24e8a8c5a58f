"""Decoding: every frame that was promised, exactly, or an error."""

from __future__ import annotations

import io
import struct

import numpy as np
import numpy.typing as npt
import pytest
import soundfile

from s3prl_stream.audio.decode import decode, float_to_int16
from s3prl_stream.audio.encode import encode
from s3prl_stream.errors import SampleError, UsageError


def noise(num_frames: int, channels: int = 1, seed: int = 0) -> npt.NDArray[np.int16]:
    """[T, C] int16 with some structure, so that FLAC uses predictors."""
    rng = np.random.default_rng(seed)
    time = np.arange(num_frames)[:, None]
    wave = 8000 * np.sin(time * 0.03 * (1 + np.arange(channels))) + rng.normal(0, 500, (num_frames, channels))
    return wave.astype(np.int16)


LOSSY = {"ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS")}
"""Codec -> container and subtype as libsndfile calls them."""


def encoded(wav: npt.NDArray[np.int16], kind: str, subtype: str = "PCM_16", sample_rate: int = 16_000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, wav, sample_rate, format=kind, subtype=subtype)
    return buffer.getvalue()


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("codec", ["flac", "wav"])
@pytest.mark.parametrize("as_buffer", [bytes, memoryview])
def test_lossless_codecs_give_every_sample_back(codec: str, channels: int, as_buffer: type) -> None:
    wav = noise(20_000, channels)
    data = as_buffer(encoded(wav, codec.upper()))
    decoded, sample_rate = decode(data, codec)
    assert sample_rate == 16_000
    assert decoded.dtype == np.int16
    np.testing.assert_array_equal(decoded, wav)


@pytest.mark.parametrize("codec", ["flac", "wav", "ogg", "opus"])
@pytest.mark.parametrize(("first", "num"), [(0, 20_000), (0, 1), (4095, 4098), (19_999, 1), (7, None), (20_000, 0)])
def test_a_part_is_the_part_of_the_whole(codec: str, first: int, num: int | None) -> None:
    data = encoded(noise(20_000), *LOSSY.get(codec, (codec.upper(),)))
    whole, _ = decode(data, codec)
    part, _ = decode(data, codec, first_frame=first, num_frames=num)
    np.testing.assert_array_equal(part, whole[first:] if num is None else whole[first : first + num])


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\0\x05fLaC\0"])
def test_of_flacs_glued_into_one_file_the_first_is_the_clip(tag: bytes) -> None:
    """Whatever is wanted of it: libsndfile would seek into the second for the first one's last frames."""
    first = noise(16_000, seed=1)
    glued = tag + encoded(first, "FLAC") + encoded(noise(24_000, seed=2), "FLAC")
    for start, stop in ((0, 16_000), (100, 12_000), (100, 300), (12_000, 16_000), (15_999, 16_000)):
        found, _ = decode(memoryview(glued), "flac", first_frame=start, num_frames=stop - start)
        np.testing.assert_array_equal(found, first[start:stop])


def test_a_stretch_of_opus_is_decoded_from_the_beginning_of_a_short_clip() -> None:
    """The decoder has a state: of a voice that holds its tone, bits differ behind a shorter lead."""
    time = np.arange(4 * 16_000) / 16_000
    bend = 6 * np.sin(2 * np.pi * 3 * time)
    voice = sum(4000 / number * np.sin(2 * np.pi * number * (120 * time + bend)) for number in range(1, 12))
    data = encoded(np.int16(voice)[:, None], *LOSSY["opus"])
    whole, _ = decode(data, "opus")
    part, _ = decode(data, "opus", first_frame=60_001, num_frames=3000)
    np.testing.assert_array_equal(part, whole[60_001:63_001])


@pytest.mark.parametrize("codec", ["flac", "wav", "ogg"])
@pytest.mark.parametrize("said", [999, 1001])
def test_a_clip_that_is_longer_or_shorter_than_its_index_says_is_an_error(codec: str, said: int) -> None:
    data = encoded(noise(1000), *LOSSY.get(codec, (codec.upper(),)))
    with pytest.raises(SampleError, match=f"holds 1000 frames, its index says {said}") as caught:
        decode(data, codec, first_frame=10, num_frames=20, clip_frames=said)
    assert caught.value.reason == "differs"


@pytest.mark.parametrize(("codec", "subtype"), [("flac", "PCM_24"), ("wav", "PCM_24"), ("wav", "PCM_32")])
def test_deeper_integers_lose_their_lower_bits_the_same_way_whole_and_in_part(codec: str, subtype: str) -> None:
    wav = np.random.default_rng(0).integers(-(2**23), 2**23, (9000, 1), dtype=np.int32) << 8
    buffer = io.BytesIO()
    soundfile.write(buffer, wav, 44_100, format=codec.upper(), subtype=subtype)
    whole, _ = decode(buffer.getvalue(), codec)
    part, _ = decode(buffer.getvalue(), codec, first_frame=100, num_frames=5000)
    np.testing.assert_array_equal(whole, wav >> 16)
    np.testing.assert_array_equal(part, whole[100:5100])


@pytest.mark.parametrize(
    ("subtype", "channels", "first", "is_used"),
    [
        ("PCM_S8", 1, 0, True),
        ("PCM_16", 1, 0, True),
        ("PCM_24", 1, 0, False),
        ("PCM_16", 2, 0, False),
        ("PCM_16", 1, 9, False),
    ],
)
def test_floats_decoded_in_place_are_the_integers_over_32768(
    subtype: str, channels: int, first: int, is_used: bool
) -> None:
    wav = np.random.default_rng(1).integers(-(2**31), 2**31, (9000, channels), dtype=np.int64).astype(np.int32)
    wav[:2] = [[-(2**31)] * channels, [2**31 - 1] * channels]
    buffer = io.BytesIO()
    soundfile.write(buffer, wav, 16_000, format="FLAC", subtype=subtype)
    row = np.full(9001, 7.0, dtype=np.float32)
    found, rate = decode(buffer.getvalue(), "flac", first_frame=first, out=row)
    integers, _ = decode(buffer.getvalue(), "flac", first_frame=first)
    assert (rate, found.dtype) == (16_000, np.float32 if is_used else np.int16)
    assert np.shares_memory(found, row) == is_used
    np.testing.assert_array_equal(found, integers * np.float32(1 / 32768) if is_used else integers)
    assert (row[9000 if is_used else 0 :] == 7.0).all()


def test_floats_are_scaled_rounded_half_to_even_and_clipped() -> None:
    values = np.array([0.0, 0.5, 1.0, -1.0, 2.0, -2.0, 1.5 / 32768, 2.5 / 32768])
    expected = [0, 16384, 32767, -32768, 32767, -32768, 2, 2]
    assert float_to_int16(values).tolist() == expected
    buffer = io.BytesIO()
    soundfile.write(buffer, values, 8000, format="WAV", subtype="FLOAT")
    decoded, sample_rate = decode(buffer.getvalue(), "wav")
    assert (decoded[:, 0].tolist(), sample_rate) == (expected, 8000)
    buffer = io.BytesIO()
    soundfile.write(buffer, np.array([np.nan, np.inf, -np.inf]), 8000, format="WAV", subtype="FLOAT")
    assert decode(buffer.getvalue(), "wav")[0][:, 0].tolist() == [0, 32767, -32768]


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("codec", ["flac", "wav"])
def test_a_cut_file_is_an_error(codec: str, kept: float) -> None:
    data = encode(noise(50_000)[:, 0], 16_000, codec)
    with pytest.raises(SampleError) as caught:
        decode(data[: int(len(data) * kept)], codec)
    assert caught.value.reason == "decode"


def test_a_flipped_bit_in_any_flac_frame_is_an_error() -> None:
    data = bytearray(encode(noise(50_000)[:, 0], 16_000, "flac"))
    for position in np.linspace(len(data) // 10, len(data) - 10, 25, dtype=int):
        damaged = bytearray(data)
        damaged[position] ^= 0x10
        for stretch in ({}, {"first_frame": 12_000, "num_frames": 26_000}):
            with pytest.raises(SampleError) as caught:
                decode(bytes(damaged), "flac", **stretch)
            assert caught.value.reason == "decode"


@pytest.mark.parametrize("data", [b"", b"x", b"this is no audio", b"RIFF\0\0\0\0WAVE", b"fLaC", b"fLaC" + bytes(40)])
@pytest.mark.parametrize("codec", ["flac", "wav", "ogg", "opus", "mp3"])
def test_what_is_no_audio_is_an_error_without_addresses_in_it(data: bytes, codec: str) -> None:
    with pytest.raises(SampleError) as caught:
        decode(data, codec)
    assert caught.value.reason == "decode"
    assert "0x" not in str(caught.value)


def test_a_stretch_behind_the_end_is_an_error() -> None:
    for codec in ("flac", "wav"):
        data = encode(noise(1000)[:, 0], 16_000, codec)
        with pytest.raises(SampleError, match="holds 1000 frames"):
            decode(data, codec, first_frame=900, num_frames=101)
        with pytest.raises(UsageError):
            decode(data, codec, first_frame=-1)


def test_a_flac_header_that_claims_more_than_the_bytes_can_hold_allocates_nothing() -> None:
    data = bytearray(encode(noise(5000)[:, 0], 16_000, "flac"))
    data[21] |= 0x0F  # the upper bits of the number of frames
    data[22:26] = b"\xff" * 4
    with pytest.raises(SampleError, match="impossible"):
        decode(bytes(data), "flac")


def test_a_wav_written_to_a_pipe_lasts_until_the_end() -> None:
    wav = noise(1000)
    data = bytearray(encoded(wav, "WAV"))
    position = data.index(b"data")
    data[position + 4 : position + 8] = struct.pack("<I", 0xFFFFFFFF)
    np.testing.assert_array_equal(decode(bytes(data), "wav")[0], wav)


def test_chunks_before_the_sound_of_a_wav_are_stepped_over() -> None:
    wav = noise(1000)
    data = encoded(wav, "WAV")
    position = data.index(b"data")
    with_list = data[:position] + b"LIST" + struct.pack("<I", 5) + b"INFOx\0" + data[position:]
    np.testing.assert_array_equal(decode(with_list, "wav")[0], wav)
