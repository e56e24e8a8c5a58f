from __future__ import annotations

import itertools
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes import (
    BuildMultiClassTagging,
    CharacterTokenizer,
    EncodeText,
    ExtractFeat,
    LoadAudio,
    NoiseAugmentation,
    NormWav,
    RandomCrop,
    SoxEffects,
    SpanMask,
    SpeedPerturbation,
    UnfoldChunkByFrame,
    UnfoldChunkBySec,
)
from s3prl_stream.pipes.chunk import TAILS, Lengths, chunk_spans
from s3prl_stream.sample import Sample

RATE = 1_000


def ramp(seconds: float, **more: Any) -> Sample:
    return {"wav": np.arange(round(seconds * RATE), dtype=np.float32), "sample_rate": RATE, **more}


def seconds_of(chunks: list[Sample]) -> list[float]:
    return [len(chunk["wav"]) / RATE for chunk in chunks]


@given(
    num_samples=st.integers(0, 5_000),
    shortest=st.integers(1, 60),
    spread=st.integers(0, 60),
    step=st.one_of(st.none(), st.integers(1, 60)),
    unit=st.sampled_from([1, 10]),
    tail=st.sampled_from(TAILS),
    seed=st.integers(0, 2**32),
    shortest_tail=st.integers(1, 80),
)
def test_spans_keep_their_rule(
    num_samples: int, shortest: int, spread: int, step: int | None, unit: int, tail: str, seed: int, shortest_tail: int
) -> None:
    """Nothing vanishes, but for a rest shorter than the shortest with tail="drop"; lengths are those asked for."""
    step = None if step is None else min(step, shortest)
    lengths = Lengths(shortest, shortest + spread, step, unit)
    spans = chunk_spans(num_samples, lengths, tail, np.random.default_rng(seed), shortest_tail)
    covered = np.zeros(num_samples, dtype=bool)
    for start, stop in spans:
        covered[start:stop] = True
    missing = num_samples - int(covered.sum())
    least, most = shortest * unit, (shortest + spread) * unit
    assert not spans or covered[: num_samples - missing].all()
    assert all(least <= stop - start <= most for start, stop in spans[:-1])
    for (start, stop), (following, _) in itertools.pairwise(spans):
        assert following - start == (stop - start if step is None else step * unit)
    if tail == "drop":
        assert 0 <= missing < least
        assert all(least <= stop - start <= most for start, stop in spans)
    else:
        assert missing == 0
        assert len(spans) >= 1
        needed = least if tail == "merge" else min(least, shortest_tail)
        assert spans[-1][1] - spans[-1][0] < most + needed
        assert spans[-1][1] - spans[-1][0] >= min(needed, num_samples)
    assert all((stop - start) % unit == 0 for start, stop in spans if stop < num_samples)


def test_drawn_lengths_are_uniform() -> None:
    spans = chunk_spans(1_000_000, Lengths(100, 199, None), "drop", np.random.default_rng(0))[:-1]
    counts = np.bincount([stop - start for start, stop in spans], minlength=200)[100:200]
    expected = len(spans) / 100
    chi_square = float(np.sum((counts - expected) ** 2 / expected))
    assert chi_square == pytest.approx(99, abs=5 * np.sqrt(2 * 99))


def test_sliding_windows() -> None:
    chunks = list(UnfoldChunkBySec(min_chunk_secs=1, step_secs=0.5)([ramp(2.2)]))  # type: ignore[call-arg]
    assert [(chunk["chunk_start_seconds"], len(chunk["wav"]) / RATE) for chunk in chunks] == [
        (0.0, 1.0),
        (0.5, 1.0),
        (1.0, 1.0),
        (1.5, 0.7),
    ]
    assert len(list(UnfoldChunkBySec(min_chunk_secs=1, step_secs=0.5, use_last_samples=False)([ramp(2.2)]))) == 3  # type: ignore[call-arg]


