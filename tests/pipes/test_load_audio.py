"""load_audio: values, stretches, channels, rates, and where the audio comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import soxr
import torch

import s3prl_stream as ss
from s3prl_stream.audio.encode import encode
from s3prl_stream.errors import ChainError, SampleError, UsageError
from s3prl_stream.pipes import LoadAudio
from s3prl_stream.pipes.outline import Outline, outline_of

RATE = 16_000


@pytest.fixture
def wav() -> np.ndarray[Any, np.dtype[np.int16]]:
    """Half a second of noise."""
    return np.random.default_rng(0).integers(-20_000, 20_000, RATE // 2).astype(np.int16)


def load(sample: dict[str, Any], **config: Any) -> dict[str, Any]:
    (out,) = list(LoadAudio(**config)([sample]))
    return out


@pytest.mark.parametrize("codec", ["flac", "wav"])
def test_the_samples_are_those_encoded(wav: Any, codec: str) -> None:
    sample = {"audio": encode(wav, RATE, codec), "codec": codec}
    as_int = load(sample, dtype="int16")
    assert as_int["wav"].dtype == torch.int16
    assert np.array_equal(as_int["wav"].numpy(), wav)
    as_float = load(sample)
    assert as_float["wav"].dtype == torch.float32
    assert np.array_equal(as_float["wav"].numpy(), wav.astype(np.float32) / 32768)
    assert "audio" not in as_float
    assert as_float["sample_rate"] == RATE


@pytest.mark.parametrize("codec", ["flac", "wav"])
@pytest.mark.parametrize(("first", "count"), [(0, 100), (1234, 4321), (7999, 1), (0, 8000)])
def test_only_the_stretch_is_decoded(wav: Any, codec: str, first: int, count: int) -> None:
    sample = {"audio": encode(wav, RATE, codec), "codec": codec, "first_frame": first, "num_frames": count}
    assert np.array_equal(load(sample, dtype="int16")["wav"].numpy(), wav[first : first + count])


def test_a_stretch_beyond_the_end_is_damage(wav: Any) -> None:
    sample = {"audio": encode(wav, RATE, "flac"), "codec": "flac", "first_frame": 7000, "num_frames": 2000}
    with pytest.raises(SampleError, match="8000 frames"):
        load(sample)


@pytest.mark.parametrize("rate", [8_000, 16_000, 44_100])
@pytest.mark.parametrize("codec", ["flac", "wav", "ogg", "opus", "mp3"])
def test_a_segment_is_a_slice_of_the_whole(tmp_path: Path, codec: str, rate: int) -> None:
    """Seconds count at the file's own rate, whatever rate comes out."""
    rng = np.random.default_rng(1)
    noise = np.convolve(rng.standard_normal(2 * rate), np.hanning(9) / 4, mode="same")
    path = tmp_path / f"file.{codec}"
    subtype = {"ogg": "VORBIS", "opus": "OPUS", "mp3": "MPEG_LAYER_III"}.get(codec)
    rate = 48_000 if codec == "opus" and rate == 44_100 else rate  # Opus has no such rate
    kind = {"ogg": "OGG", "opus": "OGG", "mp3": "MP3"}.get(codec)
    soundfile.write(path, 0.1 * noise, rate, format=kind, subtype=subtype)
    whole = load({"wav_path": str(path)}, sample_rate=None, dtype="int16")
    file_rate = whole["sample_rate"]
    for start, end in ((0.0, 0.5), (0.313, 1.701), (1.25, None), (None, 0.75), (0.9999, 1.00007), (0.5, 0.5)):
        segment = {"start_sec": start, "end_sec": end}
        sample = {"wav_path": str(path), **{key: value for key, value in segment.items() if value is not None}}
        first = round((start or 0.0) * file_rate)
        stop = len(whole["wav"]) if end is None else round(end * file_rate)
        cut = load(sample, sample_rate=None, dtype="int16", crop_segment=True)
        difference = (cut["wav"].int() - whole["wav"][first:stop].int()).abs()
        # floats of MP3 differ by 1e-8 after a seek, which may tip a rounding
        assert difference.sum() == 0 or (codec == "mp3" and difference.max() == 1), (start, end)
        assert len(load(sample, crop_segment=True)["wav"]) == int((stop - first) * 16_000 / file_rate + 0.5)
        assert len(load(sample, sample_rate=None)["wav"]) == len(whole["wav"]), "crop_segment=False: all of it"


