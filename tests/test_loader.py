"""The loader on real samples: topologies, resume, state, damage."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from streams import RATE, clips, cuts, delivered, durations, memory, row_hashes, settings
from torch.utils.data import DataLoader

import s3prl_stream as ss
import s3prl_stream.loader
import s3prl_stream.plan.anchors
from s3prl_stream.damage import Failures
from s3prl_stream.errors import ChainError, StateError, TooManyFailures, UsageError
from s3prl_stream.pipes.stage import Source
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet

TOPOLOGIES = [(1, 0), (1, 2), (2, 0), (2, 2), (3, 1)]


def chain(data: Any, **given_settings: Any) -> Source:
    """A chain with a random stage that grows batches, so that draws and regrouping are in the comparison."""
    stream = ss.ShardStream(data, **{"epochs": 2, "max_batch_seconds": 30.0, **given_settings})
    return stream.load_audio(sample_rate=RATE).add_noise(snr=(3, 20), prob=0.5)


def run(
    stream: Source, ranks: int, workers: int, state: Any = None, rounds: int | None = None
) -> tuple[list[Any], Any]:
    """What all ranks got, ordered by batch, and the state of the last of them."""
    got = []
    for rank in range(ranks):
        loader = ss.Loader(stream, num_workers=workers, rank=rank, world_size=ranks)
        if state is not None:
            loader.load_state_dict(json.loads(json.dumps(state)))
        batches = iter(loader)
        for count, batch in enumerate(batches, start=1):
            if batch["key"]:
                got.append(delivered(batch))
            if count == rounds:
                break
        last = loader.state_dict()
        del batches
    return sorted(got), last


@pytest.mark.parametrize(("ranks", "workers"), TOPOLOGIES)
def test_ranks_and_workers_are_views(ranks: int, workers: int) -> None:
    stream = chain(memory([0.5 + n % 9 for n in range(90)]), block_samples=32, run=3, seed=5)
    assert run(stream, ranks, workers)[0] == run(stream, 1, 0)[0]


@pytest.mark.slow
@given(durations, settings, cuts)
@hypothesis_settings(max_examples=25)
def test_ranks_and_workers_are_views_of_any_stream(
    seconds: list[float], given_settings: dict[str, Any], cut: dict[str, Any]
) -> None:
    stream = chain(memory(seconds), **given_settings, **cut)
    expected = run(stream, 1, 0)[0]
    for ranks, workers in TOPOLOGIES[1:]:
        assert run(stream, ranks, workers)[0] == expected


@given(durations, settings, cuts, st.data())
@hypothesis_settings(max_examples=15)
def test_resume_chains_with_changing_topology(
    seconds: list[float], given_settings: dict[str, Any], cut: dict[str, Any], data: st.DataObject
) -> None:
    stream = chain(memory(seconds), **given_settings, **cut)
    expected = run(stream, 1, 0)[0]
    got: list[Any] = []
    state = None
    for _ in range(data.draw(st.integers(3, 5))):
        rounds = data.draw(st.integers(1, 4))
        part, state = run(stream, data.draw(st.integers(1, 3)), 0, state, rounds)
        got += part
        if state["next_batch"] >= len(expected):
            break
    else:
        got += run(stream, data.draw(st.integers(1, 3)), 0, state)[0]
    assert sorted(got) == expected


@pytest.mark.slow
@given(st.data())
@hypothesis_settings(max_examples=10)
def test_resume_chains_with_worker_processes(data: st.DataObject) -> None:
    stream = chain(memory([0.5 + n % 9 for n in range(120)]), block_samples=48)
    expected = run(stream, 1, 0)[0]
    got: list[Any] = []
    state = None
    for _ in range(3):
        ranks, workers = data.draw(st.sampled_from(TOPOLOGIES))
        part, state = run(stream, ranks, workers, state, data.draw(st.integers(1, 5)))
        got += part
    assert sorted(got + run(stream, 2, 1, state)[0]) == expected


def test_the_state_counts_what_was_handed_over_not_what_was_built() -> None:
    stream = chain(memory([2.0] * 60), max_batch_seconds=10.0)
    for workers in (0, 2):
        loader = ss.Loader(stream, num_workers=workers, prefetch=4)
        batches = iter(loader)
        assert loader.state_dict()["next_batch"] == 0
        for count in range(1, 4):
            next(batches)
            assert loader.state_dict()["next_batch"] == count
            assert len(loader._build_ahead.under_way) == 4 * max(workers, 1)  # what `prefetch` promises
        del batches


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_consumer_that_fetches_ahead_says_what_it_has_done(ranks: int) -> None:
    """The cursor after any batch is the one there was when that batch was the last, block by block, up to the end."""
    stream = chain(memory([2.0] * 60), max_batch_seconds=10.0, block_samples=16)
    for rank in range(ranks):
        loader = ss.Loader(stream, rank=rank, world_size=ranks)
        states = {batch["batch_index"]: loader.state_dict() for batch in loader}
        assert len({state["anchor"]["block"] for state in states.values()}) > 1
        ahead = ss.Loader(stream, rank=rank, world_size=ranks)
        handed = [batch["batch_index"] for batch in ahead]
        assert {batch: ahead.state_dict(after=batch) for batch in handed} == states
        with pytest.raises(UsageError, match="batch 99 is none of those handed over"):
            ahead.state_dict(after=99)


@pytest.mark.parametrize("rank", range(4))
def test_what_is_done_counts_from_where_the_ranks_began(rank: int) -> None:
    """Five batches of one rank, then four ranks: the first round is 5 to 8, whoever has them."""
    stream = chain(memory([2.0] * 60), max_batch_seconds=10.0, block_samples=16)
    _, state = run(stream, 1, 0, rounds=5)
    loader = ss.Loader(stream, rank=rank, world_size=4)
    loader.load_state_dict(state)
    assert {**loader.state_dict(), "topology": {}} == {**state, "topology": {}}
    for round_done, batch in enumerate(loader, start=1):
        assert loader.state_dict(after=batch["batch_index"]) == loader.state_dict()
        with pytest.raises(UsageError, match="batch 0 is none of those handed over since 5"):
            loader.state_dict(after=0)
        assert loader.state_dict()["next_batch"] == min(5 + 4 * round_done, len(ss.Loader(stream)))


def test_loading_a_state_gives_it_back() -> None:
    stream = chain(memory([2.0] * 60), block_samples=16)
    _, state = run(stream, 1, 0, rounds=7)
    loader = ss.Loader(stream)
    loader.load_state_dict(state)
    assert loader.state_dict() == state


def test_iteration_goes_on_and_begins_anew_after_the_end() -> None:
    stream = chain(memory([2.0] * 30), epochs=1)
    expected = run(stream, 1, 0)[0]
    loader = ss.Loader(stream)
    first = [delivered(batch) for _, batch in zip(range(1), loader, strict=False)]
    rest = [delivered(batch) for batch in loader]
    assert first + rest == expected
    assert [delivered(batch) for batch in loader] == expected


def test_a_resumed_stream_that_begins_anew_has_the_states_of_its_beginning() -> None:
    stream = chain(memory([2.0] * 60), max_batch_seconds=10.0, epochs=1, block_samples=16)
    resumed, fresh = ss.Loader(stream), ss.Loader(stream)
    resumed.load_state_dict(run(stream, 1, 0, rounds=11)[1])
    list(resumed)
    for one, other in zip(resumed, fresh, strict=True):
        assert delivered(one) == delivered(other)
        assert resumed.state_dict() == fresh.state_dict()
    resumed.load_state_dict(run(stream, 1, 0, rounds=7)[1])
    assert next(iter(resumed))["batch_index"] == 7  # though it was at its end


def test_an_iterator_is_refused_when_a_newer_one_has_begun() -> None:
    stream = chain(memory([2.0] * 60), max_batch_seconds=10.0)
    for workers in (0, 1):
        loader = ss.Loader(stream, num_workers=workers)
        older, newer = iter(loader), iter(loader)
        got = [next(older), next(older), next(newer)]
        with pytest.raises(UsageError, match="another iterator of this loader was begun"):
            next(older)
        got += [next(newer)]
        assert [batch["batch_index"] for batch in got] == [0, 1, 2, 3]
        assert loader.state_dict()["next_batch"] == 4
        del newer


def test_a_state_that_is_loaded_in_the_middle_holds_from_the_next_batch_on() -> None:
    stream = chain(memory([2.0] * 60), max_batch_seconds=10.0)
    expected = run(stream, 1, 0)[0]
    loader = ss.Loader(stream)
    batches = iter(loader)
    next(batches)
    state = loader.state_dict()
    next(batches)
    loader.load_state_dict(state)
    assert [delivered(batch) for batch in batches] == expected[1:]


def test_a_batch_that_never_left_the_loader_is_not_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = chain(memory([2.0] * 60), max_batch_seconds=10.0)
    loader = ss.Loader(stream)
    got = [next(iter(loader))["batch_index"]]

    def out_of_memory(_: Any) -> Any:
        raise RuntimeError("out of memory")

    with monkeypatch.context() as broken:
        broken.setattr(loader, "_on_device", out_of_memory)
        with pytest.raises(RuntimeError, match="out of memory"):
            next(iter(loader))
    assert loader.state_dict()["next_batch"] == 1
    got.append(next(iter(loader))["batch_index"])
    assert got == [0, 1]
    assert loader.hours_by_set["memory"] * 3600 == pytest.approx(20.0)


def test_an_endless_stream_has_no_length_and_goes_on() -> None:
    stream = chain(memory([2.0] * 30), epochs=None)
    with pytest.raises(TypeError, match="endless"):
        len(ss.Loader(stream))
    epochs = [batch["epoch"][0].item() for _, batch in zip(range(9), ss.Loader(stream), strict=False)]
    assert epochs[0] == 0
    assert epochs[-1] > 2


@pytest.mark.parametrize(
    "cut",
    [
        {"chunk_seconds": 2.0},
        {"max_batch_seconds": 5.0},
        {"max_batch_seconds": 5.0, "too_long": "skip"},
        {"max_batch_seconds": 5.0, "too_long": "crop"},
        {"max_batch_seconds": 5.0, "too_long": "crop", "balance": "speaker"},
    ],
)
def test_lengths_are_what_is_delivered(cut: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    stream = chain(memory([0.5 + n % 9 for n in range(50)]), **cut)
    loader = ss.Loader(stream, rank=1, world_size=3)
    assert len(loader) == sum(1 for _ in loader)
    assert len(stream) == sum(1 for _ in stream)
    monkeypatch.delattr("s3prl_stream.plan.planner.Planner.walk")
    assert len(stream) > 0  # which is known by now


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"seed": 1}, "seed was 0, is 1"),
        ({"shuffle": False}, "shuffle was True, is False"),
        ({"max_batch_seconds": 31.0}, "max_batch_seconds was 30.0, is 31.0"),
        ({"max_batch_size": 9}, "max_batch_size was None, is 9"),
        ({"run": 2}, "run was 1, is 2"),
        ({"chunk_seconds": 1.0}, "chunk_seconds was None, is 1.0"),
        ({"crop_seconds": 1.0}, "crop_seconds was None, is 1.0"),
        ({"crops": "per_seconds"}, "crops was 'per_clip', is 'per_seconds'"),
        ({"too_long": "skip"}, "too_long was 'split', is 'skip'"),
        ({"block_samples": 9}, "block_samples was 16384, is 9"),
        ({"where": "speaker == 's1'"}, "selection"),
        ({"balance": "speaker"}, "selection"),
    ],
)
def test_a_state_of_other_settings_is_refused_with_the_difference(change: dict[str, Any], named: str) -> None:
    state = ss.Loader(chain(memory([2.0] * 30))).state_dict()
    with pytest.raises(StateError, match=named):
        ss.Loader(chain(memory([2.0] * 30), **change)).load_state_dict(state)


def test_a_state_of_other_data_stages_or_version_is_refused() -> None:
    stream = chain(memory([2.0] * 30))
    state = ss.Loader(stream).state_dict()
    with pytest.raises(StateError, match="data"):
        ss.Loader(chain(memory([2.0] * 31))).load_state_dict(state)
    with pytest.raises(StateError, match=r"stages\.norm_wav was None"):
        ss.Loader(stream.norm_wav()).load_state_dict(state)
    with pytest.raises(StateError, match=r"stages\.norm_wav was '.*', is None"):
        ss.Loader(stream).load_state_dict(ss.Loader(stream.norm_wav()).state_dict())
    with pytest.raises(StateError, match=r"stages\.add_noise was"):
        ss.Loader(stream).load_state_dict(ss.Loader(stream.source.add_noise(snr=(3, 21), prob=0.5)).state_dict())
    with pytest.raises(StateError, match=r"another stream: of_later was 1, is None$"):
        ss.Loader(stream).load_state_dict({**state, "identity": {**state["identity"], "of_later": 1}})
    with pytest.raises(StateError, match="plan version 0"):
        ss.Loader(stream).load_state_dict({**state, "plan_version": 0})
    with pytest.raises(StateError, match="no cursor"):
        ss.Loader(stream).load_state_dict({"epoch": 3})


def test_more_epochs_are_no_other_stream() -> None:
    data = memory([2.0] * 30)
    _, state = run(chain(data, epochs=1), 1, 0)
    got, _ = run(chain(data, epochs=2), 1, 0, state)
    assert got == [row for row in run(chain(data, epochs=2), 1, 0)[0] if row[0] >= state["next_batch"]]
    for ranks, rounds in ((1, state["next_batch"] + 1), (state["next_batch"] + 1, 1)):
        _, later = run(chain(data, epochs=2), ranks, 0, rounds=rounds)
        got, over = run(chain(data, epochs=1), 1, 0, later)
        assert (got, over["next_batch"]) == ([], later["next_batch"])  # it is over, and what was handed over stays so


@pytest.mark.parametrize("mixed", [False, True])
def test_a_long_run_remembers_few_beginnings_of_blocks(monkeypatch: pytest.MonkeyPatch, mixed: bool) -> None:
    """A rank passes every block, so their number would grow by ten thousands; a state is none the worse for it."""
    members = [MemoryShards([{"wav": np.zeros(RATE, np.float32), "sample_rate": RATE}] * 16, name) for name in "ab"]
    data = ShardSet(members, (0.5, 0.5) if mixed else None)
    stream = ss.ShardStream(data, max_batch_seconds=4.0, block_samples=4, run=1)
    remembering = ss.Loader(stream, rank=0, world_size=1)
    forgetting = ss.Loader(stream, rank=0, world_size=1)
    batches, counts = iter(remembering), []
    states, told = [], []
    for _ in range(150):
        next(batches)
        states.append(remembering.state_dict())
    assert len(remembering._anchors) > 30
    monkeypatch.setattr(s3prl_stream.plan.anchors, "_MOST_BEHIND", 8)
    for number, batch in zip(range(150), forgetting, strict=False):
        assert forgetting.state_dict() == states[number]
        counts.append(len(forgetting._anchors))
        told.append(batch["key"])
    assert max(counts) < 20
    assert [[row["key"] for row in forgetting.which(number)] for number in range(0, 150, 7)] == told[::7]


@pytest.mark.parametrize("cut", [{}, {"chunk_seconds": 1.0}, {"crop_seconds": 1.0}])
def test_which_agrees_with_what_was_delivered(cut: dict[str, Any]) -> None:
    stream = chain(memory([0.5 + n % 9 for n in range(80)]), block_samples=32, **cut)
    loader = ss.Loader(stream)
    seen = list(loader)
    fresh = ss.Loader(stream)
    for number in (0, len(seen) // 2, len(seen) - 1):
        for one in (loader, fresh):
            told = one.which(number)
            assert [row["key"] for row in told] == seen[number]["key"]
            assert [row["first_frame"] for row in told] == seen[number]["first_frame"].tolist()
            assert [row["num_frames"] for row in told] == seen[number]["wav_len"].tolist()
    for number in (-1, len(seen)):
        with pytest.raises(UsageError, match=f"no batch {number}"):
            loader.which(number)
    for ask in (lambda: loader.which(1.5), lambda: loader.skip("1", 2)):  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=r"(1\.5|'1') is not a whole number"):
            ask()


def test_a_batch_that_lies_too_far_ahead_is_refused_not_planned_for_days(monkeypatch: pytest.MonkeyPatch) -> None:
    loader = ss.Loader(chain(memory([1.0] * 64), block_samples=32, max_batch_size=8, epochs=None))
    with pytest.raises(UsageError, match=r"batch 1000000000000 lies some 2\.5e\+11 blocks behind batch 4, and"):
        loader.which(10**12)
    monkeypatch.setattr(s3prl_stream.loader, "_MOST_BLOCKS", 4)
    with pytest.raises(UsageError, match="lies some 5 blocks behind batch 4"):
        loader.which(24)
    seen = [batch["key"] for _, batch in zip(range(24), loader, strict=False)]
    told = [[row["key"] for row in loader.which(number)] for number in (19, 24)]  # from where the loader stands
    assert told == [seen[19], next(iter(loader))["key"]]


@pytest.mark.parametrize(
    "cut", [{"chunk_seconds": 2.0}, {"max_batch_seconds": 2.0}, {"crop_seconds": 2.0, "crops": "per_seconds"}]
)
def test_each_stretch_has_draws_of_its_own(cut: dict[str, Any]) -> None:
    """By seed, set, epoch, key, place in the clip and number of the draw, each of which alone tells some apart."""
    flat = np.full(4 * RATE, 1000, dtype=np.int16)
    data = {key: {"wav": flat, "sample_rate": RATE, "kind": min(key, "b")} for key in "abcd"}  # "a" is drawn twice
    sets = ShardSet([MemoryShards(data, name) for name in ("one", "two")])
    heard = []
    for seed in (0, 1):
        stream = ss.ShardStream(sets, seed=seed, epochs=2, balance="kind", **cut)
        heard += [row for batch in ss.Loader(stream.load_audio().add_noise(snr=10)) for row in row_hashes(batch)]
    assert len(set(heard)) == len(heard) > 40


def test_chunks_join_to_the_clip() -> None:
    data = clips([7.3, 2.1])
    stream = ss.ShardStream(data, epochs=1, chunk_seconds=2.0).load_audio(sample_rate=RATE, dtype="int16")
    pieces: dict[str, list[tuple[int, torch.Tensor]]] = {}
    for sample in stream:
        pieces.setdefault(sample["key"], []).append((sample["first_frame"], sample["wav"]))
    for key, found in pieces.items():
        joined = torch.cat([wav for _, wav in sorted(found, key=lambda piece: piece[0])])
        assert torch.equal(joined, torch.from_numpy(data[key]["wav"]))


def test_the_stream_divides_itself_among_dataloader_workers() -> None:
    stream = chain(memory([0.5 + n % 9 for n in range(63)]), epochs=1)
    assert len(ss.Loader(stream)) % 2, "a round that one of two workers gets no batch of"
    keys = sorted(sample["key"] for sample in stream)
    for workers in (1, 2):
        loader = DataLoader(stream, batch_size=None, num_workers=workers)
        assert sorted(sample["key"] for sample in loader) == keys
    plain = DataLoader(stream.collate(), batch_size=None, num_workers=2)
    assert [delivered(batch) for batch in plain] == run(stream, 1, 0)[0]
    slower = stream.perturb_speed(factors=(0.8, 1.0))  # leaves less of the budget
    assert [delivered(batch) for batch in slower.collate()] == run(slower, 1, 0)[0]


def test_damage_in_a_worker_of_a_plain_loader_is_logged(tmp_path: Path) -> None:
    """Its list stays in the worker."""
    data: dict[str, dict[str, Any]] = {key: dict(sample) for key, sample in clips([2.0] * 20).items()}
    data["clip0003"] |= {"audio": b"not audio at all", "codec": "flac"}
    stream = ss.ShardStream(data, epochs=1, max_batch_seconds=10.0).load_audio(sample_rate=RATE)
    handler = logging.FileHandler(tmp_path / "log")
    logging.getLogger("s3prl_stream").addHandler(handler)
    try:
        for source in (stream, stream.collate()):
            list(DataLoader(source, batch_size=None, num_workers=1))
    finally:
        logging.getLogger("s3prl_stream").removeHandler(handler)
        handler.close()
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 2
    assert all("as damaged" in line and "flac" in line for line in lines), lines


def test_numbers_that_no_loader_can_have_are_refused() -> None:
    stream = chain(memory([2.0] * 9))
    for wrong, words in (
        ({"rank": 1}, "given together"),
        ({"rank": 2, "world_size": 2}, "rank=2 is no whole number from 0 to 1"),
        ({"rank": -1, "world_size": 2}, "rank=-1 is no"),
        ({"rank": "0", "world_size": "2"}, "world_size='2' is no whole number from 1 on"),
        ({"num_workers": -1}, "num_workers=-1 is no"),
        ({"num_workers": "2"}, "num_workers='2' is no whole number from 0 on"),
        ({"prefetch": 0}, "prefetch=0 is no whole number from 1 on"),
        ({"stuck_after_seconds": "10"}, "stuck_after_seconds='10' is no number above 0"),
    ):
        with pytest.raises(UsageError, match=words):
            ss.Loader(stream, **wrong)  # type: ignore[arg-type]
    loader = ss.Loader(stream)
    for wrong in ("3", 1.5, True, -1):
        with pytest.raises(UsageError, match=f"state_dict: after={wrong!r} is no whole number from 0 on"):
            loader.state_dict(after=wrong)  # type: ignore[arg-type]
        with pytest.raises(UsageError, match=f"batches_in_epoch: epoch={wrong!r} is no whole number from 0 on"):
            loader.batches_in_epoch(wrong)  # type: ignore[arg-type]
    for no_chain in (memory([2.0]), "shards/sample", None):
        with pytest.raises(ChainError, match="is no chain; begin one by ShardStream"):
            ss.Loader(no_chain)
    with pytest.raises(ChainError, match=r"is no chain.* a function of your own goes into a Stage, as its emit\(\)"):
        ss.Loader(chain(memory([2.0])).filter(bool))


def test_a_loader_before_its_ranks_are_known_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = chain(memory([2.0] * 9))
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.warns(UserWarning, match="WORLD_SIZE is 4.*init_process_group"):
        ss.Loader(stream)
    ss.Loader(stream, rank=0, world_size=1)
    monkeypatch.setenv("WORLD_SIZE", "1")
    ss.Loader(stream)


def test_batches_need_a_plan() -> None:
    with pytest.raises(ChainError, match="ShardStream"):
        ss.Loader(ss.pipes.NormWav()([{"wav": torch.zeros(4)}]))
    with pytest.raises(ChainError, match="ShardStream"):
        ss.pipes.NormWav()([{"wav": torch.zeros(4)}]).collate()
    batches = ss.ShardStream(clips([1.0])).load_audio().collate()
    with pytest.raises(ChainError, match=r"NormWav stands behind \.collate\(\), whose batches end a chain"):
        batches.norm_wav()
    with pytest.raises(ChainError, match=r"has ended with \.collate\(\)"):
        batches.collate()


def test_damage_costs_the_sample_alone_and_is_listed(tmp_path: Any) -> None:
    data: dict[str, dict[str, Any]] = {key: dict(sample) for key, sample in clips([2.0] * 40).items()}
    whole = run(ss.ShardStream(data, epochs=1, max_batch_seconds=10.0).load_audio(sample_rate=RATE), 1, 0)[0]
    for key in ("clip0003", "clip0021"):
        data[key] = {**data[key], "audio": b"not audio at all", "codec": "flac"}
    loader = ss.Loader(ss.ShardStream(data, epochs=1, max_batch_seconds=10.0).load_audio(sample_rate=RATE))
    got = sorted(delivered(batch) for batch in loader)
    expected = [(b, tuple(row for row in rows if row[0] not in ("clip0003", "clip0021"))) for b, rows in whole]
    assert got == expected
    assert sorted((row["key"], row["reason"]) for row in loader.damaged) == [
        ("clip0003", "decode"),
        ("clip0021", "decode"),
    ]


def test_failures_in_a_row_stop_the_run() -> None:
    data = {key: {**sample, "audio": b"no", "codec": "flac"} for key, sample in clips([2.0] * 40).items()}
    stream = ss.ShardStream(data, epochs=1, max_batch_seconds=10.0, max_consecutive_failures=12)
    loader = ss.Loader(stream.load_audio(sample_rate=RATE))
    with pytest.raises(TooManyFailures, match="15 samples in a row"):
        list(loader)
    loader.skip(3, 4)
    batches = iter(loader)
    assert [next(batches)["weight"] for _ in range(2)] == [0.0, 0.0]  # which lose nothing
    with pytest.raises(TooManyFailures, match="20 samples in a row"):
        next(batches)


def test_failures_with_a_good_batch_between_them_are_not_in_a_row() -> None:
    failures, lost = Failures(limit=4), {"message": "lost"}
    for _ in range(3):
        failures.count(0, [lost] * 4)
        failures.count(0, [])
        failures.count(1, [lost] * 9)
    failures.count(0, [lost] * 2)
    with pytest.raises(TooManyFailures, match="5 samples in a row"):
        failures.count(0, [lost] * 3)


def test_what_is_damaged_is_listed_as_it_was_planned() -> None:
    data = {key: {**sample, "audio": b"no", "codec": "flac"} for key, sample in clips([4.0] * 20).items()}
    stream = ss.ShardStream(data, epochs=2, crop_seconds=1.5, crops="per_seconds", max_consecutive_failures=999)
    loader = ss.Loader(stream.load_audio(sample_rate=RATE))
    planned = [row for number in range(len(loader)) for row in loader.which(number)]
    list(loader)
    assert [{name: row[name] for name in row if name in planned[0]} for row in loader.damaged] == [
        {name: row[name] for name in row if name in loader.damaged[0]} for row in planned
    ]


@pytest.mark.parametrize("crop_seconds", [None, 0.5])
def test_an_empty_batch_has_empty_tensors_and_lists_and_no_weight(crop_seconds: float | None) -> None:
    """The keys of a full one: a loop over a finite stream needs no case for the last round."""
    stream = ss.ShardStream(clips([1.0]), epochs=1, crop_seconds=crop_seconds).load_audio(sample_rate=RATE)
    (full,) = list(ss.Loader(stream, rank=0, world_size=2))
    (batch,) = list(ss.Loader(stream, rank=1, world_size=2))
    assert batch["weight"] == 0.0
    assert batch["key"] == batch["speaker"] == batch.get("text", []) == []
    assert batch["wav"].shape == (0, 0)
    assert batch["wav"].dtype == torch.float32
    assert batch.keys() == full.keys()
    for name, value in batch.items():
        if isinstance(value, torch.Tensor):
            assert value.dtype == full[name].dtype
            assert value.dim() == full[name].dim()


def test_text_does_not_outlive_a_cut() -> None:
    stream = ss.ShardStream(clips([9.0, 1.0]), epochs=1, crop_seconds=2.0).load_audio(sample_rate=RATE)
    texts = {sample["key"]: sample.get("text") for sample in stream}
    assert texts == {"clip0000": None, "clip0001": "TEXT 1"}
    with pytest.raises(ChainError, match="text"):
        stream.tokenize(ss.pipes.CharacterTokenizer())
