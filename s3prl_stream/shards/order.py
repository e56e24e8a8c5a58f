"""The order of samples inside a shard: runs of neighbours of similar duration, in shuffled order.

A run is one cheap read of equal lengths and mixed speakers, and a plain sequential reader still meets shuffled
lengths; a shard sorted as a whole would give it batches of correlated length.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from s3prl_stream.hashing import U64, hash64
from s3prl_stream.shards.layout import PACKING_RUN


def order_in_shard(seconds: npt.NDArray[np.float64], identities: U64, seed: int) -> npt.NDArray[np.int64]:
    """Permutation of a shard's samples.

    Args:
        seconds: [N] durations.
        identities: [N] hashes of the keys; they decide the order of the runs and the order inside each.
        seed: of the packing.
    """
    random = hash64("order in shard", seed, identities)
    by_duration = np.lexsort((random, seconds))
    run = np.arange(len(seconds)) // PACKING_RUN
    run_random = hash64("run order", seed, identities[by_duration][::PACKING_RUN])[run]
    order = np.lexsort((random[by_duration], run, run_random))
    return by_duration[order].astype(np.int64)
