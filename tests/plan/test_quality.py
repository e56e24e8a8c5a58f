"""The plan judged by all its measures at once, on a synthetic index with durations and speakers like VoxPopuli's."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import pytest
from streams import clips, memory
from synthetic_index import make_synthetic_index

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.loader import Loader
from s3prl_stream.plan.planner import EpochPlanner
from s3prl_stream.plan.quality import measure
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.stream import ShardStream


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """250 000 clips in 200 shards: 15 blocks."""
    folder = tmp_path_factory.mktemp("index") / "large"
    make_synthetic_index(folder, 200)
    return folder


@pytest.fixture(scope="module")
def one_block(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """10 000 clips in one block."""
    folder = tmp_path_factory.mktemp("index") / "small"
    make_synthetic_index(folder, 8)
    return folder


def test_quality_at_run_4(large: Path) -> None:
    quality = measure(ShardStream(large, run=4).planner(), max_blocks=3)
    assert quality.padding < 0.025
    assert quality.budget_filled > 0.95
    assert quality.repeated_pairs < 0.10
    assert quality.speakers_vs_uniform is not None
    assert quality.speakers_vs_uniform > 0.9
    assert quality.megabytes_per_read > 0.6


def test_what_is_measured_on_a_few_blocks_reads_their_shards_only(large: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    planner = ShardStream(large).planner()
    assert isinstance(planner, EpochPlanner)
    in_blocks = {int(shard) for number in (0, 1) for shard in planner.blocks(0).block(number)}
    read: list[int] = []
    rows_table = ShardFolder.rows_table

    def noted(folder: ShardFolder, shard: int, columns: list[str]) -> object:
        if columns == ["speaker"]:
            read.append(shard)
        return rows_table(folder, shard, columns)

    monkeypatch.setattr(ShardFolder, "rows_table", noted)
    monkeypatch.delattr(ShardFolder, "batches")  # which has all rows
    assert measure(planner, max_blocks=2).speakers_vs_uniform is not None
    assert sorted(read) == sorted(in_blocks)


@pytest.mark.parametrize("run", [1, 4])
def test_quality_of_one_block(one_block: Path, run: int) -> None:
    quality = measure(ShardStream(one_block, run=run).planner())
    assert quality.blocks == 1
    assert quality.padding < 0.025
    assert quality.budget_filled > 0.95
    assert quality.repeated_pairs < 0.3
    assert quality.speakers_vs_uniform is not None
    assert quality.speakers_vs_uniform > 0.9


@pytest.mark.parametrize("chunk_seconds", [None, 1.5])
def test_every_figure_of_a_small_set_is_as_counted(chunk_seconds: float | None) -> None:
    lengths = [0.5 + (7 * number) % 5 for number in range(128)]
    stream = ShardStream(memory(lengths), block_samples=32, max_batch_seconds=12.0, chunk_seconds=chunk_seconds)
    loader = Loader(stream.load_audio(sample_rate=1000), rank=0, world_size=1)
    first = loader.batches_in_epoch(0)
    epochs = [
        [
            {(int(row["key"][4:]), row["first_frame"]): row["num_frames"] / 1000 for row in loader.which(batch)}
            for batch in range(begin, begin + count)
        ]
        for begin, count in ((0, first), (first, loader.batches_in_epoch(1)))
    ]
    later = {frozenset(pair) for one in epochs[1] for pair in combinations(one, 2)}
    for most, num_blocks in ((1, 1), (8, 4)):
        found = measure(stream.planner(), max_blocks=most)
        batches = epochs[0][: found.batches]
        pairs = {frozenset(pair) for one in batches for pair in combinations(one, 2)}
        padded = [len(batch) * max(batch.values()) for batch in batches]
        seconds = sum(sum(batch.values()) for batch in batches)
        clips_of = [{clip for clip, _ in batch} for batch in batches]
        assert (found.blocks, found.clips) == (num_blocks, sum(map(len, batches)))
        assert found.hours == pytest.approx(seconds / 3600)
        assert found.clips_per_batch == pytest.approx(found.clips / len(batches))
        assert found.padding == pytest.approx(1 - seconds / sum(padded))
        assert found.budget_filled == pytest.approx(sum(padded) / len(batches) / 12)
        assert found.largest_batch_seconds == pytest.approx(max(padded))
        assert found.repeated_pairs == pytest.approx(len(pairs & later) / len(pairs))
        assert found.repeated_pairs > 0
        speakers = sum(len({clip % 7 for clip in batch}) for batch in clips_of) / len(batches)
        assert found.speakers_per_batch == pytest.approx(speakers)
        reads = sum(clip % 16 == 0 or clip - 1 not in batch for batch in clips_of for clip in batch)
        assert found.reads_per_hour == pytest.approx(reads / found.hours)
    assert found.batches == first


def test_the_realised_mix_is_one_of_seconds() -> None:
    mixed = ShardSet([MemoryShards(clips([length] * 40), name) for name, length in (("long", 4.0), ("short", 1.0))])
    share = measure(ShardStream(mixed, max_batch_seconds=12.0).planner()).share_of_set
    assert share == {"long": pytest.approx(0.8), "short": pytest.approx(0.2)}


def test_a_set_in_corpus_order_pays_in_reads_alone(one_block: Path, tmp_path: Path) -> None:
    make_synthetic_index(tmp_path / "sorted", 8, shuffled=False)
    packed = measure(ShardStream(one_block, run=8).planner())
    unpacked = measure(ShardStream(tmp_path / "sorted", run=8).planner())
    assert unpacked.padding < 0.05
    assert unpacked.speakers_vs_uniform is not None
    assert unpacked.speakers_vs_uniform > 0.9
    assert unpacked.megabytes_per_read < packed.megabytes_per_read / 2


def test_the_quality_of_samples_in_memory_can_be_measured() -> None:
    found = measure(ss.ShardStream(memory([1.0 + n % 3 for n in range(100)]), max_batch_seconds=20.0).planner())
    assert found.clips == 100
    assert found.speakers_vs_uniform == pytest.approx(1.0, abs=0.15)
    two = ShardSet([MemoryShards(clips([length] * 30), name) for name, length in (("one", 1.0), ("two", 3.0))])
    assert measure(ss.ShardStream(two, max_batch_seconds=9.0).planner()).share_of_set == {"one": 0.25, "two": 0.75}


def test_no_blocks_to_measure_is_wrong_use(sample_set: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", str(sample_set), "--blocks", "0"]) == 2
    assert "--blocks 0" in capsys.readouterr().err
