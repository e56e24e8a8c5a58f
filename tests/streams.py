"""What the tests of plan, stream and loader share: small sets, and what a loader delivered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from hypothesis import strategies as st

from s3prl_stream.sample import Batch, Sample
from s3prl_stream.shards.memory import MemoryShards

RATE = 1000  # Hz: short arrays, whole seconds


def clips(seconds: Iterable[float], seed: int = 0) -> dict[str, Sample]:
    """Noise clips of the given lengths, all different."""
    rng = np.random.default_rng(seed)
    return {
        f"clip{number:04d}": {
            "wav": rng.integers(-3000, 3000, round(length * RATE)).astype(np.int16),
            "sample_rate": RATE,
            "speaker": f"s{number % 7}",
            "text": f"TEXT {number}",
        }
        for number, length in enumerate(seconds)
    }


def memory(seconds: Iterable[float], *, samples_per_shard: int = 16, seed: int = 0) -> MemoryShards:
    """A set in memory with many small shards."""
    return MemoryShards(clips(seconds, seed), samples_per_shard=samples_per_shard)


durations = st.lists(st.floats(0.2, 9.0), min_size=1, max_size=120)

settings = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**40),
        "shuffle": st.booleans(),
        "max_batch_seconds": st.floats(10.0, 60.0),
        "max_batch_size": st.one_of(st.none(), st.integers(1, 12)),
        "run": st.integers(1, 5),
        "block_samples": st.integers(8, 64),
    },
    optional={},
)

cuts = st.sampled_from(
    [{}, {"chunk_seconds": 2.0}, {"crop_seconds": 1.5}, {"crop_seconds": 1.5, "crops": "per_seconds"}]
)


def row_hashes(batch: Batch, name: str = "wav") -> list[str]:
    """A digest of each row's valid part."""
    rows = zip(batch[name], batch[f"{name}_len"].tolist(), strict=True) if batch["key"] else []
    return [hashlib.sha256(row[:length].numpy().tobytes()).hexdigest()[:16] for row, length in rows]


def delivered(batch: Batch) -> tuple[Any, ...]:
    """All that identifies a batch: its number, and of each row key, epoch, first frame and waveform."""
    first = batch["first_frame"].tolist() if batch["key"] else []
    return batch["batch_index"], tuple(
        zip(batch["key"], batch["epoch"].tolist(), first, row_hashes(batch), strict=True)
    )
