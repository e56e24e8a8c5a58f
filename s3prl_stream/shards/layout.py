"""The format of a shard set: names, index columns, manifest. Nothing else in the package spells a file name.

A set is a folder::

    manifest.json               what a reader needs at start-up
    SET-000000.tar              samples: KEY.flac (or wav ..., or npy) followed by KEY.json, both ustar members
    SET-000000.tar.idx          little-endian uint64: offset of each sample's first header, then the end of the last
    SET-000000.tar.parquet      the shard's index rows (one row group)
    files/...                   trial lists and the like, where the corpus has some; listed in the manifest
    index/part-00000.parquet    the rows of up to 16 shards, one row group a shard, in the order of the manifest
    left_out.jsonl              what is not in the set, and why
    report.json                 what was found about the quality of what is in it
    .packing/                   while it is packed: the plan, claims, and what is known of finished shards
    .packing.json               while it is written from another set
    .indexing.json              while tars made elsewhere are indexed in it
    .extracting/                while features are extracted into it

The page for users, with examples, is shards/README.md.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from s3prl_stream.errors import UsageError

FORMAT_VERSION = 1
MANIFEST = "manifest.json"
INDEX_FOLDER = "index"
EXTRA_FOLDER = "files"
LEFT_OUT = "left_out.jsonl"
"""The utterances that are not in the set, one a line, with kind, reason and message."""

REPORT = "report.json"
WORK_FOLDER = ".packing"
"""Stands in a set while it is packed."""

UNFINISHED = ".packing.json"
"""The same of a set that is written from another one by `repair` or `subset`."""

INDEXING = ".indexing.json"
"""The same while tars made elsewhere are indexed; it says which files beside them are ours."""

EXTRACT_FOLDER = ".extracting"
EXTRACT_STATE = f"{EXTRACT_FOLDER}/state.json"
"""The same of a set that `extract` writes: how far it is."""

SHARDS_PER_PART = 16
"""A part's footer is parsed whole to reach one row group: 16 shards cost 0.4 ms, 256 cost 5 ms (measured)."""

PACKING_RUN = 16
"""The packer puts this many samples of similar duration next to each other."""

INDEX_COLUMNS: dict[str, str] = {
    "key": "string",
    "shard": "string",
    "key_hash": "uint64",
    "offset": "int64",
    "size": "int64",
    "crc32c": "uint32",
    "codec": "string",
    "sample_rate": "int32",
    "frames": "int64",
    "seconds": "double",
}
"""Column -> Arrow type, in this order; the utterances' metadata follow, sorted by name.

`offset` and `size` (bytes) frame the whole sample, both members with headers and padding, and `crc32c` is taken
over exactly these bytes. `frames` counts waveform samples per channel; `seconds` is frames / sample_rate.
`key_hash` is `hashing.key_hash(key)`.
"""

QUALITY_COLUMNS: dict[str, str] = {
    "clipped_share": "double",
    "silent_share": "double",
    "dc_offset": "double",
    "source_sample_rate": "int64",
    "source_channels": "int64",
    "pcm_hash": "string",
    "duplicate_of": "string",
    "findings": "string",
}
"""Column -> Arrow type of what packing measured (`packing/quality.py`); behind the fixed columns, before metadata."""

CODECS = ("flac", "wav", "ogg", "opus", "mp3")
"""Extensions under which the audio member of a sample is found."""

FEATURES = "npy"
"""The extension of a sample's features, in a set that `extract` wrote. Frames and rate in its index are theirs."""


def set_name(folder: str, name: str | None) -> str:
    """Name of a set: the one that is asked for, else that of its folder as far as it fits.

    Raises:
        UsageError: a name with other characters than letters, digits, - and _, or longer than 64.
    """
    if name is None:
        return re.sub(r"[^A-Za-z0-9_-]+", "-", folder).strip("-")[:64] or "set"
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise UsageError(f"name is {name!r}; a set's name has 1 to 64 letters, digits, - and _.")
    return name


def shard_name(set_name: str, number: int) -> str:
    """File name of shard `number` (from 0)."""
    return f"{set_name}-{number:06d}.tar"


def offsets_name(shard: str) -> str:
    """Sidecar with the byte offsets of the shard's samples."""
    return f"{shard}.idx"


def rows_name(shard: str) -> str:
    """Sidecar with the shard's index rows."""
    return f"{shard}.parquet"


def part_name(number: int) -> str:
    """Index part `number`, relative to the set's folder."""
    return f"{INDEX_FOLDER}/part-{number:05d}.parquet"


def parquet_options(columns: Iterable[str]) -> dict[str, Any]:
    """How index rows are written: a dictionary only for columns whose values repeat.

    On the others it costs a quarter more space and twice the time to read. Pages carry checksums: a bit that flips in
    a length or an offset would otherwise change the plan without a word.
    """
    plain = {"key", "key_hash", "offset", "size", "crc32c", "frames", "seconds", "pcm_hash"}
    repeating = [name for name in columns if name not in plain]
    return {"compression": "zstd", "use_dictionary": repeating, "write_page_checksum": True}
