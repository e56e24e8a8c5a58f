"""The plan of a pack: which clip goes to which shard, and where in it. A file, made once, before any shard is begun.

    plan.json      what is packed: settings, hash of the corpus, libraries, columns, clips of each shard; written last
    plan.arrow     one record batch a shard, its clips in order
    plan.jsonl     the utterances that were left out before packing

Lists of any length are planned in little memory: 60 bytes a clip on top of a batch of them.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.source import SourceInfo
from s3prl_stream.errors import ShardError
from s3prl_stream.hashing import key_hash
from s3prl_stream.json_files import sealed, unsealed
from s3prl_stream.packing.arrow_file import ArrowFile, arrow_batches
from s3prl_stream.packing.clips import Clip, select_clips
from s3prl_stream.packing.listing import Kinds, Listing, refuse_equal_keys
from s3prl_stream.packing.outfolder import difference
from s3prl_stream.packing.settings import ORIGINAL, PackSettings
from s3prl_stream.shards.arrange import arrange
from s3prl_stream.shards.index_files import arrow_errors
from s3prl_stream.shards.layout import WORK_FOLDER
from s3prl_stream.shards.manifest import library_versions
from s3prl_stream.shards.rows import columns_of, metadata_kinds
from s3prl_stream.shards.workers import Workers

PLAN, CLIPS, LEFT_OUT_BEFORE = "plan.json", "plan.arrow", "plan.jsonl"
PLAN_ANEW = f"Remove {WORK_FOLDER}/{PLAN}, and the same command makes the plan anew; finished shards stay."

_PLANNED = {
    "position": "int64", "key": "string", "unsafe_key": "bool", "audio": "binary", "first_frame": "int64",
    "stop_frame": "int64", "metadata": "binary", "frames": "int64", "sample_rate": "int32", "channels": "int32",
    "kind": "string", "num_bytes": "int64",
}  # fmt: skip

_BYTES_PER_MB = 1_000_000
_HEADER_BYTES = 2048
_FLAC_SHARE_OF_PCM = 0.55
_CLIPS_PER_BUCKET = 1 << 18
_CODEC_OF_KIND = {"FLAC": "flac", "WAV": "wav", "WAVEX": "wav", "MP3": "mp3"}


class PackPlan(NamedTuple):
    """`plan.json`."""

    name: str
    """Of the set."""
    packing: dict[str, Any]
    """Settings."""
    corpus_hash: str
    libraries: dict[str, str]
    listing: str
    """Digest of the list of utterances that it was made of."""
    utterances: int
    left_out: int
    """Of these, or of their pieces; the lines of `plan.jsonl`."""
    first_left_out: list[str]
    """Of the first utterance that is left out, if any: path, message, reason."""
    columns: dict[str, str]
    """Metadata columns of the set and their Arrow types."""
    clips: list[int]
    """Of each shard."""

    @property
    def identity(self) -> dict[str, Any]:
        """What a manifest says of a set made by this plan."""
        return {"name": self.name, "packing": self.packing, "corpus_hash": self.corpus_hash}

    @property
    def digest(self) -> str:
        """Of all that decides what a shard holds: another plan's shard of the same number is another shard."""
        decides = [self.identity, self.libraries, self.columns, self.clips]
        return hashlib.blake2b(json.dumps(decides, sort_keys=True).encode(), digest_size=8).hexdigest()

    def to_json(self) -> bytes:
        """As it lies in a file."""
        return sealed(self._asdict())

    @classmethod
    def from_json(cls, content: bytes, where: str) -> PackPlan:
        """Raises ShardError if it is not one, or not as it was written."""
        try:
            return cls(**unsealed(content))
        except (ValueError, TypeError):
            raise ShardError(f"{where}: not a readable plan. {PLAN_ANEW}") from None


