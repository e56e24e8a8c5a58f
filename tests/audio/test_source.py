"""Source files: exact where nothing has to change, faithful where it does, and strict about damage."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tars import encoded

from s3prl_stream.audio.decode import decode
from s3prl_stream.audio.glued import may_be_glued
from s3prl_stream.audio.lengths import length_in
from s3prl_stream.audio.ogg import with_fixed_serial
from s3prl_stream.audio.open_source import is_glued
from s3prl_stream.audio.silences import levels_db
from s3prl_stream.audio.source import levels_of_source, probe, read_flac_unchecked, read_source, stretch_frames
from s3prl_stream.errors import SampleError

RATE = 16_000


def write(path: Path, wav: np.ndarray, sample_rate: int = RATE, subtype: str = "PCM_16") -> str:
    soundfile.write(path, wav, sample_rate, subtype=subtype)
    return str(path)


def tone(seconds: float, sample_rate: int = RATE, hertz: float = 440.0) -> np.ndarray:
    return 0.5 * np.sin(2 * np.pi * hertz * np.arange(int(seconds * sample_rate)) / sample_rate)


def reason_of(path: str, **settings: object) -> str:
    with pytest.raises(SampleError) as caught:
        read_source(path, **{"sample_rate": RATE, **settings})  # type: ignore[arg-type]
    return caught.value.reason


@pytest.mark.parametrize("suffix", ["flac", "wav"])
def test_16_bits_at_the_wanted_rate_pass_unchanged(tmp_path: Path, suffix: str) -> None:
    wav = np.random.default_rng(0).integers(-32768, 32768, (9000, 2), dtype=np.int16)
    path = write(tmp_path / f"a.{suffix}", wav)
    for channel, number in (("first", 0), (0, 0), (1, 1)):
        np.testing.assert_array_equal(read_source(path, sample_rate=RATE, channel=channel), wav[:, number])
    np.testing.assert_array_equal(read_source(path, first_frame=1000, stop_frame=1500, sample_rate=RATE),
                                  wav[1000:1500, 0])  # fmt: skip


@pytest.mark.parametrize("lengths", [(16_000, 24_000), (48_000, 24_000), (40_000, 40_000), (8_000, 300_000)])
@pytest.mark.parametrize("suffix", ["flac", "ogg", "wav"])
def test_of_files_glued_into_one_the_first_is_read(tmp_path: Path, suffix: str, lengths: tuple[int, int]) -> None:
    """Whatever is wanted of it: libsndfile would seek into the second for the first one's last frames, or give up; and
    does not find the end of an Ogg behind which there are more than 64 kB."""
    rng = np.random.default_rng(0)
    files = [tmp_path / f"{number}.{suffix}" for number in range(3)]
    for file, length in zip(files, lengths, strict=False):
        soundfile.write(file, rng.integers(-3000, 3000, length, dtype=np.int16), RATE)
    files[2].write_bytes(files[0].read_bytes() + files[1].read_bytes())
    first = read_source(str(files[0]), sample_rate=RATE)
    end, path = lengths[0], str(files[2])
    assert probe(path).frames == length_in(files[2].read_bytes(), suffix).frames == end
    for start, stop in ((0, end), (100, 300), (end - 5000, end - 10), (end - 100, end)):
        found = read_source(path, first_frame=start, stop_frame=stop, sample_rate=RATE)
        np.testing.assert_array_equal(found, first[start:stop])
        found = decode(files[2].read_bytes(), suffix, first_frame=start, num_frames=stop - start)[0][:, 0]
        np.testing.assert_array_equal(found, first[start:stop])
    levels, hop = levels_of_source(path, end - 5120, end, "first")
    np.testing.assert_array_equal(levels, levels_db(first[end - 5120 :], hop))


@pytest.mark.parametrize("codec", ["ogg", "opus"])
def test_of_oggs_with_one_serial_number_the_first_is_read(tmp_path: Path, codec: str) -> None:
    """As encoders give them that draw none: libsndfile gave the first the length of the second, and it was cut."""
    path, first = tmp_path / "a.ogg", with_fixed_serial(encoded(codec, 48_000))
    path.write_bytes(first + with_fixed_serial(encoded(codec, 24_000)))
    assert (probe(str(path)).frames, is_glued(str(path))) == (48_000, True)
    np.testing.assert_array_equal(read_source(str(path), sample_rate=RATE), decode(first, codec)[0][:, 0])


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\0\x10" + bytes(16)])
def test_frames_behind_those_that_an_mp3_counts_are_told(tmp_path: Path, tag: bytes) -> None:
    """libsndfile reads those that are counted. A tag behind them, or a frame that is not counted, is no other MP3."""
    path, first, second = tmp_path / "a.mp3", encoded("mp3", 16_000), encoded("mp3", 24_000)
    last_frame = first[first.rindex(b"\xff\xf3") :]
    for behind, is_another in ((tag + second, True), (b"", False), (b"TAG" + bytes(125), False)):
        path.write_bytes(tag + first + behind)
        assert (probe(str(path)).frames, is_glued(str(path))) == (16_000, is_another)
    path.write_bytes(first + last_frame + b"APETAGEX" + bytes(5000))
    assert not is_glued(str(path))


def test_a_stretch_of_any_codec_is_that_of_the_whole(tmp_path: Path) -> None:
    """libsndfile's seeks restore no state of Opus, no reservoir of MP3, and miss the last page of Vorbis by what is cut
    off at its end."""
    rng = np.random.default_rng(0)
    wav = (0.3 * tone(3.0) + 0.1 * rng.normal(size=3 * RATE)).astype(np.float32)
    wav[RATE : 2 * RATE] *= 1e-3  # of which an MP3 takes few bytes, and keeps the others for what follows
    vbr = {"bitrate_mode": "VARIABLE", "compression_level": 0.7}
    for suffix, subtype, given in (
        ("flac", "PCM_24", {}),
        ("wav", "FLOAT", {}),
        ("ogg", "VORBIS", {}),
        ("opus", "OPUS", {}),
        ("mp3", "MPEG_LAYER_III", vbr),
    ):
        path = tmp_path / f"a.{suffix}"
        soundfile.write(path, wav, RATE, subtype, format="OGG" if suffix == "opus" else None, **given)
        whole, data = read_source(str(path), sample_rate=RATE), path.read_bytes()
        decoded = decode(data, suffix)[0][:, 0]
        assert len(whole) == len(decoded) == len(wav)
        for start in (1, 20_001, 36_000, 40_000, 45_000, 47_900, 47_999):
            stop = min(start + 500, len(whole))
            found = read_source(str(path), first_frame=start, stop_frame=stop, sample_rate=RATE)
            np.testing.assert_allclose(found.astype(int), whole[start:stop], rtol=0, atol=suffix == "mp3")
            part = decode(data, suffix, first_frame=start, num_frames=stop - start)[0][:, 0]
            np.testing.assert_allclose(part.astype(int), decoded[start:stop], rtol=0, atol=suffix == "mp3")


def test_an_opus_of_more_than_a_block_is_whole_to_its_last_samples(tmp_path: Path) -> None:
    """soundfile seeks behind each block that it has read, which loses the decoder's state near the end."""
    path = tmp_path / "a.opus"
    wav = np.random.default_rng(0).normal(scale=0.1, size=(1 << 20) + 10)
    wav[: 1 << 19] = 0
    soundfile.write(path, wav, RATE, "OPUS", format="OGG")
    with soundfile.SoundFile(path) as sound:
        expected = sound.read(len(wav), dtype="float32")
    np.testing.assert_array_equal(read_source(str(path), sample_rate=RATE), np.rint(expected * 32768))


