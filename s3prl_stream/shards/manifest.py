"""`manifest.json` of a set: written last, at once, so a set without one is not finished."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from importlib import metadata
from typing import Any

from s3prl_stream import __version__
from s3prl_stream.errors import MissingFile, ShardError
from s3prl_stream.shards.layout import EXTRACT_STATE, MANIFEST, UNFINISHED, WORK_FOLDER
from s3prl_stream.shards.store import Store

MAX_MANIFEST_BYTES = 1 << 30


def library_versions() -> dict[str, str]:
    """Versions of everything that decides about the bytes of a shard."""
    import soundfile

    versions = {name: metadata.version(name) for name in ("numpy", "pyarrow", "soundfile", "soxr")}
    return {**versions, "libsndfile": soundfile.__libsndfile_version__, "s3prl_stream": __version__}


def counts_of(shards: Sequence[Mapping[str, Any]], damaged: int, skipped: Mapping[str, int]) -> dict[str, Any]:
    """What a manifest counts: samples and seconds of its shards, and the utterances that are in none of them."""
    return {
        "samples": sum(shard["samples"] for shard in shards),
        "seconds": math.fsum(shard["seconds"] for shard in shards),
        "damaged": damaged,
        "skipped": dict(skipped),
    }


def write_manifest(store: Store, manifest: dict[str, Any]) -> None:
    """Write at once: a reader sees the whole manifest or none."""
    # The name of a folder that is not UTF-8 holds surrogates; as \\udcXX they are JSON again.
    content = json.dumps(manifest, indent=1, ensure_ascii=False) + "\n"
    store.write(MANIFEST, content.encode("utf-8", "backslashreplace"))


def is_unfinished(store: Store) -> bool:
    """A pack, a repair, a subset or an extraction has begun here; of one without a manifest: and not ended."""
    return any(store.size(name) is not None for name in (UNFINISHED, f"{WORK_FOLDER}/plan.json", EXTRACT_STATE))


def read_manifest(store: Store) -> dict[str, Any] | None:
    """The manifest of a set as it stands there; None if there is none.

    Raises:
        ShardError: it is not JSON.
    """
    try:
        return dict(json.loads(store.read_whole(MANIFEST, at_most=MAX_MANIFEST_BYTES)))
    except MissingFile:
        return None
    except (ValueError, TypeError, RecursionError) as error:
        url = f"{store.url}/{MANIFEST}"
        raise ShardError(
            f"{url}: not a readable manifest ({error}). `s3prl-stream repair` writes the set with a new one; "
            "or pack into another folder."
        ) from None