def make_plan(
    listing: Listing,
    folder: Path,
    name: str,
    settings: PackSettings,
    workers: Workers,
    progress: Callable[[int, int], None],
) -> PackPlan:
    """Read the headers of all files and write `plan.arrow` and `plan.jsonl` into `folder`.

    Raises:
        UsageError: two clips of one key.
    """
    unsorted = folder / "clips.arrow"
    kinds: list[Kinds] = []
    digests, hashes, seconds, num_bytes = [], [], [], []
    position, num_left_out, first_left_out = 0, 0, list[str]()
    with ArrowFile(unsorted, _PLANNED) as file, (folder / LEFT_OUT_BEFORE).open("wb") as left_out:
        for listed, kinds_listed in zip(listing.batches(), listing.kinds, strict=True):
            selection = select_clips(listed, position, settings, workers)
            clips = selection.clips
            file.write([(*clip[:3], os.fsencode(clip.audio), *clip[4:7], *clip.source) for clip in clips])
            # read again only where some of what was listed is not among the clips
            is_as_listed = not selection.left_out and len(clips) == len(listed)
            kinds.append(kinds_listed if is_as_listed else metadata_kinds(json.loads(one.metadata) for one in clips))
            hashes.append(np.fromiter((key_hash(clip.key) for clip in clips), np.uint64, len(clips)))
            seconds.append(np.fromiter((clip.seconds for clip in clips), np.float64, len(clips)))
            num_bytes.append(np.fromiter((_estimated_bytes(clip, settings) for clip in clips), np.float64, len(clips)))
            lines_out = (f"{one.key} {one.kind} {one.reason}".encode() for _, one in selection.left_out)
            digests.append(_digests([*map(_line, clips), *lines_out]))
            for where, one in selection.left_out:
                first_left_out = first_left_out or [one.audio, one.message, one.reason]
                left_out.write(json.dumps([where, one]).encode() + b"\n")  # in ASCII: names may hold surrogates
            num_left_out += len(selection.left_out)
            position += len(listed)
            progress(position, listing.num_utterances)
    hash_of = np.concatenate(hashes)
    planned = (clip for batch in arrow_batches(unsorted) for clip in _clips(batch))
    refuse_equal_keys(hash_of, lambda: ((clip.key, clip.audio) for clip in planned), _piece_of_one_key)
    shards = []
    if len(hash_of):
        sizes = np.concatenate(num_bytes)
        shards = arrange(hash_of, np.concatenate(seconds), sizes, settings.shard_mb * _BYTES_PER_MB, settings.seed)
    _write_by_shard(unsorted, folder / CLIPS, shards)
    unsorted.unlink()
    corpus_hash = hashlib.blake2b(np.sort(np.concatenate(digests)).tobytes(), digest_size=16).hexdigest()
    return PackPlan(
        name,
        settings.as_json(),
        corpus_hash,
        library_versions(),
        listing.digest,
        listing.num_utterances,
        num_left_out,
        first_left_out,
        columns_of(kinds),
        [len(shard) for shard in shards],
    )


def clips_of_shard(path: str, number: int) -> list[Clip]:
    """The clips of one shard, in its order, from `plan.arrow`.

    Raises:
        ShardError: it is not there, or cannot be read.
    """
    with arrow_errors(lambda what: ShardError(f"{path}: not readable ({what}). {PLAN_ANEW}")):
        (batch,) = arrow_batches(Path(path), number)
        return _clips(batch)


def original_codec(clip: Clip, settings: PackSettings) -> str | None:
    """The codec of a file that fits the set as it is; None: it must be encoded."""
    source = clip.source
    if settings.codec != ORIGINAL or not clip.is_whole_file:
        return None
    if (source.channels, source.sample_rate) != (1, settings.sample_rate) or not settings.takes_mono:
        return None
    container, _, subtype = source.kind.partition(" ")
    return _CODEC_OF_KIND.get(container) or {"OGG VORBIS": "ogg", "OGG OPUS": "opus"}.get(f"{container} {subtype}")


def _clips(batch: Any) -> list[Clip]:
    rows = zip(*(column.to_pylist() for column in batch.columns), strict=True)
    return [
        Clip(row[0], row[1], row[2], os.fsdecode(row[3]), row[4], row[5], row[6], SourceInfo(*row[7:])) for row in rows
    ]


