"""Skipped batches and excluded clips: no batch changes its number, and the ledger still adds up."""

from __future__ import annotations

import functools
import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import pytest
from streams import RATE, clips, delivered, memory

import s3prl_stream as ss
from s3prl_stream import loader as module
from s3prl_stream.errors import ChainError, StateError, UsageError
from s3prl_stream.pipes.stage import Samples, Source
from s3prl_stream.plan.withheld import MOST_CHARACTERS
from s3prl_stream.sample import Sample
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet

SKIPPED = (9, 12)
EXCLUDED = ["clip0003", "clip0044", "clip0051"]
SINCE = 5  # batches handed over before `change` is called; a whole round for every number of ranks below
TOPOLOGIES = [(1, 0), (1, 2), (5, 0)]


def chain(data: Any = None, **settings: Any) -> Source:
    data = memory([0.5 + n % 9 for n in range(60)]) if data is None else data
    stream = ss.ShardStream(data, **{"epochs": 2, "max_batch_seconds": 20.0, "block_samples": 32, **settings})
    return stream.load_audio(sample_rate=RATE).add_noise(snr=(3, 20), prob=0.5)


@functools.cache
def expected() -> list[Any]:
    """Batches of an undisturbed loader without what is to be left out."""

    def stays(number: int, key: str) -> bool:
        return not (SKIPPED[0] <= number <= SKIPPED[1] or (number >= SINCE and key in EXCLUDED))

    whole = [delivered(batch) for batch in ss.Loader(chain())]
    return [(number, tuple(row for row in rows if stays(number, row[0]))) for number, rows in whole]


def change(loader: ss.Loader) -> None:
    loader.skip(*SKIPPED)
    loader.exclude(EXCLUDED)


@pytest.mark.parametrize(("ranks", "workers"), TOPOLOGIES)
def test_rows_vanish_and_batches_keep_their_numbers(ranks: int, workers: int) -> None:
    stream = chain()
    got = []
    for rank in range(ranks):
        loader = ss.Loader(stream, num_workers=workers, prefetch=4, rank=rank, world_size=ranks)
        for batch in loader:  # changed in the middle of an iteration, with batches built ahead
            got.append(delivered(batch))
            assert batch["weight"] == float(bool(batch["key"]))
            if loader.state_dict()["next_batch"] == SINCE:
                change(loader)
    planned = [one for one in sorted(got) if one[0] < len(expected())]  # without the empty ones of the last round
    assert planned == expected()


