"""random_gain and perturb_speed."""

from __future__ import annotations

import numpy as np
import pytest

from s3prl_stream.pipes.chunk import UnfoldChunkBySec
from s3prl_stream.pipes.norm_wav import rms
from s3prl_stream.pipes.perturb_speed import SpeedPerturbation
from s3prl_stream.pipes.random_gain import RandomGain
from s3prl_stream.pipes.record_draws import RecordDraws
from tests.pipes.test_effects import RATE, pitch_hz, tone


def test_gains_are_uniform_in_db_and_real() -> None:
    wav = tone(300, 0.05)
    gains = []
    for sample in RandomGain(gain_db=(-10, 4), prob=0.8)(RecordDraws()([{"wav": wav}] * 500)):
        measured = 20 * np.log10(rms(sample["wav"].numpy()) / rms(wav))
        assert measured == pytest.approx(sample["draws"]["random_gain"]["gain_db"], abs=1e-4)
        gains.append(measured)
    changed = [gain for gain in gains if abs(gain) > 1e-6]
    assert len(changed) == pytest.approx(400, abs=5 * np.sqrt(500 * 0.16))
    assert -10 <= min(changed) < -9.5
    assert 3.5 < max(changed) <= 4
    assert np.mean(changed) == pytest.approx(-3, abs=5 * 14 / np.sqrt(12 * 400))


def test_factors_are_equally_often_and_change_pitch_and_length() -> None:
    wav = tone(440.0, 0.5)
    stage = SpeedPerturbation(factors=(0.8, 1.0, 1.25), prob=0.9)
    assert stage.stretch == pytest.approx(1.25)
    factors = []
    samples = [{"wav": wav, "sample_rate": RATE, "segments": [{"start": 0.1, "end": 0.2, "label": "a"}]}] * 300
    for sample in stage(RecordDraws()(samples)):
        factor = sample["draws"]["perturb_speed"]["factor"]
        factors.append(factor)
        assert len(sample["wav"]) == round(len(wav) / factor)
        assert sample["segments"][0]["end"] == pytest.approx(0.2 / factor)
    assert factors.count(1.0) == pytest.approx(120, abs=5 * np.sqrt(300 * 0.4 * 0.6))  # one of three, or the coin
    for factor in (0.8, 1.25):
        assert factors.count(factor) == pytest.approx(90, abs=5 * np.sqrt(300 * 0.3 * 0.7))
        changed = SpeedPerturbation(factors=(factor,))([{"wav": tone(440.0), "sample_rate": RATE}])
        assert pitch_hz(next(iter(changed))["wav"].numpy()) / 440.0 == pytest.approx(factor, rel=1e-3)


def test_draws_come_in_the_documented_order_and_tell_the_length() -> None:
    wav = tone(300, 0.05)
    gain, speed = RandomGain(gain_db=(-10, 4), prob=0.9), SpeedPerturbation(factors=(0.8, 1.25), prob=0.9)
    (loud,) = gain([{"wav": wav}])
    rng = gain.rng(loud)
    assert rng.random() < 0.9
    assert np.array_equal(loud["wav"].numpy(), wav * np.float32(10 ** (rng.uniform(-10, 4) / 20)))
    chunks = UnfoldChunkBySec(min_seconds=0.01)(speed([{"wav": wav, "sample_rate": RATE}] * 20))
    assert len(chunks) == len(list(chunks)) != 20 * 5


@pytest.mark.parametrize("num_frames", [0, 1, 10])
def test_short_waveforms(num_frames: int) -> None:
    for stage in (SpeedPerturbation(factors=(0.9,)), RandomGain()):
        (sample,) = stage([{"wav": np.full(num_frames, 0.1, np.float32)}])
        assert len(sample["wav"]) == (round(num_frames / 0.9) if isinstance(stage, SpeedPerturbation) else num_frames)
