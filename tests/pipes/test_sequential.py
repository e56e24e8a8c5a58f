from __future__ import annotations

import pickle

import numpy as np
import pytest

from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes import (
    CharacterTokenizer,
    EncodeText,
    LoadAudio,
    NoiseAugmentation,
    NormWav,
    SequentialDataPipe,
    UnfoldChunkBySec,
)
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


def test_example_in_the_spelling_of_s3prl() -> None:
    audio_pipe = LoadAudio(audio_sample_rate=8_000)  # type: ignore[call-arg]
    text_pipe = EncodeText(tokenizer=CharacterTokenizer())
    noise_pipe = NoiseAugmentation(snr=[3, 6])
    chunk_pipe = UnfoldChunkBySec(min_chunk_secs=2, max_chunk_secs=4, tokens="drop")  # type: ignore[call-arg]
    dataset = SequentialDataPipe(audio_pipe, text_pipe, noise_pipe, chunk_pipe)(DATA)
    lengths = [(sample["key"], len(sample["wav"])) for sample in dataset]
    assert sum(length for key, length in lengths if key == "a") == 3 * 8_000
    assert sum(length for key, length in lengths if key == "b") == 9 * 8_000
    with pytest.raises(ChainError, match='write tokens="drop"'):
        SequentialDataPipe(audio_pipe, text_pipe, UnfoldChunkBySec())(DATA)


def test_what_is_no_stage_is_refused() -> None:
    with pytest.raises(UsageError, match="at least one stage"):
        SequentialDataPipe()
    with pytest.raises(UsageError, match="argument 1 is"):
        SequentialDataPipe(NormWav(), NormWav)  # type: ignore[arg-type]
