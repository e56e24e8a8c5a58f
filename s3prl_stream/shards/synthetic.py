"""An index without audio, of any size: to plan, to measure and to size a run before a single clip is packed.

Twenty-three languages with hours in about the proportions of VoxPopuli's unlabelled part (Wang et al., "VoxPopuli",
ACL 2021), clips of 1 to 30 s with a mean near 14 s, speakers by Zipf's law. Everything follows from the seed.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import hash64
from s3prl_stream.shards.arrange import in_runs
from s3prl_stream.shards.layout import (
    FORMAT_VERSION,
    INDEX_COLUMNS,
    INDEX_FOLDER,
    MANIFEST,
    SHARDS_PER_PART,
    parquet_options,
    part_name,
    shard_name,
)
from s3prl_stream.shards.member import I64

SAMPLE_RATE = 16_000
FLAC_BYTES_PER_SECOND = 16_500
THOUSAND_HOURS = {
    "en": 24, "de": 23, "fr": 23, "es": 21, "pl": 21, "it": 22, "ro": 18, "hu": 18, "cs": 19, "nl": 19, "fi": 14,
    "hr": 8,
    "sk": 12, "sl": 11, "et": 11, "lt": 14, "pt": 18, "bg": 18, "el": 18, "lv": 13, "mt": 9, "sv": 16, "da": 14,
}  # fmt: skip
SPEAKERS_PER_LANGUAGE = 300


def make_synthetic_index(
    out: str | Path,
    num_shards: int,
    *,
    samples_per_shard: int = 1250,
    seed: int = 0,
    shuffled: bool = True,
    name: str = "synthetic",
) -> None:
    """Write manifest and index parts of a set that has no shards.

    Args:
        out: new folder. 80 000 shards of 1 250 samples take 2.6 GB.
        num_shards, samples_per_shard: size.
        seed: another seed, another set.
        shuffled: as the packer does it; False: in the order of a corpus, speaker after speaker.
        name: of the set.

    Raises:
        UsageError: the folder is not empty.
    """
    import pyarrow
    import pyarrow.parquet

    folder = Path(out)
    if folder.exists() and any(folder.iterdir()):
        raise UsageError(f"{folder}: not empty; give a new folder")
    (folder / INDEX_FOLDER).mkdir(parents=True)
    schema = pyarrow.schema([*INDEX_COLUMNS.items(), ("language", "string"), ("speaker", "string")])
    shards: list[dict[str, Any]] = []
    for first in range(0, num_shards, SHARDS_PER_PART):
        path = folder / part_name(first // SHARDS_PER_PART)
        with pyarrow.parquet.ParquetWriter(path, schema, **parquet_options(schema.names)) as writer:
            for number in range(first, min(first + SHARDS_PER_PART, num_shards)):
                columns = _rows(number, samples_per_shard, seed, shuffled)
                writer.write_table(pyarrow.table(columns, schema=schema))
                shards.append(
                    {
                        "name": shard_name("synthetic", number),
                        "samples": samples_per_shard,
                        "seconds": float(columns["seconds"].sum()),
                        "bytes": int(columns["size"].sum()) + 1024,
                        "sha256": f"{seed}-{number}",
                    }
                )
    manifest = {"format_version": FORMAT_VERSION, "name": name, "corpus": "synthetic", "shards": shards}
    (folder / MANIFEST).write_text(json.dumps(manifest), "utf-8")


def _rows(shard: int, count: int, seed: int, shuffled: bool) -> dict[str, Any]:
    rng = np.random.Generator(np.random.Philox(key=[seed, shard]))
    weights = np.array(list(THOUSAND_HOURS.values()), dtype=np.float64)
    language = rng.choice(len(weights), count, p=weights / weights.sum())
    rank = np.arange(1, SPEAKERS_PER_LANGUAGE + 1)
    speaker = rng.choice(SPEAKERS_PER_LANGUAGE, count, p=(1 / rank) / (1 / rank).sum())
    frames = np.clip(rng.gamma(3.2, 4.5, count) * SAMPLE_RATE, SAMPLE_RATE, 30 * SAMPLE_RATE).astype(np.int64)
    identities = hash64("synthetic", seed, shard, np.arange(count))
    order: I64 = np.lexsort((speaker, language))
    if shuffled:
        order = in_runs(rng.permutation(count), frames / SAMPLE_RATE, seed, shard)
    language, speaker, frames, identities = language[order], speaker[order], frames[order], identities[order]
    codes = list(THOUSAND_HOURS)
    size = (frames / SAMPLE_RATE * FLAC_BYTES_PER_SECOND).astype(np.int64) // 512 * 512 + 2048
    names = [codes[number] for number in language]
    return {
        "key": [f"{shard:06d}-{number:06d}" for number in range(count)],
        "shard": [shard_name("synthetic", shard)] * count,
        "key_hash": identities,
        "offset": np.cumsum(size) - size,
        "size": size,
        "crc32c": (identities >> np.uint64(32)).astype(np.uint32),
        "codec": ["flac"] * count,
        "sample_rate": np.full(count, SAMPLE_RATE, dtype=np.int32),
        "frames": frames,
        "seconds": frames / SAMPLE_RATE,
        "language": names,
        "speaker": [f"{name}-{number:03d}" for name, number in zip(names, speaker, strict=True)],
    }
