"""Real recordings through every augmentation: no value that is not finite, no wrong length, and damage is listed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import s3prl_stream as ss
from s3prl_stream import pipes
from s3prl_stream.corpora.audio_files import audio_below
from s3prl_stream.errors import SampleError
from s3prl_stream.pipes.features import num_frames
from s3prl_stream.pipes.stage import Source, Stage
from s3prl_stream.sample import Sample

RATE = 16_000
DAMAGED_AND_ODD = {"cut_in_half.flac", "text_not_audio.wav", "zero_bytes.flac"}

EFFECTS = [
    ["gain", (-6, 6)], ["tempo", (0.8, 1.25)], ["speed", (0.9, 1.1)], ["pitch", (-300, 300)], ["highpass", "60"],
    ["lowpass", "7k"], ["bandreject", "50", "10h"], ["equalizer", "1k", "1o", (-6, 6)], ["bass", 3], ["treble", -3],
    ["dither"],
]  # fmt: skip


def loaded(folder: Path, names: list[str]) -> tuple[dict[str, Sample], dict[str, str]]:
    """(samples by name, reasons of those that could not be loaded)."""
    load, samples, damaged = pipes.SampleFunction(pipes.LoadAudio(sample_rate=RATE)), {}, {}
    for name in names:
        try:
            samples[name] = load({"key": name, "wav_path": str(folder / name)})
        except SampleError as error:
            damaged[name] = error.reason
    return samples, damaged


@pytest.fixture(scope="module")
def banks(real_data: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[pipes.NoiseBank, pipes.RirBank]:
    """Environmental sounds to be added, and short ones that stand in for measured responses."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.warns(UserWarning, match="only the first"):
        noise = pipes.NoiseBank(real_data / "esc10", max_hours=0.03, cache=cache)
    with pytest.warns(UserWarning, match="only the first"):
        return noise, pipes.RirBank(real_data / "fsdd" / "recordings", max_hours=0.002, cache=cache)


def waveform_stages(noise: pipes.NoiseBank, rirs: pipes.RirBank) -> Iterator[tuple[Stage, Any]]:
    """(stage, length of what it makes of so many samples; None where an effect rounds in between)."""
    yield pipes.SoxEffects(effects=EFFECTS), None
    yield pipes.SpeedPerturbation(factors=(0.9,)), lambda length: round(length / 0.9)
    for stage in (
        pipes.NormWav(), pipes.RandomGain(), pipes.NoiseAugmentation(), pipes.NoiseAugmentation(noise=noise, snr=(0,
        5)), pipes.NoiseAugmentation(noise=noise, voices=(3, 5)), pipes.Reverberation(),
        pipes.Reverberation(rooms=rirs),
    ):  # fmt: skip
        yield stage, lambda length: length


def check(samples: dict[str, Sample], banks: tuple[pipes.NoiseBank, pipes.RirBank]) -> None:
    for stage, length_of in waveform_stages(*banks):
        function = pipes.SampleFunction(stage)
        for name, sample in samples.items():
            wav = function(sample)["wav"]
            assert bool(torch.isfinite(wav).all()), (name, stage)
            assert wav.dtype == torch.float32
            if length_of is not None:
                assert len(wav) == length_of(len(sample["wav"])), (name, stage)
            else:
                assert len(sample["wav"]) / 1.25 / 1.1 - 3 <= len(wav) <= len(sample["wav"]) / 0.8 / 0.9 + 3, name
    spectra = pipes.SampleFunction(pipes.ExtractFeat(kind="logmel80"), pipes.SpecAugment(freq_width=(0, 20)))
    too_short: dict[str, str] = {}
    for name, sample in samples.items():
        try:
            feat = spectra(sample)["feat"]
        except SampleError as error:
            too_short[name] = error.reason
            continue
        assert feat.shape == (num_frames("logmel80", len(sample["wav"])), 80)
        assert bool(torch.isfinite(feat).all()), name
    assert too_short == {name: "too_short" for name, sample in samples.items() if len(sample["wav"]) <= 200}


def test_odd_files_through_every_stage(real_data: Path, banks: tuple[pipes.NoiseBank, pipes.RirBank]) -> None:
    samples, damaged = loaded(real_data / "odd", list(audio_below(real_data / "odd")))
    assert damaged == dict.fromkeys(DAMAGED_AND_ODD, "decode")
    assert {name: len(samples[name]["wav"]) for name in ("no_frames.wav", "one_sample.wav")} == {
        "no_frames.wav": 0,
        "one_sample.wav": 1,
    }
    check(samples, banks)


def chain_of(source: Source, noise: pipes.NoiseBank) -> Source:
    noisy = source.add_noise(noise=noise, snr=(0, 20), prob=0.7).reverberate(prob=0.5).random_gain().norm_wav()
    return noisy.features("logmel80").spec_augment(freq_width=(0, 20), prob=0.8)


def test_behind_on_they_are_the_same_and_damage_is_listed(
    real_data: Path, banks: tuple[pipes.NoiseBank, pipes.RirBank]
) -> None:
    folder = real_data / "odd"
    no_length = ("no_frames.wav", "zero_bytes.flac", "text_not_audio.wav")  # so that nobody can plan them
    names = [name for name in audio_below(folder) if name not in no_length]
    clips = {name.replace(".", "_"): {"wav_path": str(folder / name)} for name in names}
    compare(clips, banks[0], listed={"cut_in_half_flac": "decode", "one_sample_wav": "too_short"})


def compare(clips: dict[str, Any], noise: pipes.NoiseBank, listed: dict[str, str]) -> None:
    loaders = [
        ss.Loader(chain_of(ss.ShardStream(clips, epochs=1, max_batch_seconds=30.0).load_audio(), noise)),
        ss.Loader(chain_of(ss.ShardStream(clips, epochs=1, max_batch_seconds=30.0).load_audio().on("cpu"), noise)),
    ]
    for plain, moved in zip(*loaders, strict=True):
        assert moved["key"] == plain["key"]
        assert torch.equal(moved["feat_len"], plain["feat_len"])
        assert not len(plain["key"]) or float((moved["feat"] - plain["feat"]).abs().max()) <= 1e-4
    assert loaders[0].damaged == loaders[1].damaged
    assert {row["key"]: row["reason"] for row in loaders[0].damaged} == listed


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_all_recordings_through_every_stage(real_data: Path, banks: tuple[pipes.NoiseBank, pipes.RirBank]) -> None:
    names = list(audio_below(real_data))
    assert len(names) > 3_000
    for first in range(0, len(names), 200):
        samples, damaged = loaded(real_data, names[first : first + 200])
        assert all(name.startswith(("wakewords/alexa/", "odd/")) for name in damaged), damaged
        check(samples, banks)


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_half_an_hour_in_one_piece(real_data: Path, banks: tuple[pipes.NoiseBank, pipes.RirBank]) -> None:
    folder = real_data / "LibriSpeech" / "train-clean-100"
    samples, damaged = loaded(folder, list(audio_below(folder))[:160])
    assert not damaged
    joined = np.concatenate([sample["wav"].numpy() for sample in samples.values()])[: 30 * 60 * RATE]
    assert len(joined) == 30 * 60 * RATE
    check({"joined": {"key": "joined", "wav": torch.from_numpy(joined), "sample_rate": RATE}}, banks)
