"""The length of a clip from few of its bytes is exactly that of its decoding."""

from __future__ import annotations

import io
import struct
import tracemalloc

import numpy as np
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from s3prl_stream.audio.decode import decode, mp3_says_its_length
from s3prl_stream.audio.lengths import ClipLength, clip_length, rate_in_head
from s3prl_stream.errors import SampleError

FORMATS = {
    "flac": ("FLAC", "PCM_16"),
    "wav": ("WAV", "PCM_16"),
    "wav float": ("WAV", "FLOAT"),
    "wav adpcm": ("WAV", "IMA_ADPCM"),
    "wav ulaw": ("WAV", "ULAW"),
    "wav aiff": ("AIFF", "PCM_16"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
}


def encoded(kind: str, frames: int, rate: int = 16_000, channels: int = 1) -> bytes:
    """Noise of `frames` frames."""
    container, subtype = FORMATS[kind]
    noise = np.random.default_rng(frames).standard_normal((frames, channels)) * 0.1
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", rate, channels, format=container, subtype=subtype) as sound:
        for start in range(0, frames, rate):  # libsndfile's Vorbis overflows its stack on long writes
            sound.write(noise[start : start + rate])
    return file.getvalue()


def without_xing(mp3: bytes) -> bytes:
    """The same MP3 as an encoder writes it to a pipe: without the frame that counts the frames."""
    start = mp3.index(b"\xff")
    return mp3[mp3.index(mp3[start : start + 2], start + 4) :]


def flac_of_unknown_length(flac: bytes) -> bytes:
    """The same FLAC as an encoder writes it to a pipe."""
    return flac[:21] + bytes([flac[21] & 0xF0]) + bytes(4) + flac[26:]


FLAC, OGG, OPUS, MP3 = (encoded(kind, 2000) for kind in ("flac", "ogg", "opus", "mp3"))


class Counted:
    """A clip that notes what is read of it."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.touched: set[int] = set()

    def read(self, offset: int, size: int) -> bytes:
        piece = self.data[offset : offset + size]
        self.touched.update(range(offset // 512, -(-(offset + len(piece)) // 512)))
        return piece


def length_of(data: bytes, kind: str) -> ClipLength:
    return clip_length(Counted(data).read, len(data), kind.split()[0])


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(frames=st.integers(1, 40_000), rate=st.sampled_from([8000, 16_000, 24_000, 48_000]), channels=st.integers(1, 2))
def test_the_length_is_that_of_decoding(kind: str, frames: int, rate: int, channels: int) -> None:
    data = encoded(kind, frames, rate, channels)
    length = length_of(data, kind)
    wav, decoded_rate = decode(data, kind.split()[0])
    assert length == ClipLength(len(wav), decoded_rate, False)
    half, _ = decode(
        data, kind.split()[0], first_frame=length.frames // 2, num_frames=length.frames - length.frames // 2
    )
    assert len(half) == length.frames - length.frames // 2


@pytest.mark.parametrize("kind", ["flac", "flac to a pipe", "wav", "ogg", "opus", "mp3", "mp3 to a pipe"])
@settings(max_examples=10)
@given(frames=st.integers(1200, 9000), rate=st.sampled_from([8000, 16_000, 24_000, 48_000]), channels=st.integers(1, 2))
def test_the_rate_is_in_the_head_of_what_does_not_tell_its_length_there(
    kind: str, frames: int, rate: int, channels: int
) -> None:
    codec = kind.split()[0]
    data = encoded(codec, frames, rate, channels)
    if kind.endswith("pipe"):
        data = {"flac": flac_of_unknown_length, "mp3": without_xing}[codec](data)
    tells_its_length = kind in ("flac", "wav")
    expected = None if tells_its_length else length_of(data, codec).sample_rate
    tagged = b"ID3\4\0\0\0\0\x27\x10" + bytes(0x27 * 128 + 0x10) + data if codec == "mp3" else data
    for one in (data, tagged):
        assert rate_in_head(lambda at, size, one=one: one[at : at + size], len(one), codec) == expected


@pytest.mark.parametrize("codec", ["flac", "ogg", "opus", "mp3"])
@given(data=st.data())
def test_no_head_breaks_the_rate(codec: str, data: st.DataObject) -> None:
    good = {"flac": flac_of_unknown_length(FLAC), "ogg": OGG, "opus": OPUS, "mp3": MP3}[codec]
    head = bytearray(good[: data.draw(st.integers(0, 300))])
    for at in data.draw(st.lists(st.integers(0, max(len(head) - 1, 0)), max_size=4)):
        head[at : at + 1] = bytes([data.draw(st.integers(0, 255))])
    rate = rate_in_head(lambda at, size: bytes(head[at : at + size]), len(head), codec)
    assert rate is None or rate >= 0


@pytest.mark.parametrize("rate", [16_000, 44_100])
def test_an_mp3_without_a_header_is_decoded_to_its_end(rate: int) -> None:
    data = encoded("mp3", 20 * rate, rate)
    bare = without_xing(data)
    assert (mp3_says_its_length(data), mp3_says_its_length(bare)) == (True, False)
    at = data.index(b"Xing")
    assert mp3_says_its_length(data[:at] + b"Info" + data[at + 4 :])  # as it is called where all frames are of a size
    assert not mp3_says_its_length(data[: at + 7] + bytes([data[at + 7] & 0xFE]) + data[at + 8 :])  # with no count
    length = length_of(bare, "mp3")
    wav, decoded_rate = decode(bare, "mp3")
    assert length == ClipLength(len(wav), decoded_rate, True)
    assert 20 * rate <= len(wav) < 20 * rate + 4 * 1152  # not trimmed: only the header says by how much
    middle, _ = decode(bare, "mp3", first_frame=70_000, num_frames=1000)
    np.testing.assert_array_equal(middle, wav[70_000:71_000])
    assert soundfile.info(io.BytesIO(bare)).frames != len(wav)  # what libsndfile alone would have guessed


def test_a_flac_that_was_written_to_a_pipe_is_decoded() -> None:
    data = encoded("flac", 200_000)
    bare = flac_of_unknown_length(data)
    assert length_of(bare, "flac") == ClipLength(200_000, 16_000, True)
    wav, _ = decode(data, "flac")
    np.testing.assert_array_equal(decode(bare, "flac")[0], wav)
    np.testing.assert_array_equal(decode(bare, "flac", first_frame=65_000, num_frames=70_000)[0], wav[65_000:135_000])
    with pytest.raises(SampleError, match="the clip holds 200000 frames"):
        decode(bare, "flac", first_frame=0, num_frames=200_001)
    for said in (65_536, 199_999, 200_001):  # the first of them is where a block of decoding ends
        with pytest.raises(SampleError, match=f"its index says {said}"):
            decode(bare, "flac", num_frames=said, clip_frames=said)


@pytest.mark.parametrize(
    ("kind", "most_blocks"),
    [("flac", 8), ("wav", 8), ("ogg", 600), pytest.param("opus", 600, marks=pytest.mark.slow), ("mp3", 300)],
)
def test_few_bytes_are_read(kind: str, most_blocks: int) -> None:
    clip = Counted(encoded(kind, 16_000 * 120))
    clip_length(clip.read, len(clip.data), kind)
    assert len(clip.touched) <= most_blocks < len(clip.data) // 512


def test_remarks_before_the_sound_are_passed() -> None:
    wav = encoded("wav", 1000)
    remark = b"LIST" + struct.pack("<I", 100_000) + bytes(100_000)
    assert length_of(wav[:12] + remark + wav[12:], "wav").frames == 1000
    picture = b"ID3\x04\0\0" + bytes([0, 6, 13, 32]) + bytes(6 << 14 | 13 << 7 | 32)
    assert length_of(picture + encoded("mp3", 5000), "mp3") == ClipLength(5000, 16_000, False)
    assert length_of(picture + encoded("flac", 5000), "flac") == ClipLength(5000, 16_000, False)


def test_a_header_that_lies_is_refused() -> None:
    flac = bytearray(encoded("flac", 16_000))
    flac[21:26] = bytes([flac[21] | 0x0F]) + b"\xff" * 4
    with pytest.raises(SampleError, match="68719476735 frames") as caught:
        length_of(bytes(flac), "flac")
    assert caught.value.reason == "decode"
    ogg = bytearray(encoded("opus", 16_000))
    last = ogg.rindex(b"OggS")
    ogg[last + 6 : last + 14] = struct.pack("<q", 1 << 60)
    with pytest.raises(SampleError) as caught:
        length_of(bytes(ogg), "opus")
    assert caught.value.reason == "decode"


@pytest.mark.parametrize("kind", ["wav", "wav float"])
def test_what_holds_no_frames_is_empty(kind: str) -> None:
    with pytest.raises(SampleError, match="no frames") as caught:
        length_of(encoded(kind, 0), kind)
    assert caught.value.reason == "empty"


@pytest.mark.parametrize("codec", ["flac", "wav", "ogg", "opus", "mp3"])
def test_what_is_no_audio_is_refused(codec: str) -> None:
    for data in (
        b"",
        b"x" * 3000,
        b"fLaC",
        b"RIFF\0\0\0\0WAVE",
        b"OggS" + bytes(50),
        b"\xff\xfb\x90\0" + bytes(100),
        bytes(5000),
    ):
        with pytest.raises(SampleError) as caught:
            length_of(data, codec)
        assert caught.value.reason in ("empty", "decode")


@pytest.mark.parametrize("codec", ["flac", "wav", "ogg", "opus", "mp3"])
@settings(max_examples=40)
@given(data=st.data())
def test_damaged_headers_raise_nothing_else(codec: str, data: st.DataObject) -> None:
    clip = bytearray(encoded(codec, 3000))
    for _ in range(data.draw(st.integers(1, 4))):
        clip[data.draw(st.integers(0, min(len(clip) - 1, 400)))] = data.draw(st.integers(0, 255))
    cut = data.draw(st.integers(0, len(clip)))
    try:
        length = length_of(bytes(clip[:cut]), codec)
        wav, _ = decode(bytes(clip[:cut]), codec, num_frames=min(length.frames, 10**6))
    except SampleError as error:
        found = error.reason
    else:
        found = "sound"
        assert len(wav) <= 10**6
    assert found in ("sound", "empty", "decode")


def test_a_flac_bomb_takes_time_and_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    silence = io.BytesIO()
    with soundfile.SoundFile(silence, "w", 16_000, 1, format="FLAC", subtype="PCM_16") as sound:
        for _ in range(100):
            sound.write(np.zeros(160_000, dtype=np.int16))
    bomb = flac_of_unknown_length(silence.getvalue())
    tracemalloc.start()
    assert length_of(bomb, "flac") == ClipLength(16_000_000, 16_000, True)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4_000_000  # 32 MB of sound
    for limit, most in (("MAX_DECODED_FRAMES", 1_000_000), ("MAX_DECODED_BYTES", len(bomb) - 1)):
        with monkeypatch.context() as patch:
            patch.setattr(f"s3prl_stream.audio.lengths.{limit}", most)
            with pytest.raises(SampleError) as caught:
                length_of(bomb, "flac")
        assert caught.value.reason == "too_large"