def _piece_of_one_key(key: str, first: str, second: str) -> str:
    return f"a piece of {first} and {second} would both have the key {key!r}: rename a file."


def _line(clip: Clip) -> bytes:
    source = f"{clip.key} {clip.first_frame} {clip.stop_frame} {clip.source.frames} {clip.source.sample_rate} "
    return f"{source}{clip.source.channels} {clip.source.kind} {clip.source.num_bytes} ".encode() + clip.metadata


def _digests(lines: Iterable[bytes]) -> npt.NDArray[np.bytes_]:
    """[N] of 16 bytes each."""
    return np.frombuffer(b"".join(hashlib.blake2b(line, digest_size=16).digest() for line in lines), dtype="S16")


def _estimated_bytes(clip: Clip, settings: PackSettings) -> float:
    """Bytes in the shard; a mono FLAC at the wanted rate, and what stays as it is, say it best themselves."""
    source = clip.source
    if original_codec(clip, settings):
        audio: float = source.num_bytes
    elif settings.encoder == "wav":
        audio = clip.seconds * settings.sample_rate * 2
    elif settings.encoder == "opus":
        audio = clip.seconds * (2000 + 0.09 * settings.sample_rate)
    elif source.kind == "FLAC PCM_16" and (source.channels, source.sample_rate) == (1, settings.sample_rate):
        audio = source.num_bytes * (clip.stop_frame - clip.first_frame) / source.frames
    else:
        audio = clip.seconds * settings.sample_rate * 2 * _FLAC_SHARE_OF_PCM
    return audio + _HEADER_BYTES + len(clip.metadata)


def _write_by_shard(unsorted: Path, path: Path, shards: Sequence[npt.NDArray[np.int64]]) -> None:
    """Rows in the corpus's order -> one batch a shard, by way of files that each hold neighbouring shards."""
    import pyarrow

    num_clips = sum(map(len, shards))
    shard_of, place_of = np.empty(num_clips, dtype=np.int32), np.empty(num_clips, dtype=np.int64)
    for number, members in enumerate(shards):
        shard_of[members] = number
        place_of[members] = np.arange(len(members))
    per_bucket = max(1, round(len(shards) * _CLIPS_PER_BUCKET / max(num_clips, 1)))
    num_buckets = -(-len(shards) // per_bucket)
    paths = [unsorted.with_name(f"bucket-{bucket}.arrow") for bucket in range(num_buckets)]
    members_of: list[list[npt.NDArray[np.int64]]] = [[] for _ in paths]
    files = [ArrowFile(one, _PLANNED) for one in paths]
    start = 0
    for batch in arrow_batches(unsorted):
        buckets = shard_of[start : start + batch.num_rows] // per_bucket
        for bucket in np.unique(buckets):
            rows = np.flatnonzero(buckets == bucket)
            files[bucket].write_batch(batch.take(pyarrow.array(rows)))
            members_of[bucket].append(rows + start)
        start += batch.num_rows
    for one in files:
        one.__exit__()
    with ArrowFile(path, _PLANNED) as file:
        for bucket, bucket_path in enumerate(paths):
            members = np.concatenate(members_of[bucket])
            order = np.lexsort((place_of[members], shard_of[members]))
            edges = np.flatnonzero(np.diff(shard_of[members[order]])) + 1
            batch = pyarrow.Table.from_batches(list(arrow_batches(bucket_path))).combine_chunks().to_batches()[0]
            for rows in np.split(order, edges):
                file.write_batch(batch.take(pyarrow.array(rows)))
            bucket_path.unlink()


def other_plan(found: PackPlan, wanted: PackPlan) -> str | None:
    """How the plan by which a set was begun differs from another; None: it does not."""
    how = difference(found.identity, wanted.identity)
    if how is None and found.libraries != wanted.libraries:
        name = next(one for one in wanted.libraries if found.libraries.get(one) != wanted.libraries[one])
        how = f"it was packed with {name} {found.libraries.get(name)}, not {wanted.libraries[name]}"
    return how
