"""The three listings of a shard's samples (index part, row sidecar, offset sidecar), read with suspicion.

What is asked of rows: `problem_with_rows` is what a plan needs of any set, `problem_with_packed` adds what packing
makes, and `problem_with_indexed` knows the rows that were written for a tar made elsewhere.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.lengths import MAX_FRAMES_PER_BYTE
from s3prl_stream.errors import DamagedFile, MissingFile, StreamError
from s3prl_stream.hashing import key_hash
from s3prl_stream.shards.layout import INDEX_COLUMNS, offsets_name, rows_name
from s3prl_stream.shards.rows import IndexRow, rows_hash
from s3prl_stream.shards.tar import END_OF_TAR
from s3prl_stream.stores.store import Store

if TYPE_CHECKING:
    import pyarrow as pa

NOT_USABLE = (MissingFile, DamagedFile)
"""Errors that say something about a file, and not about a store that is away."""

MAX_PARQUET_BYTES = 4 << 30
MAX_OFFSETS_BYTES = 1 << 30
_LEAST_BYTES_OF_ROW = 8
"""A hash, which no codec makes smaller. Of equal rows a few bytes can hold 1e9."""

_KINDS = ("bool", "int64", "double", "string")

PLAN_COLUMNS = ["key", "key_hash", "frames", "sample_rate", "offset", "size", "crc32c"]
"""What a plan reads of the rows."""


class Unusable(NamedTuple):
    """Why a file of the index cannot be used."""

    message: str


Offsets = npt.NDArray[np.uint64]


ProblemWith = Callable[["pa.Table"], "str | None"]
"""Rows of a shard -> why they cannot be those of that shard."""


class IndexPart:
    """An index part, read whole; its row groups are decoded one at a time. The rows beside a shard are one of one."""

    def __init__(self, store: Store, name: str) -> None:
        import pyarrow.parquet

        self.name = name
        self._file: Any = None
        self._problem = Unusable("")
        try:
            content = store.read_whole(name, at_most=MAX_PARQUET_BYTES)
            with arrow_errors(_not_parquet):
                buffer = pyarrow.BufferReader(content)
                file = pyarrow.parquet.ParquetFile(buffer, page_checksum_verification=True)
                num_rows = sum(file.metadata.row_group(number).num_rows for number in range(file.num_row_groups))
            if num_rows * _LEAST_BYTES_OF_ROW > len(content):
                raise DamagedFile(f"{num_rows} rows cannot be in {len(content)} bytes, as each has a hash of its own")
            self._file = file
        except NOT_USABLE as error:
            self._problem = _unusable(error)

    @property
    def num_row_groups(self) -> int | None:
        """None: not readable at all."""
        return None if self._file is None else int(self._file.num_row_groups)

    def shards_in(self, row_group: int) -> list[str]:
        """Names in the column "shard"; none where it cannot be read."""
        if self._file is None:
            return []
        try:
            with arrow_errors(_not_parquet):
                column = self._file.read_row_group(row_group, columns=["shard"], use_threads=False).column("shard")
                return [str(name) for name in column.unique().to_pylist()]
        except DamagedFile:
            return []

    def rows(self, row_group: int, shard: str, problem_with: ProblemWith | None = None) -> pa.Table | Unusable:
        """The rows of a shard, which should be row group number `row_group`; by default those of a packed one."""
        if self._file is None:
            return self._problem
        if row_group >= self._file.num_row_groups:
            many = f"has {self._file.num_row_groups} row groups"
            return Unusable(f"{many}, the rows of {shard} should be number {row_group}")
        try:
            with arrow_errors(_not_parquet):
                table = self._file.read_row_group(row_group, use_threads=False)
                table.validate(full=True)
                table = table.combine_chunks()
        except DamagedFile as error:
            return Unusable(str(error))
        problem = problem_with(table) if problem_with is not None else problem_with_packed(table, shard)
        return table if problem is None else Unusable(f"rows of {shard}: {problem}")


def read_rows_sidecar(store: Store, shard: str, problem_with: ProblemWith | None = None) -> pa.Table | Unusable:
    """The rows that lie beside a shard; by default a packed one."""
    return IndexPart(store, rows_name(shard)).rows(0, shard, problem_with)


def read_offsets(store: Store, shard: str) -> Offsets | Unusable:
    """The offsets that lie beside a shard, sentinel included: [samples + 1]."""
    try:
        content = store.read_whole(offsets_name(shard), at_most=MAX_OFFSETS_BYTES)
    except NOT_USABLE as error:
        return _unusable(error)
    if len(content) % 8:
        return Unusable(f"{len(content)} bytes are no list of numbers of 8 bytes")
    return np.frombuffer(content, dtype="<u8").astype(np.uint64)


def offsets_of(table: pa.Table) -> Offsets:
    """What the offset sidecar of a shard with these rows holds: where each sample begins, and where the last one ends.

    Energon reads headers up to that end and takes the end marker of the tar for damage; Lhotse, which writes the size
    of the file there, reads either.
    """
    offset, size = (table.column(name).to_numpy() for name in ("offset", "size"))
    return np.append(offset, offset[-1] + size[-1]).astype(np.uint64)


def are_offsets_of(offsets: Offsets, table: pa.Table, num_bytes: int) -> bool:
    """True if offsets are those of these rows, of a tar of so many bytes; the last may be either of the known ends."""
    expected = offsets_of(table)
    return np.array_equal(offsets[:-1], expected[:-1]) and expected[-1] <= offsets[-1] <= num_bytes


def shard_bytes_of(table: pa.Table) -> int:
    """Size of the tar of a shard with these rows."""
    return int(offsets_of(table)[-1]) + len(END_OF_TAR)


def problem_with_rows(table: pa.Table) -> str | None:
    """Why no plan can use these rows; None: it can. Of impossible lengths it would make pieces without end."""
    import pyarrow

    for name in PLAN_COLUMNS:
        kind, wanted = table.schema.field(name).type, INDEX_COLUMNS[name]
        if (str(kind) != wanted) if wanted == "string" else not pyarrow.types.is_integer(kind):
            return f"a column {name!r} of {kind}, expected {wanted}"
        if name != "crc32c" and table.column(name).null_count:
            return f"nothing for {name!r} of some samples"
    frames, rate, size = (table.column(name).to_numpy() for name in ("frames", "sample_rate", "size"))
    if not ((frames > 0) & (rate > 0) & (size > 0) & (frames // MAX_FRAMES_PER_BYTE <= size)).all():
        return "clips of impossible lengths"
    return None


def problem_with_packed(table: pa.Table, shard: str) -> str | None:
    """What is impossible about the index rows of a packed shard by themselves; None: nothing."""
    found = {field.name: str(field.type) for field in table.schema}
    if list(found)[: len(INDEX_COLUMNS)] != list(INDEX_COLUMNS) or found != {**found, **INDEX_COLUMNS}:
        return f"columns are {', '.join(f'{name} {kind}' for name, kind in found.items())}"
    if any(kind not in _KINDS for name, kind in found.items() if name not in INDEX_COLUMNS):
        return f"a metadata column has a type that is none of {', '.join(_KINDS)}"
    if not table.num_rows:
        return "no rows"
    if any(table.column(name).null_count for name in INDEX_COLUMNS):
        return "nulls in the fixed columns"
    if table.column("shard").unique().to_pylist() != [shard]:
        return f"rows are of shard {table.column('shard')[0].as_py()!r}"
    problem = problem_with_rows(table)
    if problem is not None:
        return problem
    number = {name: table.column(name).to_numpy() for name, kind in INDEX_COLUMNS.items() if kind != "string"}
    # compared without adding up: sums of impossible sizes would overflow
    if number["offset"][0] != 0 or (np.diff(number["offset"]) != number["size"][:-1]).any():
        return "samples do not follow one another without gaps from byte 0"
    if (number["seconds"] != number["frames"] / number["sample_rate"]).any():
        return "seconds are not frames / sample_rate"
    hashes = np.array([key_hash(key) for key in table.column("key").to_pylist()], dtype=np.uint64)
    if (number["key_hash"] != hashes).any():
        return "key_hash is not the hash of the key"
    return None


def problem_with_indexed(table: pa.Table, samples: int | None, written: str) -> str | None:
    """Why these are not the rows of a tar made elsewhere, so many and with this hash; None: they are."""
    if any(name not in table.column_names for name in INDEX_COLUMNS):
        return "columns are missing"
    fields = [name for name in IndexRow._fields if name != "metadata"]
    rows = [IndexRow(**row, metadata={}) for row in table.select(fields).to_pylist()]
    if len(rows) != samples or rows_hash(rows) != written:
        return "not the rows that the manifest was written with"
    return None


def first_difference(table: pa.Table, other: pa.Table) -> str | None:
    """Where two tables of a shard's rows first differ, as "row 3, frames: 1 and 2"; None: nowhere."""
    if table.schema.names != other.schema.names or table.schema.types != other.schema.types:
        return "columns differ"
    if table.num_rows != other.num_rows:
        return f"{table.num_rows} and {other.num_rows} rows"
    for name in table.column_names:
        if not table.column(name).equals(other.column(name)):
            pairs = zip(table.column(name).to_pylist(), other.column(name).to_pylist(), strict=True)
            row, (one, two) = next((row, pair) for row, pair in enumerate(pairs) if pair[0] != pair[1])
            return f"row {row}, {name}: {one!r:.100} and {two!r:.100}"
    return None


def _unusable(error: Exception) -> Unusable:
    return Unusable("not there" if isinstance(error, MissingFile) else str(error))


def _not_parquet(what: str) -> StreamError:
    return DamagedFile(f"not readable as Parquet ({what})")


@contextlib.contextmanager
def arrow_errors(told: Callable[[str], StreamError], *, but: tuple[str, ...] = ()) -> Iterator[None]:
    """The dozen kinds of exceptions that Arrow raises on a damaged file, as one; ours pass, and kinds in `but`."""
    import pyarrow

    try:
        yield
    except StreamError:  # some are ValueErrors
        raise
    except (
        pyarrow.ArrowException, OSError, ValueError, LookupError, TypeError, NotImplementedError, ArithmeticError,
        MemoryError,
    ) as error:  # fmt: skip
        if type(error).__name__ in but:
            raise
        raise told(" ".join(str(error).split())) from error
