"""Reading tars that were indexed where they lie: where that is, and what their samples hold."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from s3prl_stream.errors import ShardError
from s3prl_stream.sample import Item, Sample
from s3prl_stream.shards.foreign_sample import read_foreign
from s3prl_stream.shards.keys import escape_foreign_key
from s3prl_stream.stores.kept import Kept
from s3prl_stream.stores.store import Store, is_remote, open_store

if TYPE_CHECKING:
    import pyarrow as pa

MAX_SHARDS_KEPT = 32

RowsOf = Callable[[int, list[str]], "pa.Table"]
"""(shard number, columns) -> its index rows."""


def open_tars(store: Store, manifest: Mapping[str, Any]) -> Store:
    """The store of a set's tars: that of its manifest, unless they were indexed from elsewhere.

    Raises:
        ShardError: a manifest from a store that points to this machine's disk.
    """
    where = str((manifest.get("indexed") or {}).get("tars", "."))
    if where == ".":
        return store
    if store.is_remote and not is_remote(where):
        raise ShardError(
            f"{store.url}: its manifest points to {where}, a folder of this machine. A set that was fetched from "
            "elsewhere is not followed there: index the tars again, with out= for the new index."
        )
    return open_store(where)


class IndexedSamples:
    """Samples of tars made elsewhere: their own metadata, and what a table said of them when they were indexed.

    Args:
        manifest: of the set.
    """

    def __init__(self, manifest: Mapping[str, Any]) -> None:
        about = manifest["indexed"]
        self._prefix_keys = bool(about.get("prefix_keys"))
        self._last_dot = bool(about.get("last_dot"))
        self._columns = [str(name) for name in about.get("from_table", [])]
        self._kept: Kept[int, dict[int, Sample]] = Kept(MAX_SHARDS_KEPT)

    def sample(self, data: bytes, item: Item, shard_name: str, where: str, rows_of: RowsOf) -> Sample:
        """The metadata of one sample, its `audio` bytes and `codec`.

        Args:
            data: bytes of the sample.
            item: which sample.
            shard_name: of its tar.
            where: for messages.
            rows_of: reads the index; asked where a table gave metadata that no tar holds.

        Raises:
            SampleError: the bytes are not those of the sample that was indexed.
        """
        key = item.key
        if self._prefix_keys:
            key = key.removeprefix(escape_foreign_key(f"{shard_name.removesuffix('.tar')}/"))
        audio, codec, metadata = read_foreign(data, key, where, self._last_dot)
        if self._columns:
            metadata |= self._from_table(item, rows_of)
        return {**metadata, "audio": audio, "codec": codec}

    def _from_table(self, item: Item, rows_of: RowsOf) -> Sample:
        def by_offset() -> dict[int, Sample]:
            table = rows_of(item.shard, ["offset", *self._columns])
            return {row.pop("offset"): row for row in table.to_pylist()}

        row = self._kept.get(item.shard, by_offset).get(item.offset, {})
        return {name: value for name, value in row.items() if value is not None}
