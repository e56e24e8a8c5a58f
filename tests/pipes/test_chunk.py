from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes import CharacterTokenizer, EncodeText, NoiseAugmentation, NormWav, UnfoldChunkBySec
from s3prl_stream.pipes.chunk import TAILS, chunk_lengths
from s3prl_stream.sample import Sample

RATE = 1_000


def ramp(seconds: float, **more: Any) -> Sample:
    return {"wav": np.arange(round(seconds * RATE), dtype=np.float32), "sample_rate": RATE, **more}


def seconds_of(chunks: list[Sample]) -> list[float]:
    return [len(chunk["wav"]) / RATE for chunk in chunks]


@given(
    num_frames=st.integers(0, 5_000),
    shortest=st.integers(1, 600),
    spread=st.integers(0, 600),
    tail=st.sampled_from(TAILS),
    seed=st.integers(0, 2**32),
)
def test_lengths_keep_their_rule(num_frames: int, shortest: int, spread: int, tail: str, seed: int) -> None:
    longest = shortest + spread
    lengths = chunk_lengths(num_frames, shortest, longest, tail, np.random.default_rng(seed))
    missing = num_frames - sum(lengths)
    assert all(shortest <= length <= longest for length in lengths[:-1])
    if tail == "drop":
        assert 0 <= missing < shortest
        assert all(shortest <= length <= longest for length in lengths)
    else:
        assert missing == 0
        assert len(lengths) >= 1
        assert lengths[-1] < longest + shortest if tail == "merge" else lengths[-1] <= longest
        if tail == "merge" and num_frames >= shortest:
            assert lengths[-1] >= shortest


def test_drawn_lengths_are_uniform() -> None:
    lengths = chunk_lengths(1_000_000, 100, 199, "drop", np.random.default_rng(0))[:-1]
    counts = np.bincount(lengths, minlength=200)[100:200]
    expected = len(lengths) / 100
    chi_square = float(np.sum((counts - expected) ** 2 / expected))
    assert chi_square == pytest.approx(99, abs=5 * np.sqrt(2 * 99))


@pytest.mark.parametrize(("tail", "expected"), [("keep", [1.0, 1.0, 0.3]), ("drop", [1.0, 1.0]), ("merge", [1.0, 1.3])])
def test_fixed_length_and_tail(tail: str, expected: list[float]) -> None:
    chunks = list(UnfoldChunkBySec(min_seconds=1, tail=tail)([ramp(2.3)]))
    assert seconds_of(chunks) == expected


@pytest.mark.parametrize(("tail", "expected"), [("keep", [0.4]), ("drop", []), ("merge", [0.4])])
def test_utterance_shorter_than_a_chunk(tail: str, expected: list[float], caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        chunks = list(UnfoldChunkBySec(min_seconds=1, tail=tail)([ramp(0.4, key="short")]))
    assert seconds_of(chunks) == expected
    assert ("short: the last 0.40 of 0.40 s are dropped" in caplog.text) is (tail == "drop")


def test_chunks_are_the_waveform_with_places_and_identities() -> None:
    chunks = list(UnfoldChunkBySec(min_seconds=0.2, max_seconds=0.5)([ramp(3, speaker="s1")]))
    assert np.array_equal(np.concatenate([chunk["wav"] for chunk in chunks]), ramp(3)["wav"])
    assert [chunk["chunk_index"] for chunk in chunks] == list(range(len(chunks)))
    assert [chunk["chunk_start_seconds"] for chunk in chunks] == [float(chunk["wav"][0]) / RATE for chunk in chunks]
    assert len({chunk["identity"] for chunk in chunks}) == len(chunks)
    assert {chunk["speaker"] for chunk in chunks} == {"s1"}


def test_later_stages_draw_anew_for_each_chunk() -> None:
    wav = np.tile(np.sin(np.arange(RATE, dtype=np.float32)), 2)
    chain = NoiseAugmentation(snr=0)(UnfoldChunkBySec(min_seconds=1)([{"wav": wav, "sample_rate": RATE}]))
    noises = [(chunk["wav"].numpy() - wav[:RATE]) for chunk in chain]
    assert abs(np.corrcoef(*noises)[0, 1]) < 0.2


def test_names_of_s3prl_are_accepted() -> None:
    stage = UnfoldChunkBySec(min_chunk_secs=2, max_chunk_secs=4)  # type: ignore[call-arg]
    assert stage.describe() == UnfoldChunkBySec(min_seconds=2, max_seconds=4).describe()
    with pytest.raises(UsageError, match="give one of them"):
        UnfoldChunkBySec(min_chunk_secs=2, min_seconds=2)  # type: ignore[call-arg]


@pytest.mark.parametrize("settings", [{"min_seconds": 0}, {"max_seconds": 1}, {"tail": "pad"}, {"tokens": "keep"}])
def test_wrong_settings_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=next(iter(settings))):
        UnfoldChunkBySec(**settings)


def test_pieces_lose_the_text_and_whole_utterances_keep_it() -> None:
    data = [ramp(seconds, text="HELLO", segments=[{"start": 0, "end": 1, "label": "x"}]) for seconds in (1.0, 2.0)]
    whole, *pieces = UnfoldChunkBySec(min_seconds=1)(data)
    assert whole["text"] == "HELLO"
    assert whole["segments"]
    assert len(pieces) == 2
    assert all("text" not in piece and "segments" not in piece for piece in pieces)


def test_text_and_pieces_do_not_go_together() -> None:
    tokenize, chunk, data = EncodeText(tokenizer=CharacterTokenizer()), UnfoldChunkBySec(), [ramp(9, text="HI")]
    with pytest.raises(ChainError, match=r"UnfoldChunkBySec .* EncodeText has encoded"):
        chunk(NormWav()(tokenize(data)))
    with pytest.raises(ChainError, match="EncodeText comes after UnfoldChunkBySec"):
        tokenize(NormWav()(chunk(data)))


def test_tokens_are_kept_for_whole_utterances_alone_when_asked() -> None:
    data = [ramp(1, text="HI"), ramp(3, text="HI")]
    tokenized = EncodeText(tokenizer=CharacterTokenizer())(data)
    chunks = list(UnfoldChunkBySec(min_seconds=2, tokens="drop")(tokenized))
    assert ["tokens" in chunk for chunk in chunks] == [True, False, False]