def test_a_segment_outside_of_its_recording_is_damage(wav: Any) -> None:
    recording = {"wav": wav, "sample_rate": RATE, "start_sec": 0.25}
    assert len(load({**recording, "end_sec": 0.505}, crop_segment=True)["wav"]) == RATE // 4, "tables round"
    for start, end in ((0.25, 0.6), (0.25, 0.511), (-0.1, 0.2), (0.3, 0.2), (0.6, None)):
        with pytest.raises(SampleError, match=r"does not lie in its recording, which has 0.500 s") as caught:
            load({**recording, "start_sec": start, "end_sec": end}, crop_segment=True)
        assert caught.value.reason == "range"


def test_segments_and_planned_cuts_do_not_go_together(wav: Any) -> None:
    data = {"a": {"wav": np.tile(wav, 10), "sample_rate": RATE, "start_sec": 0.1, "end_sec": 0.3}}
    with pytest.raises(ChainError, match="what the stream cuts already"):
        ss.ShardStream(data, chunk_seconds=1.0).load_audio(crop_segment=True)
    with pytest.raises(UsageError, match=r"several times\. Raise max_batch_seconds"):
        list(ss.ShardStream(data, epochs=1, max_batch_seconds=2.0).load_audio(crop_segment=True))
    (sample,) = ss.ShardStream(data, epochs=1).load_audio(crop_segment=True)
    assert len(sample["wav"]) == round(0.2 * RATE)


