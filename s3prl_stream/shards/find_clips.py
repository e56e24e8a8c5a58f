"""Clips by their names: which of them a set does not have."""

from __future__ import annotations

import json
from collections.abc import Iterable

from s3prl_stream.errors import UsageError
from s3prl_stream.shards.shardset import ShardSet


def name_clips(shards: ShardSet, clips: Iterable[str | tuple[str, str]]) -> list[tuple[str, str]]:
    """(set, key) of each clip that is given as that, or as a key alone where there is one set.

    Raises:
        UsageError: a key alone and several sets, a set that is not there, or no list.
    """
    names = [member.name for member in shards.members]
    named = []
    if isinstance(clips, str):
        raise UsageError(f"clips are given as a list: [{clips!r}]")
    if not isinstance(clips, Iterable):
        raise UsageError(f"clips are given as a list of keys or (set, key), not as {clips!r}")
    for clip in clips:
        is_pair = isinstance(clip, tuple | list) and len(clip) == 2 and all(isinstance(part, str) for part in clip)
        if not isinstance(clip, str) and not is_pair:
            raise UsageError(f"clip {clip!r} is neither a key nor (set, key)")
        if isinstance(clip, str):
            if len(names) > 1:
                line = json.dumps({"set": names[0], "key": clip})
                raise UsageError(
                    f"clip {clip!r}: of which set? Give (set, key), in a file a line {line}; the sets are "
                    f"{', '.join(names)}"
                )
            clip = (names[0], clip)
        set_name, key = clip
        if set_name not in names:
            raise UsageError(f"clip {key!r}: there is no set {set_name!r}; the sets are {', '.join(names)}")
        named.append((set_name, key))
    return named


def check_clips(shards: ShardSet, clips: Iterable[tuple[str, str]]) -> None:
    """Look clips up in the index; reads the keys of all of the sets concerned.

    Raises:
        UsageError: clips that are not there.
    """
    import pyarrow.dataset

    wanted = set(clips)
    missing = set(wanted)
    for member in shards.members:
        keys = [key for set_name, key in wanted if set_name == member.name]
        if keys:
            for rows in member.batches(["key"], pyarrow.dataset.field("key").isin(keys)):
                found = rows.column("key").filter(rows.column("keep")).to_pylist()
                missing.difference_update((member.name, key) for key in found)
    if missing:
        some = ", ".join(f"{set_name}: {key}" for set_name, key in sorted(missing)[:5])
        raise UsageError(f"{len(missing)} of {len(wanted)} clips are in no index ({some}); keys are as in the batches")
