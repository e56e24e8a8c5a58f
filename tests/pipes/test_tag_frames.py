from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import s3prl_stream as ss
from s3prl_stream.errors import SampleError
from s3prl_stream.pipes import (
    BuildMultiClassTagging,
    ExtractFeat,
    LoadAudio,
    RandomCrop,
    SpeedPerturbation,
    Stage,
    UnfoldChunkByFrame,
)

RATE = 16_000


def recording(seconds: float, segments: Any, **more: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    wav = rng.uniform(-0.1, 0.1, round(seconds * RATE)).astype(np.float32)
    return {"wav": wav, "sample_rate": RATE, "segments": segments, **more}


def tags_of(sample: dict[str, Any], **settings: Any) -> dict[str, Any]:
    (out,) = BuildMultiClassTagging(**settings)([sample])
    return out


def runs(column_F: torch.Tensor) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], column_F.numpy().astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


@pytest.mark.parametrize("form", ["list", "dict"])
def test_frames_of_segments(form: str) -> None:
    segments: Any = {"bob": [(0.104, 0.3), (0.5, 0.61)], "ann": [(0.2, 0.996)]}
    if form == "list":
        segments = [{"label": name, "start": a, "end": b} for name, spans in segments.items() for a, b in spans]
    out = tags_of(recording(1.0, segments))
    assert out["tag_labels"] == ["ann", "bob"]
    assert (out["tags"].shape, out["tags"].dtype) == ((100, 2), torch.float32)
    assert runs(out["tags"][:, 0]) == [(20, 100)]
    assert runs(out["tags"][:, 1]) == [(10, 30), (50, 61)]


def test_a_segment_longer_than_the_chunk_fills_it() -> None:
    """S3PRL marks nothing there."""
    long = recording(10.0, {"ann": [(0.5, 9.5)], "bob": [(4.2, 4.4)]})
    chunks = list(UnfoldChunkByFrame(min_frames=200)([long]).tag_frames(num_labels=2))
    assert [chunk["tag_labels"] for chunk in chunks] == [["ann", "bob"]] * 5
    assert [runs(chunk["tags"][:, 0]) for chunk in chunks] == [
        [(50, 200)],
        [(0, 200)],
        [(0, 200)],
        [(0, 200)],
        [(0, 150)],
    ]
    assert [runs(chunk["tags"][:, 1]) for chunk in chunks] == [[], [], [(20, 40)], [], []]


@given(
    bounds=st.lists(st.tuples(st.integers(0, 900), st.integers(1, 300)), max_size=6),
    frames=st.integers(5, 90),
    seed=st.integers(0, 99),
)
def test_tags_of_chunks_are_pieces_of_the_tags_of_the_whole(
    bounds: list[tuple[int, int]], frames: int, seed: int
) -> None:
    segments = [
        {"label": "ab"[number % 2], "start": start / 100, "end": (start + length) / 100}
        for number, (start, length) in enumerate(bounds)
    ]
    sample = {"wav": np.zeros(1000 * 16, np.int16), "sample_rate": 1600, "segments": segments, "key": str(seed)}
    whole = tags_of(sample, hop_samples=16)["tags"]
    cut = UnfoldChunkByFrame(min_frames=frames, max_frames=2 * frames, hop_samples=16)([sample])
    pieces = list(cut.tag_frames(hop_samples=16))
    assert torch.equal(torch.cat([piece["tags"] for piece in pieces]), whole)


def test_columns_of_all_recordings() -> None:
    data = [recording(0.5, {"dog": [(0, 0.1)]}), recording(0.5, {"cat": [(0.2, 0.3)]}), recording(0.5, [])]
    chain = BuildMultiClassTagging(intra_or_inter="inter", feat_frame_shift=800)(data)  # type: ignore[call-arg]
    assert [sample["tags"].nonzero().tolist() for sample in chain] == [[[0, 1], [1, 1]], [[4, 0], [5, 0]], []]
    assert {tuple(sample["tags"].shape) for sample in chain} == {(10, 2)}
    with pytest.raises(SampleError, match="'cow' is none of the 1 categories 'cat'"):
        tags_of(recording(0.5, {"cow": [(0, 0.1)]}), columns="all", categories=["cat"])


def test_as_many_frames_as_the_features_have() -> None:
    sample = recording(1.003, {"a": [(0.5, 1.0)]})
    (out,) = BuildMultiClassTagging(like="feat")(ExtractFeat()([sample]))
    assert len(out["tags"]) == len(out["feat"]) == 101
    assert len(tags_of(sample)["tags"]) == 100
    assert len(tags_of(recording(1.006, []), num_labels=1)["tags"]) == 101  # rounded


def test_other_speakers_than_columns() -> None:
    one = tags_of(recording(0.2, {"x": [(0, 0.1)]}), num_labels=2)
    assert (one["tags"].sum(0).tolist(), one["tag_labels"]) == ([10.0, 0.0], ["x"])
    assert tags_of(recording(0.2, []), num_labels=2)["tags"].tolist() == [[0.0, 0.0]] * 20
    with pytest.raises(SampleError, match=r"3 labels \(a, b, c\), expected at most 2"):
        tags_of(recording(0.2, {name: [(0, 0.1)] for name in "abc"}), num_labels=2)