@pytest.mark.parametrize("rate", [RATE, RATE // 2])
def test_segments_are_those_of_the_stretch(wav: Any, rate: int) -> None:
    speakers = {"b": [(0.0, 0.1), (0.2, 0.45)], "a": [(0.4, 0.5)], "c": [(0.0, 0.05)]}
    out = load(
        {"wav": wav, "sample_rate": rate, "start_sec": 0.25, "end_sec": 0.45, "segments": speakers}, crop_segment=True
    )
    found = [(one["label"], round(one["start"], 9), round(one["end"], 9)) for one in out["segments"]]
    assert found == [("b", 0.0, 0.2), ("a", 0.15, 0.2)]
    assert out["segment_labels"] == ["a", "b", "c"]
    whole = load({"wav": wav, "sample_rate": RATE, "segments": speakers}, crop_segment=True)
    assert whole["segments"] == speakers


def test_effects_are_applied_to_the_channel_at_the_files_rate() -> None:
    time = np.arange(8000) / 8000
    tone = np.round(10_000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    stereo = np.stack([tone, -tone], axis=1)
    plain = load({"wav": stereo, "sample_rate": 8000}, channel=1)
    softer = load({"wav": stereo, "sample_rate": 8000}, channel=1, sox_effects=[["gain", "-6.0"]])
    ratio = softer["wav"].square().mean().sqrt() / plain["wav"].square().mean().sqrt()
    assert 20 * np.log10(float(ratio)) == pytest.approx(-6.0, abs=0.01)
    # beyond half of the file's rate, so refused only if effects see that rate
    with pytest.raises(UsageError, match="lowpass"):
        load({"wav": tone, "sample_rate": 8000}, sox_effects=[["lowpass", "6000"]])
    faster = load({"wav": tone, "sample_rate": 8000, "segments": []}, sox_effects=[["speed", "2"]])
    assert len(faster["wav"]) == 8_000
    assert LoadAudio(sox_effects=[["speed", "0.8"]]).stretch == 1.25
    turns = [{"start": 0.2, "end": 0.4, "label": "a"}]
    for effect in ("speed", "tempo"):
        slower = load({"wav": tone, "sample_rate": 8000, "segments": turns}, sox_effects=[[effect, "0.5"]])
        assert slower["segments"] == [{"start": 0.4, "end": 0.8, "label": "a"}]
    with pytest.raises(UsageError, match="gian"):
        LoadAudio(sox_effects=[["gian", "-3"]])


def test_channels(tmp_path: Path, wav: Any) -> None:
    stereo = np.stack([wav, wav[::-1]], axis=1)
    soundfile.write(tmp_path / "two.wav", stereo, RATE)
    path = {"wav_path": str(tmp_path / "two.wav")}
    assert np.array_equal(load(path, dtype="int16")["wav"].numpy(), wav)
    assert np.array_equal(load(path, dtype="int16", channel=1)["wav"].numpy(), wav[::-1])
    mean = (stereo.astype(np.float64)).mean(axis=1)
    assert np.array_equal(load(path, dtype="int16", channel="mean")["wav"].numpy(), np.rint(mean))
    with pytest.raises(SampleError, match="channel 2 of 2"):
        load(path, channel=2)


def test_floats_become_the_nearest_int16_and_are_clipped_there() -> None:
    steps = np.array([0.4, 0.6, -0.6, 32_768, -32_768, 40_000, -40_000], np.float32)
    wav = load({"wav": steps / 32_768, "sample_rate": 16_000}, dtype="int16")["wav"]
    assert (wav.dtype, wav.tolist()) == (torch.int16, [0, 1, -1, 32_767, -32_768, 32_767, -32_768])


@pytest.mark.parametrize("dtype", ["float32", "int16"])
def test_another_rate_is_resampled(dtype: str) -> None:
    time = np.arange(8000) / 8000
    tone = np.round(10_000 * np.sin(2 * np.pi * 440 * time)).astype(np.int16)
    out = load({"wav": tone, "sample_rate": 8000}, dtype=dtype)
    assert out["sample_rate"] == 16_000
    assert len(out["wav"]) == 16_000
    value = out["wav"].numpy().astype(np.float64) * (1 if dtype == "int16" else 32768)
    expected = 10_000 * np.sin(2 * np.pi * 440 * np.arange(16_000) / 16_000)
    assert np.abs(value - expected)[200:-200].max() < 30  # 50 dB below the tone
    if dtype == "float32":
        best = soxr.resample(tone.astype(np.float32) / 32_768, 8_000, 16_000, quality="HQ")
        assert np.array_equal(out["wav"].numpy(), best)
    again = load({"wav": tone, "sample_rate": 8000}, dtype=dtype)
    assert torch.equal(again["wav"], out["wav"])  # no dither from the clock
    assert load({"wav": tone, "sample_rate": 8000}, sample_rate=None)["sample_rate"] == 8000


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_its_length_is_known_beforehand(rate: int) -> None:
    for num_frames in range(1_000, 1_012):
        (outline,) = LoadAudio().outline(Outline({}, num_frames, rate))
        loaded = load({"wav": np.zeros(num_frames, np.int16), "sample_rate": rate})["wav"]
        assert (outline.num_frames, outline.sample_rate) == (len(loaded), 16_000)


def test_the_length_of_a_stretch_of_bytes_is_known_beforehand(tmp_path: Path, wav: Any) -> None:
    soundfile.write(tmp_path / "a.flac", wav, RATE)
    stretch = {"key": "a", "audio": (tmp_path / "a.flac").read_bytes(), "codec": "flac", "first_frame": 1_000}
    for part in ({}, {"num_frames": 700}):
        assert outline_of({**stretch, **part}).num_frames == len(load({**stretch, **part}, sample_rate=None)["wav"])


@pytest.mark.parametrize(
    ("wav", "says"),
    [
        (np.ones(3, np.int32), r"int32 \[3\].*Scale other integers"),
        (np.full(3, 128, np.uint8), r"uint8 \[3\].*Scale other integers"),
        (torch.ones(3, dtype=torch.int64), r"int64 \[3\].*Scale other integers"),
        ("a.wav", r'U5 \[\].*Call a path "wav_path"'),
        (torch.ones(1, 3), r"3 channels of 1 samples.*give wav\.T"),
        (torch.ones(2, 160), r"160 channels of 2 samples.*give wav\.T"),
        (torch.tensor(1.0), r"float32 \[\]"),
    ],
)
def test_an_array_that_would_be_misread_is_refused(wav: Any, says: str) -> None:
    with pytest.raises(UsageError, match=f"load_audio: sample 'a' has .*{says}"):
        load({"key": "a", "wav": wav})


@pytest.mark.parametrize(
    ("sample", "says"),
    [
        ({"audio": b"abc"}, "a bytes as 'audio' and None as 'codec'; expected the bytes of a file"),
        ({"audio": Path("a.wav")}, 'a PosixPath as .* Call a path "wav_path"'),
        ({"audio": {"array": np.ones(3), "sampling_rate": 8000}}, 'a dict as .* give the array as "wav"'),
        ({"wav": np.ones(3), "sample_rate": None}, "has the sample_rate None; expected Hz > 0"),
        ({"wav": np.ones(3), "sample_rate": 0}, "has the sample_rate 0; expected Hz > 0"),
        ({"wav_path": None}, "neither audio bytes nor wav_path nor wav"),
    ],
)
def test_what_is_no_audio_is_told(sample: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=f"load_audio: sample 'a' .*{says}"):
        load({"key": "a", **sample})


def test_a_value_of_none_is_none_at_all(tmp_path: Path, wav: Any) -> None:
    soundfile.write(tmp_path / "a.wav", wav, RATE)
    chain = LoadAudio(dtype="int16")([{"wav": None, "audio_path": None, "wav_path": str(tmp_path / "a.wav")}])
    assert np.array_equal(next(iter(chain))["wav"].numpy(), wav)
    (outline,) = chain.source.outlines([])  # type: ignore[union-attr]
    assert outline.num_frames == len(wav)


@pytest.mark.parametrize("start", ["soon", float("nan"), float("inf")])
def test_a_segment_that_is_not_told_in_seconds_is_damage(wav: Any, start: Any) -> None:
    with pytest.raises(SampleError, match="is not told in seconds") as caught:
        load({"wav": wav, "start_sec": start}, crop_segment=True)
    assert caught.value.reason == "range"


@pytest.mark.parametrize("wav", [np.ones(3), torch.ones(3, 1), np.ones((3, 2), np.float16), [1.0, 1.0, 1.0]])
def test_arrays_of_floats_become_float32(wav: Any) -> None:
    loaded = load({"wav": wav})["wav"]
    assert (loaded.dtype, loaded.tolist()) == (torch.float32, [1.0, 1.0, 1.0])


def test_a_sample_without_audio_is_an_error() -> None:
    with pytest.raises(ChainError, match=r"LoadAudio takes 'audio' or .*'wav_path'.*PlainSource gives: .*text"):
        load({"text": "A"})
    with pytest.raises(UsageError, match="'1' has neither audio bytes nor wav_path nor wav"):
        list(LoadAudio()([{"wav": np.zeros(9, np.float32)}, {"text": "A"}]))


def test_a_file_that_cannot_be_read_costs_itself_alone(tmp_path: Path, wav: Any) -> None:
    soundfile.write(tmp_path / "good.wav", wav, RATE)
    (tmp_path / "text.wav").write_text("no audio")
    data = {name: {"wav_path": str(tmp_path / f"{name}.wav")} for name in ("good", "text", "absent")}
    loader = ss.Loader(ss.ShardStream(data, epochs=1).load_audio())
    assert [key for batch in loader for key in batch["key"]] == ["good"]
    listed = {one["key"]: one for one in loader.damaged}
    assert {name: one["reason"] for name, one in listed.items()} == {"text": "decode", "absent": "missing"}
    assert str(tmp_path / "absent.wav") in listed["absent"]["message"]