def test_a_short_flac_of_another_rate_behind_the_first_is_seen(tmp_path: Path) -> None:
    """Its frames are not taken for those of the first, whose last one is near the end of the file, as it should be."""
    for number, rate in enumerate((RATE, RATE // 2)):
        soundfile.write(tmp_path / f"{number}.flac", tone(0.2), rate)
    first, second = ((tmp_path / f"{number}.flac").read_bytes() for number in range(2))
    assert [may_be_glued(content) for content in (first, second, first + second)] == [False, False, True]


def test_one_flac_is_known_without_reading_it(real_data: Path) -> None:
    for path in sorted((real_data / "LibriSpeech").rglob("*.flac"))[:20]:
        assert not may_be_glued(path.read_bytes())


def test_the_mean_of_opposed_channels_is_silence(tmp_path: Path) -> None:
    wav = np.random.default_rng(0).integers(-32767, 32768, 9000, dtype=np.int16)
    path = write(tmp_path / "a.flac", np.stack([wav, -wav], axis=1))
    assert not read_source(path, sample_rate=RATE, channel="mean").any()


@pytest.mark.parametrize("source_rate", [8000, 22_050, 44_100, 48_000])
def test_resampling_keeps_length_pitch_and_level(tmp_path: Path, source_rate: int) -> None:
    path = write(tmp_path / "a.wav", tone(2.0, source_rate), source_rate)
    wav = read_source(path, sample_rate=RATE)
    assert abs(len(wav) - 2 * RATE) <= 1
    inner = slice(RATE // 4, RATE * 7 // 4)
    error = wav[inner] / 32768 - tone(2.0)[inner]
    assert 10 * np.log10(np.mean(error**2) / 0.125) < -60
    constant = write(tmp_path / "b.wav", np.full(source_rate, 30_000, np.int16), source_rate)
    assert (read_source(constant, sample_rate=RATE)[RATE // 4 : RATE * 3 // 4] == 30_000).all()


def test_24_bits_are_rounded_and_clipped(tmp_path: Path) -> None:
    values = (np.array([0x7FFFFF, -0x800000, 0x000180, 0x000080, 0x0000C0]) << 8).astype(np.int32)
    for suffix in ("flac", "wav"):
        path = write(tmp_path / f"a.{suffix}", values, subtype="PCM_24")
        assert read_source(path, sample_rate=RATE).tolist() == [32767, -32768, 2, 0, 1]


def test_levels_are_those_of_16_bits_whatever_the_source_has(tmp_path: Path) -> None:
    paths = [write(tmp_path / f"{name}.wav", tone(0.2), subtype=name) for name in ("PCM_16", "PCM_24", "FLOAT")]
    levels = [levels_of_source(path, 160, 3200, "first") for path in paths]
    assert {hop for _, hop in levels} == {160}
    for of_one, _ in levels:
        np.testing.assert_allclose(of_one, np.full(19, 10 * np.log10(0.125)), atol=0.5)


def test_loud_floats_clip_and_do_not_wrap(tmp_path: Path) -> None:
    path = write(tmp_path / "a.wav", np.array([3.0, -3.0, 0.25]), subtype="FLOAT")
    assert read_source(path, sample_rate=RATE).tolist() == [32767, -32768, 8192]
    path = write(tmp_path / "b.wav", np.array([3e38, 0.0]), subtype="FLOAT")
    assert read_source(path, sample_rate=RATE).tolist() == [32767, 0]
    for value in (np.nan, np.inf):
        path = write(tmp_path / "c.wav", np.array([value, 0.0]), subtype="FLOAT")
        assert reason_of(path) == "decode"
        with pytest.raises(SampleError, match="not finite"):
            levels_of_source(path, 0, 2, "first")


def test_damage_is_found(tmp_path: Path) -> None:
    whole = Path(write(tmp_path / "a.flac", tone(2.0) + 0.1 * np.random.default_rng(0).normal(size=2 * RATE)))
    data = whole.read_bytes()
    flipped, cut, changed_md5 = (tmp_path / f"{name}.flac" for name in ("flipped", "cut", "md5"))
    flipped.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :])
    cut.write_bytes(data[: len(data) // 2])
    changed_md5.write_bytes(data[:26] + bytes([data[26] ^ 1]) + data[27:])
    no_md5 = tmp_path / "no_md5.flac"  # zeros say that it is unknown
    no_md5.write_bytes(data[:26] + bytes(16) + data[42:])
    np.testing.assert_array_equal(read_source(str(no_md5), sample_rate=RATE), read_source(str(whole), sample_rate=RATE))
    text, nothing = tmp_path / "text.wav", tmp_path / "nothing.flac"
    text.write_text("not audio at all")
    nothing.touch()
    cut_wav = tmp_path / "cut.wav"
    cut_wav.write_bytes(Path(write(tmp_path / "b.wav", tone(1.0))).read_bytes()[:-100])
    cut_float = tmp_path / "cut_float.wav"
    cut_float.write_bytes(Path(write(tmp_path / "c.wav", tone(1.0), subtype="FLOAT")).read_bytes()[:-100])
    found = {path.name: reason_of(str(path)) for path in (flipped, cut, changed_md5, text, nothing, cut_wav, cut_float)}
    assert found == {
        "flipped.flac": "decode",
        "cut.flac": "decode",
        "md5.flac": "md5",
        "text.wav": "decode",
        "nothing.flac": "empty",
        "cut.wav": "decode",
        "cut_float.wav": "decode",
    }
    cut.write_bytes(data[:26] + bytes(16) + data[42 : len(data) // 2])  # whose MD5 nobody can compare
    with pytest.raises(SampleError) as caught:
        read_flac_unchecked(str(cut))
    assert caught.value.reason == "decode"
    assert reason_of(str(tmp_path / "absent.flac")) == "missing"
    assert reason_of(str(tmp_path)) == "unreadable"
    assert reason_of(str(whole), channel=1) == reason_of(str(whole), channel=-1) == "channel"
    assert reason_of(str(whole), stop_frame=2 * RATE + 1) == "decode"


def test_files_written_to_a_pipe(tmp_path: Path) -> None:
    """A WAV lasts until the end of its file; of a FLAC without a length nobody could say whether it is whole."""
    wav = np.random.default_rng(0).integers(-3000, 3000, 9000, dtype=np.int16)
    piped = Path(write(tmp_path / "a.wav", wav))
    data = bytearray(piped.read_bytes())
    position = data.index(b"data")
    data[4:8] = data[position + 4 : position + 8] = b"\xff" * 4
    piped.write_bytes(data)
    assert probe(str(piped)).frames == 9000
    np.testing.assert_array_equal(read_source(str(piped), sample_rate=RATE), wav)
    flac = Path(write(tmp_path / "a.flac", wav))
    data = bytearray(flac.read_bytes())
    data[21:26] = bytes([data[21] & 0xF0, 0, 0, 0, 0])
    flac.write_bytes(data)
    with pytest.raises(SampleError, match="encode it again"):
        probe(str(flac))


@pytest.mark.parametrize("tag", [b"", b"ID3\4\0\0\0\0\x47\x10" + bytes(0x47 * 128 + 0x10)])
def test_an_mp3_without_a_count_of_frames_is_read_to_its_end(tmp_path: Path, tag: bytes) -> None:
    """Loud, then silent: libsndfile takes the first frame's bit rate for that of all, and finds a quarter."""
    wav = np.zeros((8 * RATE, 2))
    wav[:RATE] = np.random.default_rng(0).normal(scale=0.2, size=(RATE, 2))
    counted = tmp_path / "counted.mp3"
    soundfile.write(counted, wav, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    data = counted.read_bytes()
    assert probe(str(counted)).frames == len(wav)
    path = tmp_path / "a.mp3"
    path.write_bytes(tag + data[data.index(b"\xff", 4) :])  # without its Xing frame
    whole, _ = decode(path.read_bytes(), "mp3")
    assert soundfile.info(path).frames < len(whole) / 2
    info = probe(str(path))
    assert (info.frames, info.sample_rate, info.channels) == (len(whole), RATE, 2)
    assert info.kind == probe(str(counted)).kind
    np.testing.assert_array_equal(read_source(str(path), sample_rate=RATE, channel=1), whole[:, 1])
    first, stop = RATE - 5, 5 * RATE + 3
    np.testing.assert_array_equal(
        read_source(str(path), first_frame=first, stop_frame=stop, sample_rate=RATE), whole[first:stop, 0]
    )
    assert reason_of(str(path), stop_frame=len(whole) + 1) == "decode"


def test_a_name_that_is_not_utf8_is_a_name(tmp_path: Path) -> None:
    wav = np.arange(100, dtype=np.int16)
    for suffix in ("wav", "flac"):
        path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9." + suffix.encode())
        os.rename(write(tmp_path / f"a.{suffix}", wav), path)
        assert probe(path).frames == 100
        np.testing.assert_array_equal(read_source(path, sample_rate=RATE), wav)


def test_what_is_no_file_or_has_no_header_is_said(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")  # opened as a file it would be waited for
    (tmp_path / "a.raw").write_bytes(bytes(1000))
    found = [reason_of(str(tmp_path / name)) for name in ("pipe.wav", "a.raw", "a\0b.wav", "\ud800.wav")]
    assert found == ["unreadable", "decode", "missing", "missing"]
    assert reason_of("/dev/null") == "unreadable"
    with pytest.raises(SampleError, match="named pipe"):
        probe(str(tmp_path / "pipe.wav"))


def test_a_count_of_frames_that_no_such_file_can_hold_is_damage(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    soundfile.write(path, np.zeros(RATE), RATE, format="MP3")
    data = bytearray(path.read_bytes())
    at = next(data.index(name) for name in (b"Xing", b"Info") if name in data)
    data[at + 8] = 0x7F  # of the count, which stands behind the flags
    path.write_bytes(data)
    with pytest.raises(SampleError, match="impossible"):
        probe(str(path))


def test_headers_say_what_is_there(tmp_path: Path) -> None:
    path = write(tmp_path / "a.flac", np.zeros((4000, 2)), 8000)
    info = probe(path)
    assert (info.frames, info.sample_rate, info.channels, info.kind, info.seconds) == (
        4000,
        8000,
        2,
        "FLAC PCM_16",
        0.5,
    )
    empty = write(tmp_path / "b.wav", np.zeros(0))
    with pytest.raises(SampleError, match="no frames"):
        probe(empty)


def test_stretches_are_frames_at_the_files_own_rate(tmp_path: Path) -> None:
    info = probe(write(tmp_path / "a.wav", np.zeros(80_000), 8000))
    assert stretch_frames(info, None, None) == (0, 80_000)
    assert stretch_frames(info, 1.0, 2.5) == (8000, 20_000)
    assert stretch_frames(info, 9.0, 10.009) == (72_000, 80_000)
    assert stretch_frames(info, 9.0, 9.991) == (72_000, 80_000)
    for start, end in ((9.0, 10.02), (10.0, None), (3.0, 3.0), (4.0, 3.0), (-1e308, 1.0), (0.0, 1e308)):
        with pytest.raises(SampleError) as caught:
            stretch_frames(info, start, end)
        assert caught.value.reason == "range"


def test_odd_recordings_decode_or_say_why(real_data: Path) -> None:
    reasons = {}
    for path in sorted((real_data / "odd").glob("*.*")):
        try:
            wav = read_source(str(path), sample_rate=RATE, channel="mean")
            assert wav.dtype == np.int16
            assert len(wav)
        except SampleError as error:
            reasons[path.name] = error.reason
    assert reasons == {
        "cut_in_half.flac": "decode",
        "no_frames.wav": "empty",
        "text_not_audio.wav": "decode",
        "zero_bytes.flac": "empty",
    }


@pytest.mark.parametrize("beside", [b"", b"\0\5\x16\7" + bytes(300), b"x" * 300])
def test_what_macos_leaves_beside_a_file_is_not_read(beside: bytes, tmp_path: Path) -> None:
    """libsndfile takes `._x.mp3` for the resource fork of `x.mp3`, and then for its sound."""
    path = tmp_path / "x.mp3"
    soundfile.write(path, np.zeros(16_000, np.int16), 16_000, format="MP3")
    (tmp_path / "._x.mp3").write_bytes(beside)
    assert probe(str(path)).frames == 16_000
    assert len(read_source(str(path), sample_rate=16_000)) == 16_000
