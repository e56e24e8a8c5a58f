from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest

import s3prl_stream as ss
from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes.mix_utterances import MixUtterances, mix_stretch
from s3prl_stream.pipes.norm_wav import rms

RATE = 16_000


def clips(count: int = 40, *, broken: tuple[int, ...] = ()) -> dict[str, dict[str, Any]]:
    rng = np.random.default_rng(0)
    found: dict[str, dict[str, Any]] = {}
    for number in range(count):
        wav = (0.1 * rng.standard_normal(1_000 + 37 * number)).astype(np.float32)
        found[f"c{number:02d}"] = {"wav": wav, "sample_rate": RATE, "text": str(number)}
        if number in broken:
            found[f"c{number:02d}"] |= {"audio": b"no audio", "codec": "flac"}
    return found


def mixed(data: dict[str, dict[str, Any]], **settings: Any) -> dict[str, dict[str, Any]]:
    stream = (
        ss.ShardStream(data, epochs=1, max_batch_seconds=2.0).load_audio().record_draws().mix_utterances(**settings)
    )
    return {sample["key"]: sample for sample in stream}


def test_a_stretch_of_the_other_is_added_at_the_ratio() -> None:
    data = clips()
    found = mixed(data, prob=0.7, ratio_db=(-5, 5), max_share=0.5)
    num_mixed = 0
    for key, sample in found.items():
        drawn, clean = sample["draws"]["mix_utterances"], data[key]["wav"]
        added = sample["wav"].numpy() - clean
        assert sample["text"] == data[key]["text"]
        if not drawn["applied"]:
            assert not added.any()
            continue
        num_mixed += 1
        other = data[drawn["other"]]["wav"]
        where = np.flatnonzero(added)
        assert 1 <= np.ptp(where) + 1 <= round(0.5 * len(clean))
        if np.ptp(where) < 100:
            continue  # too short to be found again
        stretch = added[where[0] : where[-1] + 1].astype(np.float64)
        likeness = np.correlate(other.astype(np.float64), stretch, "valid")
        first = int(np.argmax(likeness))
        gain = likeness[first] / np.square(other[first : first + len(stretch)], dtype=np.float64).sum()
        assert stretch == pytest.approx(gain * other[first : first + len(stretch)], abs=1e-6)
        assert 20 * np.log10(rms(clean) / (gain * rms(other))) == pytest.approx(drawn["ratio_db"], abs=0.05)
        assert -5 <= drawn["ratio_db"] <= 5
    assert num_mixed == pytest.approx(28, abs=5 * np.sqrt(40 * 0.21))


def test_draws_come_in_the_documented_order() -> None:
    data = clips()
    stage = MixUtterances(prob=0.9, ratio_db=(-5, 5), max_share=0.5)
    for key, sample in mixed(data, **stage.config()).items():
        rng, drawn, clean = stage.rng(sample), sample["draws"]["mix_utterances"], data[key]["wav"]
        assert drawn["applied"] is bool(rng.random() < 0.9)
        if drawn["applied"]:
            ratio_db, (share, *places) = rng.uniform(-5, 5), rng.random(3)
            expected = mix_stretch(clean, data[drawn["other"]]["wav"], ratio_db, 0.5 * share, *places)
            assert np.array_equal(sample["wav"].numpy(), expected)


def test_damage_changes_no_other_pair() -> None:
    whole, broken = mixed(clips(), prob=1.0), mixed(clips(broken=(3, 17)), prob=1.0)
    others = {key: sample["draws"]["mix_utterances"]["other"] for key, sample in whole.items()}
    assert all(key != other for key, other in others.items())
    assert len(set(others.values())) > 15  # of 40; not the same one for all of a batch
    assert set(whole) - set(broken) == {"c03", "c17"}
    changed = {key for key, sample in broken.items() if not np.array_equal(sample["wav"], whole[key]["wav"])}
    assert changed == {
        key for key, sample in whole.items()
        if key in broken and sample["draws"]["mix_utterances"]["other"] in ("c03", "c17")
    }  # fmt: skip


def test_it_does_not_depend_on_ranks_workers_or_resume() -> None:
    stream = ss.ShardStream(clips(), max_batch_seconds=1.0).load_audio().mix_utterances(prob=0.5)
    ss.assert_resumable(stream, batches=6)


def test_input_is_not_mutated_and_it_pickles() -> None:
    data = clips(6)
    before = {key: sample["wav"].copy() for key, sample in data.items()}
    mixed(data, prob=1.0)
    assert all(np.array_equal(data[key]["wav"], wav) for key, wav in before.items())
    assert pickle.loads(pickle.dumps(MixUtterances(prob=0.3))).describe() == MixUtterances(prob=0.3).describe()


def test_a_batch_of_one_and_silence_stay_as_they_are() -> None:
    data = clips(1)
    assert np.array_equal(mixed(data, prob=1.0)["c00"]["wav"], data["c00"]["wav"])
    wav, silence = np.ones(10, np.float32), np.zeros(10, np.float32)
    assert mix_stretch(wav, silence, 0, 0.5, 0, 0) is wav
    assert mix_stretch(silence, wav, 0, 0.5, 0, 0) is silence
    assert len(mix_stretch(wav, np.ones(1, np.float32), 0, 1.0, 1.0, 1.0)) == 10
    other = np.arange(6, dtype=np.float32)
    added = mix_stretch(wav, other, 0, 0.2, 1.0, 0.5) - wav  # two samples, at the end, from the middle of the other
    assert added == pytest.approx(np.array([0] * 8 + [2, 3]) / rms(other), abs=1e-6)


def test_audio_at_two_rates_is_not_mixed() -> None:
    data = clips(4)
    data["c01"]["sample_rate"] = 8_000
    stream = ss.ShardStream(data, epochs=1).load_audio(sample_rate=None).mix_utterances(prob=1.0)
    with pytest.raises(UsageError, match="mix_utterances: a batch has audio at 8000 and 16000 Hz"):
        list(stream)


def test_a_list_has_no_batches() -> None:
    with pytest.raises(ChainError, match="looks at whole batches"):
        list(MixUtterances()([{"wav": np.zeros(3, np.float32)}]))
