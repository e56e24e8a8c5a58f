"""`assert_resumable` finds stages that depend on more than their sample, and names the first of them."""

from __future__ import annotations

import functools
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from streams import RATE, memory

import s3prl_stream as ss
from s3prl_stream import resumable as module
from s3prl_stream.pipes.stage import Source, Stage
from s3prl_stream.sample import Sample


class Wav(Stage):
    """What the stages below do to a waveform: add a number."""

    functional_name = "wav"

    def number(self, sample: Sample) -> float:
        raise NotImplementedError

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {**sample, "wav": sample["wav"] + self.number(sample)}


class Good(Wav):
    functional_name = "good"

    def number(self, sample: Sample) -> float:
        return float(self.rng(sample).random())


class GlobalNumpy(Wav):
    functional_name = "global_numpy"

    def number(self, sample: Sample) -> float:
        return np.random.random()


class GlobalTorch(Wav):
    functional_name = "global_torch"

    def number(self, sample: Sample) -> float:
        return torch.rand(()).item()


class GlobalRandom(Wav):
    functional_name = "global_random"

    def number(self, sample: Sample) -> float:
        return random.random()


class Clock(Wav):
    functional_name = "clock"

    def number(self, sample: Sample) -> float:
        return time.perf_counter() % 1.0


class Counter(Wav):
    functional_name = "counter"

    def __init__(self, source: Any = None) -> None:
        self.count = 0
        super().__init__(source)

    def config(self) -> dict[str, Any]:
        return {}

    def number(self, sample: Sample) -> float:
        self.count += 1
        return self.count % 97


class Process(Wav):
    functional_name = "process"

    def number(self, sample: Sample) -> float:
        return float(os.getpid())


class OneBehind(Stage):
    """Mixes each waveform with the one before it."""

    functional_name = "one_behind"

    def __init__(self, source: Any = None) -> None:
        self.before = torch.zeros(1)
        super().__init__(source)

    def config(self) -> dict[str, Any]:
        return {}

    def emit(self, sample: Sample) -> Iterator[Sample]:
        before, self.before = self.before, sample["wav"]
        yield {**sample, "wav": sample["wav"] + before[0]}


class DropsAtRandom(Stage):
    """Loses samples by a global generator: what is left over is right, but others are there."""

    functional_name = "drops_at_random"

    def emit(self, sample: Sample) -> Iterator[Sample]:
        if random.random() < 0.8:
            yield sample


class Hides(Stage):
    """Takes the waveform out of sight again."""

    functional_name = "hides"

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield {"key": sample["key"], **{name: sample[name] for name in ("set", "epoch", "batch_index", "slot")}}


class Applies(Stage):
    def __init__(self, source: Any = None, *, function: Any) -> None:
        self.function = function
        super().__init__(source)

    def emit(self, sample: Sample) -> Iterator[Sample]:
        yield sample


@functools.cache
def short() -> Any:
    return memory([1.0] * 60)


def chain() -> Source:
    stream = ss.ShardStream(short(), max_batch_seconds=4.0, block_samples=32)
    return stream.load_audio(sample_rate=RATE)


def test_good_chains_pass() -> None:
    ss.assert_resumable(Good()(chain().add_noise(prob=0.5)))


def test_the_package_own_stages_pass(sample_set: Path) -> None:
    stream = ss.ShardStream(sample_set, max_batch_seconds=12.0, crop_seconds=2.0).load_audio().add_noise()
    ss.assert_resumable(stream.norm_wav().chunk(min_seconds=0.5, max_seconds=1.0).features().mask(), batches=5)


@pytest.mark.parametrize(
    "bad",
    [
        Counter,
        *(
            pytest.param(bad, marks=pytest.mark.slow)
            for bad in (OneBehind, GlobalNumpy, GlobalTorch, GlobalRandom, Clock, Process)
        ),
    ],
)
def test_the_first_bad_stage_is_named_with_what_differs(bad: type[Stage]) -> None:
    stream = GlobalNumpy()(bad()(Good()(chain())))
    with pytest.raises(AssertionError) as caught:
        ss.assert_resumable(stream, batches=6)
    message = str(caught.value)
    assert message.startswith(f"stage '{bad.functional_name}' (3 of 4) gives another 'wav' for clip 'clip")
    assert "than to 1 rank x 0 workers" in message


def test_a_bad_stage_is_named_on_a_packed_set_too(sample_set: Path) -> None:
    """There the bytes of a clip are a view of the shard, not an object of their own."""
    stream = ss.ShardStream(sample_set, max_batch_seconds=1.0, crop_seconds=0.3).load_audio()
    with pytest.raises(AssertionError, match=r"stage 'global_numpy' \(2 of 2\) gives another 'wav' for clip"):
        ss.assert_resumable(GlobalNumpy()(stream), batches=3)


def test_all_ranks_are_read_and_every_bit_is_told_apart() -> None:
    states: list[Any] = []
    assert sorted(number for number, _ in module._read(chain(), (2, 0), None, None, 3, states)) == list(range(6))
    assert [number for number, _ in module._read(chain(), (1, 0), states[-1], None, 2)] == [6, 7]
    zeros = [
        torch.zeros(2, 3),
        torch.zeros(3, 2),
        torch.zeros(2, 3, dtype=torch.int32),
        np.zeros((2, 3)),
        np.zeros((3, 2)),
    ]
    values = [*zeros, [0, 0], [[0], 0], (0.0, 0), [True, 0], "0", b"0", {"0": 0}, None, np.float32(0)]
    assert len({module._digest(value) for value in values}) == len(values)


def test_a_stage_that_another_process_would_not_know_again_is_named() -> None:
    """A lambda's only name is its address, so that states of the chain are refused after a restart."""
    for nameless in (lambda wav: wav, functools.partial(lambda wav: wav), object()):
        with pytest.raises(AssertionError, match=r"stage 'Applies' has <.* at 0x\w+> among its settings.*fingerprint"):
            ss.assert_resumable(Applies(function=nameless)(chain()))
    ss.assert_resumable(Applies(function=np.sqrt)(chain()), batches=3)


def test_lost_samples_are_noticed() -> None:
    with pytest.raises(AssertionError, match=r"stage 'drops_at_random' \(2 of 3\) gives another 'key' for batch"):
        ss.assert_resumable(Good()(DropsAtRandom()(chain())))


def test_what_no_batch_shows_is_no_difference() -> None:
    """A promise about batches: a stage may draw as it likes for what it throws away."""
    ss.assert_resumable(Hides()(GlobalRandom()(chain())), batches=4)


def test_the_end_of_a_stream_may_be_reached() -> None:
    stream = ss.ShardStream(memory([1.0] * 11), epochs=1, max_batch_seconds=2.0).load_audio(sample_rate=RATE)
    ss.assert_resumable(Good()(stream), batches=99)


def test_a_stream_too_short_to_resume_is_refused() -> None:
    with pytest.raises(ss.UsageError, match="the stream has 2 batches"):
        ss.assert_resumable(
            ss.ShardStream(memory([1.0] * 4), epochs=1, max_batch_seconds=2.0).load_audio(sample_rate=RATE)
        )
