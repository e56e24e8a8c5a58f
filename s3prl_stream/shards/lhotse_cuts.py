"""A packed set for Lhotse: its cuts, so that Lhotse 2 reads the tars where they lie, by their `.tar.idx`.

Lhotse's indexed Shar reader takes the place of a recording from the `.tar.idx` alone, and all else from the cuts. So no
audio is copied: what is written here is one JSON line a clip.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from s3prl_stream.errors import UsageError
from s3prl_stream.shards.folder import ShardFolder
from s3prl_stream.shards.layout import INDEX_COLUMNS
from s3prl_stream.shards.shardset import ShardSet, open_shards

SUPERVISION = ("text", "speaker", "language", "gender")
"""Metadata that Lhotse keeps in a cut's supervision; the rest is its `custom`."""


def write_lhotse_cuts(shards: ShardSet | str | Path, out: str | Path) -> dict[str, list[str]]:
    """Write `cuts.000000.jsonl` for each shard of a packed set, with a cut for each sample, in the order of the tar.

    Args:
        shards: one packed set.
        out: local folder; cuts that lie there are replaced.

    Returns:
        The `fields` of Lhotse's `LazyIndexedSharIterator(fields=..., lazy=True)`: paths or URLs of the cuts, and of
        the tars.

    Raises:
        UsageError: several sets, or one that was not packed here (Lhotse takes the first file of a sample for its
            sound).
    """
    opened = shards if isinstance(shards, ShardSet) else open_shards(shards)
    member = opened.members[0]
    if len(opened.members) != 1 or not isinstance(member, ShardFolder) or "packing" not in member.manifest:
        raise UsageError(f"{opened.name}: cuts for Lhotse are written of one packed set.")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    fields: dict[str, list[str]] = {"cuts": [], "recording": []}
    for number, name in enumerate(member.shard_names):
        path = folder / f"cuts.{number:06d}.jsonl"
        rows = member.rows_table(number).to_pylist()
        path.write_text("".join(json.dumps(_cut(row), ensure_ascii=False) + "\n" for row in rows), "utf-8")
        fields["cuts"].append(str(path))
        fields["recording"].append(f"{member.tars.url.rstrip('/')}/{name}")
    return fields


def _cut(row: dict[str, Any]) -> dict[str, Any]:
    key, rate, frames = row["key"], row["sample_rate"], row["frames"]
    about = {name: value for name, value in row.items() if name not in INDEX_COLUMNS and value is not None}
    span = {"start": 0, "duration": frames / rate, "channel": 0}
    told = {name: str(about.pop(name)) for name in SUPERVISION if name in about}
    return {
        "id": key,
        **span,
        "supervisions": [{"id": key, "recording_id": key, **span, **told}],
        "recording": {
            "id": key,
            "sources": [{"type": "shar", "channels": [0], "source": ""}],
            "sampling_rate": rate,
            "num_samples": frames,
            "duration": frames / rate,
            "channel_ids": [0],
        },
        "custom": about,
        "type": "MonoCut",
    }
