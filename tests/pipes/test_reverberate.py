from __future__ import annotations

import numpy as np
import pytest

from s3prl_stream.pipes.record_draws import RecordDraws
from s3prl_stream.pipes.reverberate import Reverberation
from s3prl_stream.pipes.rooms import DIRECT_AT, reverberated, simulated

RATE = 16_000


def decay_seconds(response: np.ndarray, rate: int) -> float:
    """RT60 as ISO 3382 measures it (T30): the slope of the backward integrated energy from -5 to -35 dB."""
    energy = np.cumsum(np.square(response[::-1], dtype=np.float64))[::-1]
    level_db = 10 * np.log10(energy / energy[0])
    used = np.flatnonzero((level_db <= -5) & (level_db >= -35))
    slope = np.polyfit(used / rate, level_db[used], 1)[0]
    return float(-60 / slope)


@pytest.mark.parametrize("rate", [8_000, 16_000])
@pytest.mark.parametrize("rt60", [0.15, 0.4, 1.0])
def test_simulated_rooms_have_the_asked_decay_and_ratio(rt60: float, rate: int) -> None:
    measured = []
    for seed in range(5):
        response = simulated(np.random.default_rng(seed), rate, rt60_seconds=rt60, drr_db=3.0, delay_ms=10.0)
        assert int(np.abs(response).argmax()) == DIRECT_AT
        assert response[DIRECT_AT] == 1.0
        tail = response[DIRECT_AT + 1 :]
        assert -10 * np.log10(np.square(tail, dtype=np.float64).sum()) == pytest.approx(3.0, abs=1e-4)
        assert not tail[: rate // 100 - 2].any()
        measured.append(decay_seconds(tail[rate // 100 :], rate))
    assert np.mean(measured) == pytest.approx(rt60, rel=0.05)
    assert measured == pytest.approx([rt60] * 5, rel=0.15)


@pytest.mark.parametrize("num_frames", [0, 1, 31, 1_000, 20_000])
@pytest.mark.parametrize("response_frames", [1, 40, 3_000])
def test_convolution_is_numpys(num_frames: int, response_frames: int) -> None:
    rng = np.random.default_rng(0)
    wav = rng.standard_normal(num_frames).astype(np.float32)
    response = np.concatenate([np.zeros(DIRECT_AT), rng.standard_normal(response_frames)]).astype(np.float32)
    found = reverberated(wav, response)
    assert (found.dtype, len(found)) == (np.float32, num_frames)
    if num_frames:
        expected = np.convolve(wav.astype(np.float64), response)[DIRECT_AT : DIRECT_AT + num_frames]
        assert np.abs(found - expected).max() <= 1e-5 * max(np.abs(expected).max(), 1)


def test_the_direct_sound_keeps_its_level_and_its_time() -> None:
    click = np.zeros(RATE, np.float32)
    click[5_000] = 0.5
    (wet,) = Reverberation(drr_db=6.0)([{"wav": click, "sample_rate": RATE}])
    wav = wet["wav"].numpy()
    assert wav[5_000] == pytest.approx(0.5, abs=1e-6)
    assert np.abs(wav[:5_000]).max() < 1e-6
    assert np.abs(wav[5_001:]).max() > 1e-3


def test_draws_come_in_the_documented_order() -> None:
    """Without a sample rate it is 16 kHz; the first reflection comes 2 to 20 ms after the direct sound."""
    stage = Reverberation(rt60=(0.1, 0.2), drr_db=(-5, 5), prob=0.9)
    wav = np.random.default_rng(0).standard_normal(4_000).astype(np.float32)
    (wet,) = stage([{"wav": wav}])
    rng = stage.rng(wet)
    assert rng.random() < 0.9
    drawn = {name: rng.uniform(*ends) for name, ends in (("rt60_seconds", (0.1, 0.2)), ("drr_db", (-5, 5)))}
    response = simulated(rng, RATE, **drawn, delay_ms=rng.uniform(2, 20))
    assert np.array_equal(wet["wav"].numpy(), reverberated(wav, response))


def test_draws_are_in_their_ranges_and_recorded() -> None:
    samples = [{"wav": np.ones(100, np.float32), "sample_rate": 8_000} for _ in range(300)]
    stage = Reverberation(rt60=(0.1, 0.2), drr_db=(-5, 5), prob=0.6)
    drawn = [sample["draws"]["reverberate"] for sample in stage(RecordDraws()(samples))]
    used = [one for one in drawn if one["applied"]]
    assert len(used) == pytest.approx(180, abs=5 * np.sqrt(300 * 0.24))
    rt60s = [one["rt60"] for one in used]
    assert 0.1 <= min(rt60s) < 0.11
    assert 0.19 < max(rt60s) <= 0.2
    assert np.mean([one["drr_db"] for one in used]) == pytest.approx(0.0, abs=5 * 10 / np.sqrt(12 * 180))