@pytest.mark.parametrize(
    "segments",
    ["ann", [{"start": 0, "label": "a"}], {"a": [(0.3, 0.1)]}, [(0, 1, "a")], 3]
    + [[{"start": 0, "end": 1, "label": label}] for label in (None, 1.5, ["a"])],
)
def test_what_is_no_segment_is_damage(segments: Any) -> None:
    with pytest.raises(SampleError) as caught:
        tags_of(recording(0.2, segments))
    assert caught.value.reason == "segments"


def test_labels_of_two_kinds_and_segments_without_an_end() -> None:
    turns = [{"start": 0.1, "end": float("inf"), "label": "a"}, {"start": 0, "end": 0.1, "label": np.int64(12)}]
    tagged = tags_of(recording(0.2, turns))
    assert (tagged["tag_labels"], tagged["tags"].sum(0).tolist()) == ([12, "a"], [10.0, 10.0])
    cropped = RandomCrop(max_seconds=0.1)([recording(0.2, turns)])
    assert next(iter(cropped))["segment_labels"] == [12, "a"]


@pytest.mark.parametrize("cut", [RandomCrop(max_seconds=0.1), SpeedPerturbation(factors=[0.9])])
def test_segments_that_are_not_known_stay_unknown(cut: Stage) -> None:
    with pytest.raises(SampleError, match="has no segments"):
        list(BuildMultiClassTagging()(cut([recording(0.2, None)])))


def rttm(path: Path) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """File -> speaker -> times, from the lines SPEAKER file channel start length <NA> <NA> speaker ..."""
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for line in path.read_text("utf-8").splitlines():
        _, name, _, start, length, _, _, speaker, *_ = line.split()
        times = found.setdefault(name, {}).setdefault(speaker, [])
        times.append((float(start), float(start) + float(length)))
    return found


def test_diarization_labels_of_real_conversations_come_out_of_batches(real_data: Path) -> None:
    folder = real_data / "diarization"
    spoken = {
        name: times
        for part in ("train", "development", "test")
        for name, times in rttm(folder / f"debug.{part}.rttm").items()
    }
    data = {
        name: {"wav_path": str(folder / f"{name}.wav"), "segments": times}
        for name, times in spoken.items()
        if (folder / f"{name}.wav").exists()
    }
    assert len(data) >= 10
    most = max(len(times) for times in spoken.values())
    chain = ss.ShardStream(data, max_batch_seconds=60.0, epochs=1).load_audio().chunk_frames(min_frames=500)
    tagged = chain.tag_frames(num_labels=most).select(["tags", "wav", "tag_labels"])
    marked = dict.fromkeys(data, 0.0)
    for batch in ss.Loader(tagged):
        assert batch["tags"].shape[2] == most
        assert (batch["tags_len"] == (batch["wav_len"] / 160).round().long()).all()
        for key, tags_FC in zip(batch["key"], batch["tags"], strict=True):
            marked[key] += float(tags_FC.sum()) / 100
    for name, times in spoken.items():
        if name in data:
            expected = sum(end - start for spans in times.values() for start, end in spans)
            assert marked[name] == pytest.approx(expected, abs=0.011 * sum(map(len, times.values())) + 0.05), name


def test_segments_follow_planned_chunks_and_effects() -> None:
    wav = np.zeros(RATE * 6, np.int16)
    data = {"a": {"wav": wav, "sample_rate": RATE, "segments": {"x": [(1.0, 5.0)], "y": [(2.5, 2.75)]}}}
    stream = ss.ShardStream(data, chunk_seconds=2.0, shuffle=False, epochs=1, max_batch_seconds=100.0)
    pieces = list(stream.load_audio().tag_frames())
    assert [piece["first_frame"] // RATE for piece in pieces] == [0, 2, 4]
    assert [runs(piece["tags"][:, 0]) for piece in pieces] == [[(100, 200)], [(0, 200)], [(0, 100)]]
    assert [runs(piece["tags"][:, 1]) for piece in pieces] == [[], [(50, 75)], []]
    (fast,) = LoadAudio(sox_effects=[["speed", "2"]])([{**data["a"]}]).tag_frames()
    assert runs(fast["tags"][:, 0]) == [(50, 250)]


def test_turns_of_a_packed_set_follow_its_chunks(real_data: Path, tmp_path: Path) -> None:
    shards = ss.pack(ss.corpora.rttm(real_data / "diarization"), tmp_path / "set")
    settings = {"epochs": 1, "max_batch_seconds": 120.0}

    def tagged(stream: Any) -> Any:
        return stream.load_audio().tag_frames(num_labels=6)

    whole = {sample["key"]: sample for sample in tagged(ss.ShardStream(shards, **settings))}
    assert len(whole) >= 14
    assert any(not sample["tag_labels"] for sample in whole.values()), "one has no labelled speech"
    frames = {key: torch.zeros(6) for key in whole}
    num_chunks = dict.fromkeys(whole, 0)
    for sample in tagged(ss.ShardStream(shards, chunk_seconds=3.0, **settings)):
        assert sample["tag_labels"] == whole[sample["key"]]["tag_labels"]
        frames[sample["key"]] += sample["tags"].sum(0)
        num_chunks[sample["key"]] += 1
    assert max(num_chunks.values()) > 5
    for key, sample in whole.items():  # each edge of a chunk may round a frame away
        assert bool(((frames[key] - sample["tags"].sum(0)).abs() <= num_chunks[key]).all()), key
