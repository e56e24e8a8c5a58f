"""A set of features that grows shard by shard in a folder; everything of it but the manifest."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from s3prl_stream.errors import ShardError
from s3prl_stream.shards.bytes import metadata_json
from s3prl_stream.shards.layout import FEATURES, INDEX_COLUMNS, QUALITY_COLUMNS, shard_name
from s3prl_stream.shards.npy import FRAMES_PER_SECOND, Features, encode_features
from s3prl_stream.shards.rows import index_table
from s3prl_stream.shards.workers import Workers
from s3prl_stream.shards.write_index import publish_shard, write_parts
from s3prl_stream.shards.writer import ShardWriter
from s3prl_stream.stores.local_store import LocalStore


class FeatureSet:
    """What `extract` writes.

    Args:
        folder: of the set; exists.
        scratch: a folder on the same disk, for the shard that is being written.
        name: of the set.
        columns: of the index of the audio.
        finished: what the manifest says of shards that were finished before.

    Raises:
        ShardError: one of them is not there as it was described.
    """

    def __init__(
        self, folder: Path, scratch: Path, name: str, columns: Mapping[str, str], finished: list[dict[str, Any]]
    ) -> None:
        self.shards = list(finished)
        """What the manifest says of every finished shard."""
        self.bytes_in_shard = 0
        """Of features, in the shard that is being written."""
        self._folder, self._scratch, self._name = folder, scratch, name
        kept = {one: kind for one, kind in columns.items() if one not in {**INDEX_COLUMNS, **QUALITY_COLUMNS}}
        self._columns = dict(sorted({**kept, FRAMES_PER_SECOND: "int64"}.items()))
        self._writer: ShardWriter | None = None
        for shard in finished:
            path = folder / shard["name"]
            if not path.is_file() or path.stat().st_size != shard["bytes"]:
                raise ShardError(f"{path}: missing or not of {shard['bytes']} bytes; begin anew in another folder")

    @property
    def num_samples(self) -> int:
        """In finished shards."""
        return sum(int(shard["samples"]) for shard in self.shards)

    def add(self, key: str, features: Features, *, frames_per_second: int, metadata: Mapping[str, Any]) -> None:
        """Append a clip's [F, D] or [F, L, D] to the shard that is being written."""
        if self._writer is None:
            self._writer = ShardWriter(self._scratch, shard_name(self._name, len(self.shards)))
        content = encode_features(features)
        cells = {**metadata, FRAMES_PER_SECOND: frames_per_second}
        self._writer.add(
            key, content, FEATURES, metadata_json(cells),
            frames=len(features), sample_rate=frames_per_second, cells=cells,
        )  # fmt: skip
        self.bytes_in_shard += len(content)

    def end_shard(self) -> None:
        """Finish the shard; one to which nothing was added does not come into being."""
        if self._writer is None:
            return
        sha256, name = self._writer.finish(), self._writer.path.name
        table = index_table(self._writer.rows, self._columns)
        self.shards.append(publish_shard(self._writer.path, sha256, table, LocalStore(self._folder), name))
        self._writer.path.unlink()
        self._writer, self.bytes_in_shard = None, 0

    def finish(self) -> list[str]:
        """Write the index parts from the sidecars; their names."""
        return write_parts(LocalStore(self._folder), [shard["name"] for shard in self.shards], Workers(0))

    def close(self) -> None:
        """Let go of an open file without finishing it."""
        if self._writer is not None:
            self._writer.__exit__()