def test_chunks_of_frames_are_whole_frames() -> None:
    chunks = list(UnfoldChunkByFrame(min_frames=4, max_frames=9, hop_samples=16)([ramp(1.0)]))
    lengths = [len(chunk["wav"]) for chunk in chunks]
    assert sum(lengths) == 1000
    assert all(length % 16 == 0 and 4 <= length // 16 <= 9 for length in lengths[:-1])
    names = UnfoldChunkByFrame(min_chunk_frames=2000, max_chunk_frames=2000, feat_frame_shift=160, sample_rate=16_000)  # type: ignore[call-arg]
    assert names.describe() == UnfoldChunkByFrame(max_frames=2000, sample_rate=16_000).describe()
    with pytest.raises(UsageError, match="is at 1000 Hz, expected 16000 Hz"):
        list(names([ramp(1.0)]))


@pytest.mark.parametrize("max_seconds", [None, 0.4])
@pytest.mark.parametrize("step_seconds", [None, 0.1])
@pytest.mark.parametrize("tail", TAILS)
def test_len_is_known_before_anything_is_decoded(
    tail: str, step_seconds: float | None, max_seconds: float | None, tmp_path: Path
) -> None:
    """It grows by chunking, from the headers of files, with the same draws as the samples themselves."""
    rng = np.random.default_rng(3)
    data: dict[str, Sample] = {}
    for number, (seconds, rate) in enumerate([(1.03, 8_000), (0.05, 16_000), (2.5, 44_100), (0.7, 16_000)]):
        soundfile.write(tmp_path / f"{number}.flac", rng.uniform(-0.1, 0.1, round(seconds * rate)), rate)
        data[str(number)] = {"wav_path": str(tmp_path / f"{number}.flac"), "end_sec": 0.9 * seconds}
    data["array"] = ramp(1.5)
    loaded = LoadAudio(crop_segment=True)(data)
    assert len(loaded) == 5
    chunk = UnfoldChunkBySec(min_seconds=0.2, max_seconds=max_seconds, step_seconds=step_seconds, tail=tail)
    chain = NormWav()(chunk(loaded))
    for _ in range(2):  # the next epoch has other draws
        expected = len(chain)
        assert len(list(chain)) == expected > 5


def test_len_of_what_has_other_names(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", np.zeros(RATE), RATE)
    data = [{"file": str(tmp_path / "a.wav"), "from": 0.25, "wav": "another value"}]
    names = {"wav_path_name": "file", "wav_name": "speech", "start_sec_name": "from"}
    loaded = LoadAudio(crop_segment=True, sample_rate=RATE, **names)(data)
    for min_seconds, count in ((0.25, 3), (0.75, 1)):
        chain = UnfoldChunkBySec(min_seconds=min_seconds, wav_name="speech")(loaded)  # type: ignore[call-arg]
        chunks = list(chain)
        assert len(chain) == len(chunks) == count
        assert all(chunk["wav"] == "another value" for chunk in chunks)
    random = UnfoldChunkBySec(min_seconds=0.01, max_seconds=0.2, wav_name="x")  # type: ignore[call-arg]
    twice = random(random([{"x": np.zeros(RATE, np.float32), "sample_rate": RATE}]))
    for _ in range(4):  # each epoch has other draws
        assert len(twice) == sum(1 for _ in twice)


def test_len_that_nobody_can_know() -> None:
    with pytest.raises(TypeError, match="pieces of the samples of a PlainSource"):
        len(UnfoldChunkBySec()(sample for sample in [ramp(9)]))
    slower = LoadAudio(sox_effects=[["speed", "0.9"]])([ramp(9)])
    assert len(slower) == 1
    with pytest.raises(TypeError, match="LoadAudio makes of a waveform by"):
        len(UnfoldChunkBySec()(slower))


@pytest.mark.parametrize(("tail", "expected"), [("keep", [1.0, 1.0, 0.3]), ("drop", [1.0, 1.0]), ("merge", [1.0, 1.3])])
def test_fixed_length_and_tail(tail: str, expected: list[float]) -> None:
    chunks = list(UnfoldChunkBySec(min_seconds=1, tail=tail)([ramp(2.3)]))
    assert seconds_of(chunks) == expected


@pytest.mark.parametrize("kind", ["logmel80", "fbank80"])
def test_no_clip_is_lost_for_a_tail_without_a_frame(kind: str) -> None:
    """A rest from one sample on: every chunk has features, and the chunks are the whole clip."""
    for rest in (1, 38, 400, 799, 800):
        clip = {"wav": torch.sin(torch.arange(16_000.0 + rest)), "sample_rate": 16_000, "key": "a"}
        chunks = list(ExtractFeat(kind=kind)(UnfoldChunkBySec(min_seconds=0.5)([clip])))
        assert [len(chunk["wav"]) for chunk in chunks] == ([8000, 8000 + rest] if rest < 800 else [8000, 8000, rest])
        assert all(len(chunk["feat"]) > 0 for chunk in chunks)


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


def test_pieces_lose_the_text_and_whole_utterances_keep_it() -> None:
    data = [ramp(seconds, text="HELLO") for seconds in (1.0, 2.0)]
    whole, *pieces = UnfoldChunkBySec(min_seconds=1)(data)
    assert whole["text"] == "HELLO"
    assert len(pieces) == 2
    assert all("text" not in piece for piece in pieces)


def test_segments_and_places_follow_the_pieces() -> None:
    times = {"long": (0.0, 2.5), "short": (1.5, 1.75), "second": (1.0, 2.0)}
    segments = [{"start": start, "end": end, "label": label} for label, (start, end) in times.items()]
    first, second, third = UnfoldChunkBySec(min_seconds=1)(
        [ramp(2.75, segments=segments, start_sec=10.0, end_sec=12.75)]
    )
    assert first["segments"] == [{"start": 0.0, "end": 1.0, "label": "long"}]
    assert second["segments"] == [
        {"start": 0.0, "end": 1.0, "label": "long"},
        {"start": 0.5, "end": 0.75, "label": "short"},
        {"start": 0.0, "end": 1.0, "label": "second"},
    ]
    assert third["segments"] == [{"start": 0.0, "end": 0.5, "label": "long"}]
    assert all(piece["segment_labels"] == ["long", "second", "short"] for piece in (first, second, third))
    assert [(piece["start_sec"], piece["end_sec"]) for piece in (first, second, third)] == [
        (10.0, 11.0),
        (11.0, 12.0),
        (12.0, 12.75),
    ]


def test_text_and_pieces_do_not_go_together(caplog: pytest.LogCaptureFixture) -> None:
    tokenize, chunk, data = EncodeText(tokenizer=CharacterTokenizer()), UnfoldChunkBySec(), [ramp(9, text="HI")]
    with pytest.raises(ChainError, match=r"UnfoldChunkBySec .* EncodeText has encoded"):
        UnfoldChunkBySec(tokens="refuse")(NormWav()(tokenize(data)))
    with pytest.raises(ChainError, match="EncodeText comes after UnfoldChunkBySec"):
        tokenize(NormWav()(chunk(data)))
    assert "lose their tokens" not in caplog.text
    chunk(tokenize(data))
    assert "pieces lose their tokens" in caplog.text


def test_what_is_counted_in_frames_stands_behind_what_cuts_or_stretches() -> None:
    """Else the features, tags or masks of the whole clip would stand beside each piece of it."""
    data = [ramp(1, segments=[])]
    framed = [ExtractFeat()(data), BuildMultiClassTagging()(data), SpanMask()(data), ExtractFeat(feat_name="x")(data)]
    cutting = [UnfoldChunkBySec(), UnfoldChunkByFrame(), RandomCrop(max_seconds=0.1), SpeedPerturbation()]
    for chain, stage in itertools.product(framed, [*cutting, SoxEffects(effects=[["tempo", "1.1"]])]):
        giver = type(chain).__name__
        with pytest.raises(ChainError, match=rf"and stands behind {giver}: .* Put {type(stage).__name__} before it"):
            stage(NormWav()(chain))
    SoxEffects(effects=[["gain", "-3"]])(NoiseAugmentation()(framed[0]))


def test_tokens_are_kept_for_whole_utterances_alone() -> None:
    data = [ramp(1, text="HI"), ramp(3, text="HI")]
    tokenized = EncodeText(tokenizer=CharacterTokenizer())(data)
    chunks = list(UnfoldChunkBySec(min_seconds=2)(tokenized))
    assert ["tokens" in chunk for chunk in chunks] == [True, False, False]