def test_the_cursor_remembers_on_any_ranks_and_workers() -> None:
    stream = chain()
    loader = ss.Loader(stream)
    got = [delivered(batch) for _, batch in zip(range(SINCE), loader, strict=False)]
    change(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    for ranks, workers in [(3, 0), (1, 2)]:
        rest = []
        for rank in range(ranks):
            again = ss.Loader(stream, num_workers=workers, rank=rank, world_size=ranks)
            again.load_state_dict(state)
            rest += [delivered(batch) for batch in again]
            assert again.state_dict()["left_out"] == state["left_out"]
        assert [one for one in got + sorted(rest) if one[0] < len(expected())] == expected()


def test_delivered_damaged_and_excluded_are_what_was_selected() -> None:
    data: dict[str, Sample] = clips([0.5 + n % 9 for n in range(60)])
    for key in ("clip0011", "clip0051"):
        data[key] = {**data[key], "audio": b"not audio", "codec": "flac"}
    stream = chain(MemoryShards(data, samples_per_shard=16))
    planned = Counter((row["key"], row["epoch"]) for b in range(len(ss.Loader(stream))) for row in which(stream, b))
    ledger: Counter[tuple[str, int]] = Counter()
    state = None
    while True:  # killed and continued every few batches, with other ranks
        for rank in range(2):
            loader = ss.Loader(stream, rank=rank, world_size=2)
            loader.load_state_dict(state or loader.state_dict())
            if state is None:
                loader.skip(*SKIPPED)
                loader.exclude(EXCLUDED)
            for _, batch in zip(range(4), loader, strict=False):
                ledger.update(zip(batch["key"], batch["epoch"].tolist(), strict=True))
            ledger.update((row["key"], row["epoch"]) for row in loader.damaged + loader.excluded)
        state = loader.state_dict()
        if state["next_batch"] == len(ss.Loader(stream)):
            break
    assert ledger == planned
    assert set(ledger) == {(key, epoch) for key in data for epoch in (0, 1)}
    assert set(ledger.values()) == {1}


def which(stream: Source, batch: int) -> list[dict[str, Any]]:
    return ss.Loader(stream).which(batch)


def test_which_tells_what_was_and_will_be_delivered() -> None:
    stream = chain()
    loader = ss.Loader(stream)
    seen = []
    for batch in loader:
        seen.append(batch["key"])
        if len(seen) == SINCE:
            change(loader)
    assert [[row["key"] for row in loader.which(number)] for number in range(len(seen))] == seen
    assert seen[SKIPPED[0] : SKIPPED[1] + 1] == [[]] * 4
    reasons = Counter(row["reason"] for row in loader.excluded)
    assert reasons["skipped"] == sum(len(which(stream, b)) for b in range(SKIPPED[0], SKIPPED[1] + 1))
    assert {row["key"] for row in loader.excluded if row["reason"] == "excluded"} == set(EXCLUDED)
    assert all(row["set"] == "memory" and row["shard"] and row["num_frames"] > 0 for row in loader.excluded)


def test_hours_are_those_delivered() -> None:
    stream = chain()
    loader = ss.Loader(stream)
    change(loader)
    seconds = sum(int(batch["wav_len"].sum()) / RATE for batch in loader if batch["key"])
    assert loader.hours_by_set["memory"] * 3600 == pytest.approx(seconds)


class Refusing(ss.Stage):
    """Every clip whose number ends in 7 is damaged."""

    functional_name = "refusing"

    def emit(self, sample: Sample) -> Iterable[Sample]:
        if sample["key"].endswith("7"):
            raise ss.SampleError("not this one", reason="test")
        yield sample


def test_hours_are_without_what_is_damaged() -> None:
    loader = ss.Loader(Refusing()(chain()))
    change(loader)
    handed, by_batch = 0.0, 0.0
    for batch in loader:
        handed += int(batch["wav_len"].sum()) / RATE if batch["key"] else 0.0
        by_batch += sum(loader.seconds_by_set.values())
    assert 6 < len(loader.damaged) <= 12
    assert loader.hours_by_set["memory"] * 3600 == pytest.approx(handed)
    assert by_batch == pytest.approx(handed)


@pytest.mark.parametrize("epochs", [40, None])
def test_an_endless_run_counts_all_and_lists_the_newest(
    epochs: int | None, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "_MOST_LISTED", 10)
    loader = ss.Loader(Refusing()(chain(clips([2.0] * 20), epochs=epochs)))
    loader.exclude(["clip0002"])
    epoch = 0
    for batch in loader:
        epoch = max([epoch, *batch["epoch"]])
        if epoch == 39 and loader.num_excluded == 40 and loader.num_damaged == 80:
            break
    assert (loader.num_damaged, loader.num_excluded) == (80, 40)  # clips 7 and 17, clip 2
    all_damaged = [(key, epoch) for epoch in range(40) for key in ("clip0007", "clip0017")]
    all_excluded = [("clip0002", epoch) for epoch in range(40)]
    listed = [sorted((row["key"], row["epoch"]) for row in rows) for rows in (loader.damaged, loader.excluded)]
    if epochs is None:
        assert listed == [sorted(all_damaged[-10:]), sorted(all_excluded[-10:])]
        assert [f"Loader.{name} holds the newest 10 rows" in caplog.text for name in ("damaged", "excluded")] == [
            True
        ] * 2
        assert len(caplog.messages) == 2
    else:
        assert listed == [sorted(all_damaged), sorted(all_excluded)]
        assert not caplog.messages


class Whole(ss.Stage):
    """Looks at whole batches, so that each piece of a clip is on its own behind it."""

    functional_name = "whole_for_left_out"
    scope = "batch"

    def emit_batch(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        return samples


def test_a_clip_whose_pieces_are_all_damaged_is_listed_once() -> None:
    pieces = (
        ss.ShardStream(clips([4.0] * 9), epochs=1).load_audio(sample_rate=RATE).chunk(min_seconds=1.0, max_seconds=1.0)
    )
    loader = ss.Loader(Refusing()(Whole()(pieces)))
    assert sum(len(batch["key"]) for batch in loader) == 8 * 4
    assert [row["key"] for row in loader.damaged] == ["clip0007"]


class Renaming(Whole):
    """Gives samples another set, and not the rest of them."""

    functional_name = "renaming_for_left_out"

    def __init__(self, source: Samples | None = None, *, kept: tuple[str, ...] = ()) -> None:
        self.kept = kept
        super().__init__(source)

    def emit_batch(self, samples: Sequence[Sample]) -> Sequence[Sample]:
        return [{**{name: sample[name] for name in self.kept}, "set": "mine"} for sample in samples]


def test_what_is_damaged_is_of_the_set_that_it_was_read_from() -> None:
    stream = ss.ShardStream(clips([4.0] * 9), epochs=1).load_audio(sample_rate=RATE)
    loader = ss.Loader(Refusing()(Renaming(kept=("key", "wav", "slot"))(stream)))
    list(loader)
    assert [row["set"] for row in loader.damaged] == [stream.source.shards.members[0].name]
    with pytest.raises(ChainError, match=r"'clip0007' cannot be used .*removed its 'slot'"):
        list(ss.Loader(Refusing()(Renaming(kept=("key", "wav"))(stream))))


def test_what_has_been_handed_over_cannot_be_skipped_but_a_skip_may_be_repeated() -> None:
    loader = ss.Loader(chain())
    loader.skip(3, 5)
    for _ in zip(range(7), loader, strict=False):
        pass
    before = loader.state_dict()
    loader.skip(3, 5)
    loader.skip(4, 4)
    assert loader.state_dict() == before
    with pytest.raises(UsageError, match="batch 6 has been handed over, the next is 7"):
        loader.skip(3, 9)
    for first, last in ((2, 1), (-2, 8)):
        with pytest.raises(UsageError, match=f"{first} to {last} is no range"):
            loader.skip(first, last)
    loader.skip(7, 9)
    loader.skip(10, 11)
    loader.skip(15, 16)
    loader.skip(14, 18)
    assert loader.state_dict()["left_out"]["skipped"] == [[3, 5], [7, 11], [14, 18]]


def test_what_is_excluded_stays_out_when_a_finite_stream_begins_anew() -> None:
    loader = ss.Loader(chain(epochs=1))
    begun = [batch["key"] for _, batch in zip(range(SINCE), loader, strict=False)]
    excluded = [begun[2][0], *EXCLUDED]
    loader.exclude(excluded[:1])  # which was delivered before
    list(loader)
    loader.exclude(excluded[1:])
    loader.skip(0, 1)
    again = list(loader)
    assert [batch["weight"] for batch in again[:3]] == [0.0, 0.0, 1.0]
    assert not set(excluded) & {key for batch in again for key in batch["key"]}
    assert [[row["key"] for row in loader.which(number)] for number in range(len(again))] == [b["key"] for b in again]


def test_a_clip_that_is_not_there_is_an_error_and_nothing_changes() -> None:
    two = ShardSet([MemoryShards(clips([1.0] * 9), name=name) for name in ("one", "two")])
    loader = ss.Loader(ss.ShardStream(two).load_audio(sample_rate=RATE))
    before = loader.state_dict()
    with pytest.raises(UsageError, match=r"1 of 2 clips are in no index \(two: clip0009\)"):
        loader.exclude([("one", "clip0008"), ("two", "clip0009")])
    with pytest.raises(
        UsageError, match=r'of which set\? .* a line {"set": "one", "key": "clip0001"}; the sets are one, two'
    ):
        loader.exclude(["clip0001"])
    with pytest.raises(UsageError, match=r"given as a list: \['clip0001'\]"):
        loader.exclude("clip0001")
    with pytest.raises(UsageError, match=r"given as a list of keys or .*, not as None"):
        loader.exclude(None)  # type: ignore[arg-type]
    for no_clip in (5, ("two", 5), ("two", "a", "b")):
        with pytest.raises(UsageError, match=re.escape(f"clip {no_clip!r} is neither a key nor (set, key)")):
            loader.exclude([no_clip])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="no set 'three'"):
        loader.exclude([("three", "clip0001")])
    assert loader.state_dict() == before
    loader.exclude([("two", "clip0001")])
    batch = next(iter(loader))
    assert ("one", "clip0001") in zip(batch["set"], batch["key"], strict=True)
    assert ("two", "clip0001") not in zip(batch["set"], batch["key"], strict=True)


def test_clips_of_one_set_of_a_mix() -> None:
    members = [MemoryShards(clips([1.0 + n % 3 for n in range(40)]), name=name) for name in ("one", "two")]
    stream = ss.ShardStream(ShardSet(members, (0.5, 0.5)), max_batch_seconds=9.0).load_audio(sample_rate=RATE)
    whole = [delivered(batch) for _, batch in zip(range(40), ss.Loader(stream), strict=False)]
    loader = ss.Loader(stream)
    loader.exclude([("two", key) for key in EXCLUDED[:1]])
    loader.skip(20, 21)
    seconds: dict[str, float] = {}
    num_clips = []
    for _, batch in zip(range(40), loader, strict=False):
        num_clips.append(len(batch["key"]))
        lengths = batch["wav_len"].tolist()
        for name, frames in zip(batch["set"], lengths, strict=True):
            seconds[name] = seconds.get(name, 0.0) + frames / RATE
    gone = Counter(row["batch_index"] for row in loader.excluded)
    assert [len(rows) for _, rows in whole] == [number + gone[batch] for batch, number in enumerate(num_clips)]
    excluded = {(row["set"], row["key"]) for row in loader.excluded if row["reason"] == "excluded"}
    assert excluded == {("two", EXCLUDED[0])}
    assert {name: hours * 3600 for name, hours in loader.hours_by_set.items()} == pytest.approx(seconds)


def test_the_cursor_stays_small_and_says_when_it_is_full() -> None:
    data = memory([0.5] * 400)
    loader = ss.Loader(chain(data))
    keys = [f"clip{number:04d}" for number in range(400)]
    loader.exclude(keys[:130])
    before = json.dumps(loader.state_dict())
    assert len(before) < 4096
    with pytest.raises(UsageError, match=f"at most {MOST_CHARACTERS}.*where="):
        loader.exclude(keys)

    def skip_every_other_batch() -> None:
        for number in range(400):
            loader.skip(2 * number, 2 * number)

    with pytest.raises(UsageError, match=f"at most {MOST_CHARACTERS}"):
        skip_every_other_batch()
    assert len(json.dumps(loader.state_dict())) < 4096


def test_a_damaged_list_in_a_state_is_refused() -> None:
    loader = ss.Loader(chain())
    change(loader)
    state = loader.state_dict()
    for broken in ({"skipped": [[1]], "excluded": []}, {"skipped": []}, {"skipped": [], "excluded": [[3, "?"]]}, 7):
        with pytest.raises(StateError, match="damaged"):
            ss.Loader(chain()).load_state_dict({**state, "left_out": broken})


def test_a_packed_set_knows_its_clips(sample_set: Any) -> None:
    loader = ss.Loader(ss.ShardStream(sample_set, epochs=1, shuffle=False).load_audio())
    (first, *_) = loader.which(0)
    loader.exclude([(first["set"], first["key"])])
    with pytest.raises(UsageError, match="in no index"):
        loader.exclude(["no-such-clip"])
    assert first["key"] not in [row["key"] for row in loader.which(0)]
