from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

import s3prl_stream as ss
from s3prl_stream.errors import UsageError
from s3prl_stream.pipes.add_noise import NoiseAugmentation, mix_at_snr
from s3prl_stream.pipes.noise_bank import NoiseBank
from s3prl_stream.pipes.norm_wav import rms
from s3prl_stream.pipes.record_draws import RecordDraws
from s3prl_stream.rng import identity, sample_rng
from s3prl_stream.sample import Sample
from s3prl_stream.shards.shardset import ShardSet


def tones(count: int, num_frames: int = 4_000) -> list[Sample]:
    wav = 0.1 * np.sin(np.arange(num_frames, dtype=np.float32) / 7)
    return [{"wav": wav} for _ in range(count)]


def measured_snr_db(clean: np.ndarray, noisy: np.ndarray) -> float:
    return 20 * np.log10(rms(clean) / rms(noisy - clean))


@given(
    snr_db=st.floats(-20, 40), level=st.floats(1e-3, 1.0), noise_level=st.floats(1e-3, 10.0), seed=st.integers(0, 2**32)
)
def test_measured_ratio_is_the_asked_one(snr_db: float, level: float, noise_level: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    wav = np.float32(level) * rng.standard_normal(2_000, dtype=np.float32)
    noise = np.float32(noise_level) * rng.standard_normal(2_000, dtype=np.float32)
    noisy = mix_at_snr(wav, noise, snr_db)
    assert noisy.dtype == np.float32
    assert measured_snr_db(wav, noisy) == pytest.approx(snr_db, abs=0.01)


def test_ratios_are_uniform_in_the_range() -> None:
    samples = tones(400)
    chain = NoiseAugmentation(snr=[3, 6])(samples)
    ratios = [
        measured_snr_db(before["wav"], after["wav"].numpy()) for before, after in zip(samples, chain, strict=True)
    ]
    assert 3.0 - 0.01 <= min(ratios) < 3.2
    assert 5.8 < max(ratios) <= 6.0 + 0.01
    assert np.mean(ratios) == pytest.approx(4.5, abs=5 * 3 / np.sqrt(12 * 400))


def test_one_number_is_the_ratio() -> None:
    (sample,) = NoiseAugmentation(snr=10)(tones(1))
    assert measured_snr_db(tones(1)[0]["wav"], sample["wav"].numpy()) == pytest.approx(10.0, abs=0.01)


@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
def test_share_of_noisy_waveforms(prob: float) -> None:
    samples = tones(1_000, num_frames=50)
    noisy = sum(not np.array_equal(s["wav"].numpy(), samples[0]["wav"]) for s in NoiseAugmentation(prob=prob)(samples))
    assert noisy == pytest.approx(1_000 * prob, abs=5 * np.sqrt(1_000 * prob * (1 - prob)))


def test_noise_is_white_normal() -> None:
    (sample,) = NoiseAugmentation(snr=0)(tones(1, num_frames=100_000))
    noise = sample["wav"].numpy() - tones(1, num_frames=100_000)[0]["wav"]
    noise /= rms(noise)
    assert abs(noise.mean()) < 0.02
    assert abs(np.mean(noise[1:] * noise[:-1])) < 0.02
    assert np.mean(noise**4) == pytest.approx(3.0, abs=0.15)


def test_draws_come_in_the_documented_order() -> None:
    samples = tones(1)
    stage = NoiseAugmentation(snr=(0, 10), prob=0.9)
    (sample,) = stage(samples)
    rng = stage.rng(sample)
    assert rng.random() < 0.9
    snr_db = rng.uniform(0.0, 10.0)
    noise = rng.standard_normal(len(samples[0]["wav"]), dtype=np.float32)
    assert np.array_equal(sample["wav"].numpy(), mix_at_snr(samples[0]["wav"], noise, snr_db))


def test_each_part_of_an_identity_makes_other_draws() -> None:
    parts: dict[str, Any] = {"seed": 0, "set_name": "s", "epoch": 0, "key": "k", "first_frame": 0, "draw": 0}
    others = {**dict.fromkeys(("seed", "epoch", "first_frame", "draw"), 1), "set_name": "t", "key": "l"}
    names = [identity(**parts), *(identity(**{**parts, name: other}) for name, other in others.items())]
    drawn = [sample_rng(name, stage).random() for name in names for stage in ("add_noise", "add_noise#1", "mask")]
    assert len(set(drawn)) == 3 * 7


def test_a_stream_has_other_noise_in_each_chunk_set_and_draw() -> None:
    """Also where a balanced draw takes the same clip several times."""
    clips = {
        name: {"wav": tones(1, 16_000)[0]["wav"], "sample_rate": 16_000, "label": name == "a"}
        for name in ("a", *"bcdefghi")
    }
    long = {"a": {**clips["a"], "wav": np.tile(clips["a"]["wav"], 4)}}
    sets = ShardSet([ss.MemoryShards(clips, name=name) for name in ("one", "two")])
    for data, settings in ((long, {"chunk_seconds": 1.0}), (clips, {"balance": "label"}), (sets, {})):
        noisy = [sample["wav"] for sample in ss.ShardStream(data, epochs=1, **settings).load_audio().add_noise(snr=0)]
        noise = torch.stack(noisy).double() - torch.from_numpy(clips["a"]["wav"])
        assert len(noise) > 3
        assert (torch.corrcoef(noise) - torch.eye(len(noise))).abs().max() < 0.1, settings


@pytest.mark.parametrize("voices", [1, 4, (2, 5)])
def test_noise_of_a_bank_is_at_the_ratio(voices: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    (tmp_path / "noise").mkdir()
    for number, level in enumerate((0.003, 0.3)):
        wav = level * np.cumsum(rng.standard_normal(30_000)) / 100
        soundfile.write(tmp_path / "noise" / f"{number}.wav", wav, 16_000)
    bank = NoiseBank(tmp_path / "noise", cache=tmp_path / "cache")
    samples = [{"wav": wav["wav"], "sample_rate": 16_000} for wav in tones(30)]
    stage = NoiseAugmentation(noise=bank, snr=(0, 10), voices=voices, prob=0.8)
    num_noisy, counted = 0, set()
    for before, after in zip(samples, stage(RecordDraws()(samples)), strict=True):
        drawn = after["draws"]["add_noise"]
        assert drawn.keys() == {"applied", "snr_db", "voices", "place"}
        if not drawn["applied"]:
            assert np.array_equal(after["wav"].numpy(), before["wav"])
            continue
        num_noisy += 1
        counted.add(drawn["voices"])
        if voices == 1:
            added = after["wav"].numpy() - before["wav"]
            heard = np.take(bank.timeline, np.arange(len(added)) + drawn["place"], mode="wrap")
            assert np.corrcoef(added, heard)[0, 1] > 0.999
        assert 0 <= drawn["snr_db"] <= 10
        assert measured_snr_db(before["wav"], after["wav"].numpy()) == pytest.approx(drawn["snr_db"], abs=0.01)
    assert 10 < num_noisy < 30
    fewest, most = voices if isinstance(voices, tuple) else (voices, voices)
    assert counted == set(range(fewest, most + 1))
    assert bank.fingerprint in stage.describe()
    with pytest.raises(UsageError, match="the bank is at 16000 Hz, the audio at 8000 Hz"):
        list(stage([{**sample, "sample_rate": 8_000} for sample in samples]))


def test_silence_gets_nothing() -> None:
    for num_frames in (0, 50):
        (sample,) = NoiseAugmentation()([{"wav": np.zeros(num_frames, np.float32)}])
        assert not sample["wav"].any()
        assert len(sample["wav"]) == num_frames
