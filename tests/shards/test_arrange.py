"""Where samples go: every one once, shards near their size, runs of similar lengths, no say for the listing's order."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from s3prl_stream.hashing import U64, key_hash
from s3prl_stream.shards.arrange import arrange
from s3prl_stream.shards.layout import PACKING_RUN


def hashes_of(keys: list[str]) -> U64:
    return np.array([key_hash(key) for key in keys], dtype=np.uint64)


@given(
    sizes=st.lists(st.floats(1.0, 1e7), min_size=1, max_size=200),
    shard_bytes=st.floats(10.0, 1e8),
    seed=st.integers(0, 2**40),
)
def test_shards_respect_the_size_target(sizes: list[float], shard_bytes: float, seed: int) -> None:
    num_bytes = np.array(sizes)
    keys = [f"key-{number}" for number in range(len(sizes))]
    shards = arrange(hashes_of(keys), num_bytes / 1e4, num_bytes, shard_bytes, seed)
    assert sorted(np.concatenate(shards)) == list(range(len(sizes)))
    assert all(len(shard) for shard in shards)
    for shard in shards:
        assert num_bytes[shard].sum() < (shard_bytes + num_bytes[shard].max()) * (1 + 1e-9)
    # Nor more shards than it takes, so that none is a small rest.
    assert len(shards) <= np.ceil(num_bytes.sum() / shard_bytes)


@given(st.permutations(range(60)), st.integers(0, 5))
def test_the_order_of_the_listing_has_no_say(order: list[int], seed: int) -> None:
    seconds = np.random.default_rng(0).uniform(1, 20, 60).round()
    keys = [f"key-{number}" for number in range(60)]
    shards = arrange(hashes_of(keys), seconds, seconds * 1000, 200_000, seed)
    permuted = arrange(hashes_of([keys[i] for i in order]), seconds[order], seconds[order] * 1000, 200_000, seed)
    assert [[keys[i] for i in shard] for shard in shards] == [[keys[order[i]] for i in shard] for shard in permuted]


def test_a_shard_is_made_of_shuffled_runs_of_similar_lengths_and_mixed_speakers() -> None:
    rng = np.random.default_rng(0)
    num = 40 * PACKING_RUN
    rest = [30.0 + number for number in range(5)]
    seconds = rng.uniform(1.5, 30, num)
    speakers = np.repeat(np.arange(40), PACKING_RUN)  # as a corpus lists them: one after the other
    keys = [*(f"{s}-{i}" for i, s in enumerate(speakers)), *map(str, rest)]
    seconds = np.append(seconds, rest)
    (shard,) = arrange(hashes_of(keys), seconds, seconds, 1e9, seed=0)
    assert seconds[shard[num:]].tolist() == rest  # the incomplete run stands last
    shard = shard[:num]
    runs = seconds[shard].reshape(-1, PACKING_RUN)
    assert (runs.max(1) - runs.min(1)).mean() < 1.0
    means = runs.mean(1)
    assert abs(np.corrcoef(means[:-1], means[1:])[0, 1]) < 0.35
    distinct = [len(set(run)) for run in speakers[shard].reshape(-1, PACKING_RUN)]
    uniform = 40 * (1 - (1 - 1 / 40) ** PACKING_RUN)
    assert np.mean(distinct) > 0.95 * uniform


def test_seeds_give_different_orders() -> None:
    keys, ones = [f"{i}" for i in range(100)], np.ones(100)
    first, second = (np.concatenate(arrange(hashes_of(keys), ones, ones, 10, seed)) for seed in (0, 1))
    assert (first == second).mean() < 0.1
