from __future__ import annotations

import pickle

import numpy as np
import pytest

from s3prl_stream.errors import UsageError
from s3prl_stream.pipes import LoadAudio, NoiseAugmentation, NormWav, SequentialDataPipe
from tests.contract import assert_same_samples, outputs

DATA = {
    name: {"wav": np.full(16_000 * seconds, 0.1, np.float32), "sample_rate": 16_000, "text": "HI"}
    for name, seconds in (("a", 3), ("b", 9))
}


def test_it_is_the_chain_of_its_stages() -> None:
    sequence = SequentialDataPipe(LoadAudio(), NormWav(), NoiseAugmentation())
    chain = LoadAudio()(DATA).norm_wav().add_noise()
    assert str(sequence(DATA)) == str(chain)
    assert_same_samples(outputs(sequence(DATA)), outputs(chain))


def test_it_is_used_like_a_stage() -> None:
    inner = SequentialDataPipe(LoadAudio(), NormWav())
    outer = SequentialDataPipe(inner, NoiseAugmentation())
    first, second = outer(DATA), outer(LoadAudio()(DATA))
    assert [str(first).count(name) for name in ("load_audio", "norm_wav", "add_noise")] == [1, 1, 1]
    assert "load_audio#1" in str(second)
    again = pickle.loads(pickle.dumps(outer))
    assert repr(again) == repr(outer)
    assert_same_samples(outputs(again(DATA)), outputs(first))


def test_what_is_no_stage_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one stage"):
        SequentialDataPipe()
    with pytest.raises(UsageError, match="argument 1 is"):
        SequentialDataPipe(NormWav(), NormWav)  # type: ignore[arg-type]
