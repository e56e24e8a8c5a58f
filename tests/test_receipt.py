"""The receipt of a resume: counters, compared with what was really read."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from small_recipes import TINY_WORDS
from streams import RATE, clips

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.pipes.stage import Source
from s3prl_stream.receipt import Receipt, Topology
from s3prl_stream.sample import Item, Sample
from s3prl_stream.shards.member import Rows
from s3prl_stream.shards.memory import MemoryShards


class CountedShards(MemoryShards):
    """A set that counts what is asked of it."""

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        self.rows_read: list[int] = []
        self.clips_read: Counter[tuple[str, int]] = Counter()
        super().__init__(*arguments, **settings)

    def rows(self, shard: int) -> Rows:
        rows = super().rows(shard)
        self.rows_read.append(len(rows.frames))
        return rows

    def read(self, item: Item) -> Sample:
        self.clips_read[item.key, item.epoch] += 1
        return super().read(item)


BLOCK = 32  # clips


def shards() -> CountedShards:
    return CountedShards(clips([0.5 + n % 9 for n in range(240)]), samples_per_shard=16)


def chain(data: Any) -> Source:
    stream = ss.ShardStream(data, epochs=2, max_batch_seconds=20.0, block_samples=BLOCK)
    return stream.load_audio(sample_rate=RATE)


def state_after(rounds: int, ranks: int = 1) -> dict[str, Any]:
    loader = ss.Loader(chain(shards()), rank=0, world_size=ranks, prefetch=3)
    for _ in zip(range(rounds), loader, strict=False):
        pass
    state: dict[str, Any] = json.loads(json.dumps(loader.state_dict()))
    return state


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9])
def test_the_counters_are_those_of_the_reading(share: float) -> None:
    consumed = round(share * len(ss.Loader(chain(shards()))))
    state = state_after(consumed)
    data = shards()
    loader = ss.Loader(chain(data), prefetch=1)
    assert loader.receipt is None
    loader.load_state_dict(state)
    batches = iter(loader)
    batch = next(batches)
    del batches
    receipt = loader.receipt
    assert receipt is not None
    assert receipt.batch == batch["batch_index"] == consumed
    assert (receipt.before, receipt.now) == (Topology(1, 0, 3), Topology(1, 0, 1))
    assert receipt.most_built_ahead_before == 3
    assert (receipt.clips_again, receipt.bytes_again) == (0, 0)
    assert receipt.epoch == batch["epoch"][0]
    # a fresh start reads the rows of the first block; a state that was made at the edge of one may need the one before
    assert receipt.index_rows in (BLOCK, 2 * BLOCK)
    assert receipt.index_rows <= sum(data.rows_read) <= receipt.index_rows + 2 * BLOCK  # blocks are planned ahead
    before = {(row["key"], row["epoch"]) for b in range(consumed) for row in loader.which(b)}
    assert not before & set(data.clips_read)
    rows = receipt.index_rows
    assert len(list(zip(range(9), loader, strict=False))) > 3  # further blocks are no cost of going on
    assert receipt.index_rows == rows


def test_the_place_is_told_in_epoch_block_and_batch() -> None:
    loader = ss.Loader(chain(shards()), rank=1, world_size=2)
    loader.load_state_dict(state_after(7, ranks=3))
    receipt = loader.receipt
    assert receipt is not None
    assert (receipt.batch, receipt.block) == (21, None)
    batch = next(iter(loader))
    anchors = [position for position, _ in loader._planner.walk() if position.batch <= batch["batch_index"]]
    assert (receipt.epoch, receipt.block) == anchors[-1][1:3]
    assert receipt.batch_in_block == batch["batch_index"] - anchors[-1].batch
    assert (receipt.before, receipt.most_built_ahead_before) == (Topology(3, 0, 3), 9)


def test_a_clip_that_is_read_again_would_be_counted() -> None:
    """By a view that goes back: the counter counts, it does not assume."""
    loader = ss.Loader(chain(shards()))
    loader.load_state_dict(state_after(9))
    receipt = loader.receipt
    assert receipt is not None
    receipt.batch = 10
    list(zip(range(2), loader, strict=False))
    assert receipt.clips_again == len(loader.which(9))


def test_the_fingerprint_follows_what_determines_the_batches() -> None:
    def receipt(stream: Source) -> Receipt:
        loader = ss.Loader(stream)
        loader.load_state_dict(ss.Loader(stream).state_dict())
        assert loader.receipt is not None
        return loader.receipt

    first = receipt(chain(shards())).fingerprint
    assert receipt(chain(shards())).fingerprint == first
    assert len(first) == 16
    assert receipt(chain(shards()).norm_wav()).fingerprint != first


def test_a_state_of_before_there_were_receipts_is_good() -> None:
    state = state_after(3)
    del state["topology"]
    loader = ss.Loader(chain(shards()))
    loader.load_state_dict(state)
    assert loader.receipt is not None
    assert loader.receipt.before is None
    assert "unknown before" in str(loader.receipt)
    assert json.loads(json.dumps(loader.receipt.as_dict()))["most_built_ahead_before"] is None


def test_a_continued_run_tells_and_keeps_it(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pretrain", "tera", "--data", str(sample_set), "--out", str(tmp_path / "run"), *TINY_WORDS.split()]
    assert main([*words, "--steps", "2"]) == 0
    assert "goes on" not in capsys.readouterr().err
    assert not (tmp_path / "run" / "resumes.jsonl").exists()
    for workers in (1, 0):
        assert main([*words, "--steps", str(4 - workers), "--workers", str(workers)]) == 0
    told = capsys.readouterr().err
    assert "goes on at batch 2 (epoch 0, block 0, batch 2 of it)" in told
    assert "1 rank x 0 workers before, 1 rank x 1 worker now" in told
    assert "0 clips (0 bytes) read again" in told
    first, second = map(json.loads, (tmp_path / "run" / "resumes.jsonl").read_text().splitlines())
    assert (first["batch"], second["batch"]) == (2, 3)
    assert first["now"] == second["before"] == {"ranks": 1, "workers": 1, "prefetch": 2}
    assert first["fingerprint"] == second["fingerprint"]
    assert first["index_rows"] == len(ss.open_shards(sample_set))
