"""The plan judged by all its measures at once, on a synthetic index with durations and speakers like VoxPopuli's."""

from __future__ import annotations

from pathlib import Path

import pytest

from s3prl_stream.plan.quality import measure
from s3prl_stream.shards.synthetic import make_synthetic_index
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


@pytest.mark.parametrize("run", [1, 4])
def test_quality_of_one_block(one_block: Path, run: int) -> None:
    quality = measure(ShardStream(one_block, run=run).planner())
    assert quality.blocks == 1
    assert quality.padding < 0.025
    assert quality.budget_filled > 0.95
    assert quality.repeated_pairs < 0.3
    assert quality.speakers_vs_uniform is not None
    assert quality.speakers_vs_uniform > 0.9


def test_a_set_in_corpus_order_pays_in_reads_alone(one_block: Path, tmp_path: Path) -> None:
    make_synthetic_index(tmp_path / "sorted", 8, shuffled=False)
    packed = measure(ShardStream(one_block, run=8).planner())
    unpacked = measure(ShardStream(tmp_path / "sorted", run=8).planner())
    assert unpacked.padding < 0.05
    assert unpacked.speakers_vs_uniform is not None
    assert unpacked.speakers_vs_uniform > 0.9
    assert unpacked.megabytes_per_read < packed.megabytes_per_read / 2
