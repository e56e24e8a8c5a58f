"""load_audio: values, stretches, channels, rates, and where the audio comes from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch

from s3prl_stream.audio.encode import encode
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.pipes import LoadAudio

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


def test_channels(tmp_path: Path, wav: Any) -> None:
    stereo = np.stack([wav, wav[::-1]], axis=1)
    soundfile.write(tmp_path / "two.wav", stereo, RATE)
    path = {"wav_path": str(tmp_path / "two.wav")}
    assert np.array_equal(load(path, dtype="int16")["wav"].numpy(), wav)
    assert np.array_equal(load(path, dtype="int16", channel=1)["wav"].numpy(), wav[::-1])
    mean = (stereo.astype(np.float64)).mean(axis=1)
    assert np.abs(load(path, dtype="int16", channel="mean")["wav"].numpy() - mean).max() <= 0.5
    with pytest.raises(SampleError, match="channel 2 of 2"):
        load(path, channel=2)


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
    again = load({"wav": tone, "sample_rate": 8000}, dtype=dtype)
    assert torch.equal(again["wav"], out["wav"])  # no dither from the clock
    assert load({"wav": tone, "sample_rate": 8000}, sample_rate=None)["sample_rate"] == 8000


def test_s3prl_names_are_understood(wav: Any) -> None:
    stage = LoadAudio(audio_sample_rate=8000, audio_channel_reduction="mean")  # type: ignore[call-arg]
    assert (stage.sample_rate, stage.channel) == (8000, "mean")


@pytest.mark.parametrize("wrong", [{"sample_rate": 0}, {"dtype": "float16"}, {"channel": "left"}, {"channel": -1}])
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        LoadAudio(**wrong)


def test_a_sample_without_audio_is_an_error() -> None:
    with pytest.raises(UsageError, match="neither audio bytes nor wav_path nor wav"):
        load({"text": "A"})
