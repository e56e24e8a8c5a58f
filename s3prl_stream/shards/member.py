"""What the plan and the loader ask of a set, wherever its samples lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from s3prl_stream.hashing import U64
from s3prl_stream.sample import Item, Sample
from s3prl_stream.stores.store import Ahead

if TYPE_CHECKING:
    import pyarrow as pa

I64 = npt.NDArray[np.int64]


class Rows(NamedTuple):
    """The index rows of one shard, in the order of the bytes. N samples."""

    key: Any  # N strings: a pyarrow array or a list
    key_hash: U64
    frames: I64
    sample_rate: I64
    offset: I64
    size: I64
    crc32c: I64  # -1 where unknown


class SetMember(Protocol):
    """One set of shards (a packed folder, or samples in memory)."""

    name: str
    fingerprint: str
    shard_names: list[str]
    shard_samples: I64
    shard_seconds: npt.NDArray[np.float64]

    @property
    def run(self) -> int:
        """Neighbours in a shard that may be read together without harm to the batches."""

    @property
    def is_remote(self) -> bool:
        """True where bytes come over a network."""

    def rows(self, shard: int) -> Rows:
        """Index rows of one shard."""

    def read(self, item: Item) -> Sample:
        """The item's metadata and its `audio` bytes with `codec`, or its `wav`.

        Raises:
            SampleError: the bytes are damaged.
            ShardError: the shard cannot be opened at all.
        """

    def read_ahead(self, items: Sequence[Item]) -> Ahead:
        """Begin to read samples whose `read` will follow; until closed."""

    def columns(self) -> dict[str, str]:
        """Index column -> Arrow type."""

    def cells(self, shard: int, column: str) -> list[Any]:
        """One column of the index rows of one shard."""

    def batches(self, columns: list[str], where: Any = None) -> Iterator[pa.RecordBatch]:
        """The index in row order; with `where`, a boolean column "keep" is added."""
