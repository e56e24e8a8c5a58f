"""Where the time of a loader goes. Clocks are compared with what must hold of them, never with limits."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_recipes import TINY_WORDS
from streams import RATE, memory

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.pipes.chained import chained
from s3prl_stream.pipes.stage import Stage
from s3prl_stream.sample import Sample
from s3prl_stream.trainer.losslog import read_losses

SLEEP_SECONDS = 0.002


@chained("sleepy_for_timing")
class Sleepy(Stage):
    """A stage that takes a known time."""

    def emit(self, sample: Sample) -> Iterator[Sample]:
        time.sleep(SLEEP_SECONDS)
        yield sample


@chained("sleepy_batch_for_timing")
class SleepyBatch(Stage):
    scope = "batch"

    def emit_batch(self, samples: Any) -> list[Sample]:
        time.sleep(SLEEP_SECONDS)
        return list(samples)


@pytest.mark.parametrize("workers", [0, 2])
def test_every_stage_has_its_seconds_summed_over_workers(workers: int) -> None:
    stream = ss.ShardStream(memory([1.0] * 60), epochs=1, max_batch_seconds=10.0).load_audio(sample_rate=RATE)
    stream = SleepyBatch()(Sleepy()(Sleepy()(stream)).add_noise())
    loader = ss.Loader(stream, num_workers=workers)
    assert loader.timing() == ({}, 0.0, 0.0)
    began = time.perf_counter()
    num_batches = sum(1 for _ in loader)
    elapsed = time.perf_counter() - began
    timing = loader.timing()
    first, second, batch = "sleepy_for_timing", "sleepy_for_timing#1", "sleepy_batch_for_timing"
    assert list(timing.stages) == ["read", "load_audio", first, second, "add_noise", batch, "collate"]
    assert all(seconds > 0 for seconds in timing.stages.values())
    assert min(timing.stages[first], timing.stages[second]) >= 60 * SLEEP_SECONDS
    assert timing.stages[batch] >= num_batches * SLEEP_SECONDS
    assert sum(timing.stages.values()) <= elapsed * max(workers, 1)
    assert timing.waiting + timing.working <= elapsed
    assert 0 < timing.waiting_share <= 1


def test_waiting_and_working_are_apart() -> None:
    """A consumer that holds a stage up waits for it; one that takes its time works."""
    stream = ss.ShardStream(memory([1.0] * 20), epochs=1, max_batch_seconds=10.0).load_audio(sample_rate=RATE)
    batches = iter(loader := ss.Loader(stream))
    next(batches)
    waited = loader.timing().waiting
    threading.Event().wait(0.05)
    next(batches)
    timing = loader.timing()
    assert timing.working >= 0.05
    assert timing.waiting > waited


def test_pretrain_tells_it(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["pretrain", "tera", "--data", str(sample_set), "--out", str(tmp_path / "run"), *TINY_WORDS.split()]
    assert main([*words, "--steps", "3", "--json"]) == 0
    timing = json.loads(capsys.readouterr().out)["timing"]
    assert list(timing["stages"]) == ["read", "load_audio", "norm_wav", "features", "mask", "collate"]
    assert timing["waiting_share"] == pytest.approx(timing["waiting"] / (timing["waiting"] + timing["working"]))
    assert main([*words, "--steps", "4"]) == 0
    shown = capsys.readouterr().out
    assert "s for data" in shown
    assert "load_audio" in shown
    waits = [json.loads(line) for line in (tmp_path / "run" / "waits.jsonl").read_text().splitlines()]
    assert [line["step"] for line in waits] == [1, 2, 3, 4]
    assert all(line["waited_seconds"] > 0 for line in waits)
    assert "waited_seconds" not in read_losses(tmp_path / "run")[0]
