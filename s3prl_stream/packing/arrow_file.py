"""Rows on their way through a pack, as an Arrow file: more of them than memory holds."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3prl_stream.stores.whole_files import explaining_writes

if TYPE_CHECKING:
    import pyarrow as pa


_DIGEST = b"digest"


class ArrowFile:
    """Rows written as an Arrow file, one record batch a call of `write`.

    Args:
        path: of the file.
        columns: name -> Arrow type.
    """

    def __init__(self, path: Path, columns: Mapping[str, str]) -> None:
        import pyarrow

        self.schema = pyarrow.schema([(name, pyarrow.type_for_alias(kind)) for name, kind in columns.items()])
        self._explained = functools.partial(explaining_writes, str(path))
        with self._explained():
            self._sink = pyarrow.OSFile(str(path), "wb")
            self._writer = pyarrow.ipc.new_file(self._sink, self.schema)

    def __enter__(self) -> ArrowFile:
        return self

    def __exit__(self, *_: object) -> None:
        with self._explained():
            self._writer.close()
            self._sink.close()

    def write(self, rows: list[Any]) -> None:
        """Append a batch of tuples."""
        import pyarrow

        columns = zip(*rows, strict=True) if rows else ([] for _ in self.schema)
        arrays = [pyarrow.array(values, type=one.type) for values, one in zip(columns, self.schema, strict=True)]
        self.write_batch(pyarrow.RecordBatch.from_arrays(arrays, schema=self.schema))

    def write_batch(self, batch: pa.RecordBatch) -> None:
        """Append a batch."""
        with self._explained():
            self._writer.write_batch(batch, custom_metadata={_DIGEST: _digest(batch)})


def arrow_batches(path: Path, number: int | None = None) -> Iterator[pa.RecordBatch]:
    """The batches of an `ArrowFile`, one after the other in memory, or that of a number; ValueError: one is damaged."""
    import pyarrow

    # read, not mapped: pages of a mapped file would count as memory of this process until they are wanted elsewhere
    with pyarrow.OSFile(str(path)) as source, pyarrow.ipc.open_file(source) as file:
        for one in range(file.num_record_batches) if number is None else (number,):
            batch, about = file.get_batch_with_custom_metadata(one)
            if about is None or about.get(_DIGEST) != _digest(batch):  # of which Arrow itself knows nothing
                raise ValueError(f"batch {one} is not as it was written")
            yield batch


def _digest(batch: pa.RecordBatch) -> bytes:
    return hashlib.blake2b(batch.serialize(), digest_size=16).digest()
