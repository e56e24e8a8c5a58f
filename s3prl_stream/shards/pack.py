"""`pack`: a corpus becomes a set of shards. The format is described in shards/README.md.

The bytes depend on the corpus, the settings and the libraries' versions alone: not on the number of workers, the order
in which the corpus is listed, or the folder it lies in.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from s3prl_stream.audio.encode import encode
from s3prl_stream.audio.source import Channel, read_source
from s3prl_stream.errors import SampleError, ShardError, UsageError
from s3prl_stream.sample import Utterance
from s3prl_stream.shards.arrange import arrange
from s3prl_stream.shards.extra_files import ExtraFiles
from s3prl_stream.shards.layout import FORMAT_VERSION, set_name
from s3prl_stream.shards.listing import (
    Clip,
    LeftOut,
    corpus_hash,
    list_utterances,
    metadata_json,
    probe_all,
    select_clips,
)
from s3prl_stream.shards.manifest import library_versions, write_manifest
from s3prl_stream.shards.outfolder import (
    LEFT_OUT,
    end,
    find_finished,
    left_out_of,
    name_of_folder,
    packing_into,
    refuse_strangers,
)
from s3prl_stream.shards.rows import metadata_columns
from s3prl_stream.shards.settings import PackSettings
from s3prl_stream.shards.store import Store, open_store
from s3prl_stream.shards.workers import Workers
from s3prl_stream.shards.writer import SetWriter

if TYPE_CHECKING:
    from s3prl_stream.shards.shardset import ShardSet

Progress = Callable[[str, int, "int | None"], None]
"""Called with the step ("listing", "headers", "packing"), how many are done, and of how many (None: not known)."""

_BYTES_PER_MB = 1_000_000
_FLAC_SHARE_OF_PCM = 0.55
_HEADER_BYTES = 2048


class PackReport(NamedTuple):
    """What a set holds and what was left out of it."""

    url: str
    """Folder or URL of the set."""
    already_there: bool
    """The very same set was finished before; nothing was done."""
    manifest: dict[str, Any]
    left_out: list[LeftOut]

    @property
    def damaged(self) -> list[LeftOut]:
        """Utterances whose audio could not be read whole."""
        return [one for one in self.left_out if one.kind == "damaged"]


class _Job(NamedTuple):
    audio: str
    first_frame: int
    stop_frame: int
    sample_rate: int
    channel: Channel
    codec: str


class _Encoded(NamedTuple):
    audio: bytes
    frames: int


def pack(
    corpus: Iterable[Utterance],
    out: str | Path,
    *,
    codec: str = "flac",
    sample_rate: int = 16_000,
    channel: Channel = "first",
    shard_mb: float = 512,
    num_workers: int = 0,
    seed: int = 0,
    min_seconds: float | None = None,
    max_seconds: float | None = None,
    split_seconds: float | None = None,
    name: str | None = None,
    corpus_name: str | None = None,
    licence: str | None = None,
) -> ShardSet:
    """Pack a corpus into byte-reproducible shards, and open them.

    Every file is really decoded; a damaged one costs itself: it is listed in `left_out.jsonl` with its reason.

    Args:
        corpus: utterances; see `s3prl_stream.corpora`.
        out: folder of the set: new, empty, with an unfinished set (replaced) or with this very set (nothing is done).
            Or a URL (s3://, gs://, az://): shards are made in the system's temporary folder, three of them at most,
            and uploaded as they come.
        codec: "flac" or "wav", 16 bits.
        sample_rate: of the packed audio (Hz).
        channel: "first", "mean", or the number of a channel from 0.
        shard_mb: wanted size of a shard (10**6 bytes).
        num_workers: processes that decode and encode; 0: this one.
        seed: of the order.
        min_seconds, max_seconds: utterances beyond these lengths are skipped, counted and listed.
        split_seconds: longer utterances are cut into equal pieces no longer than this, with a number behind their key,
            `first_second` in their metadata and without their text.
        name: of the set; None: that of the folder.
        corpus_name, licence: free text for the manifest.

    Raises:
        UsageError: nothing to pack, a wrong setting, two utterances of one key, or a folder that holds something else.
        ShardError: not one file could be packed.
    """
    settings = PackSettings(codec, sample_rate, channel, shard_mb, seed, min_seconds, max_seconds, split_seconds)
    pack_set(corpus, out, settings, num_workers=num_workers, name=name, corpus_name=corpus_name, licence=licence)
    from s3prl_stream.shards.shardset import open_shards

    return open_shards(out)


def pack_set(
    corpus: Iterable[Utterance],
    out: str | Path,
    settings: PackSettings,
    *,
    num_workers: int = 0,
    name: str | None = None,
    corpus_name: str | None = None,
    licence: str | None = None,
    progress: Progress | None = None,
) -> PackReport:
    """`pack`, with a report in place of the opened set, and with progress. Arguments and errors are those of `pack`."""
    store = open_store(out)
    name = set_name(name_of_folder(out), name)
    if num_workers < 0:
        raise UsageError(f"num_workers is {num_workers}, expected 0 or more.")
    tell = progress or _tell_nobody
    extra = ExtraFiles(corpus)
    refuse_strangers(store)
    with Workers(num_workers) as workers:
        utterances = list_utterances(corpus, lambda done: tell("listing", done, None))
        infos = probe_all(utterances, workers, lambda done, total: tell("headers", done, total))
        clips, left_out = select_clips(utterances, infos, settings.lengths)
        identity = {"name": name, "packing": settings.as_json(), "corpus_hash": corpus_hash(clips, left_out)}
        finished = find_finished(store, identity)
        if finished is not None:
            extra.check(finished, store.url)
            return PackReport(store.url, True, finished, _read_left_out(store))
        with packing_into(store, name) as (folder, finish):
            writer = SetWriter(folder, name, metadata_columns(clip.metadata for clip in clips), finish)
            try:
                left_out += _write_shards(
                    writer, clips, settings, workers, lambda done: tell("packing", done, len(clips))
                )
                parts = writer.finish()
            finally:
                writer.close()
    if not writer.shards:
        raise ShardError(_nothing_packed(len(utterances), left_out))
    listing = b"".join(_json_line(one) for one in _in_corpus_order(left_out, utterances))
    store.write(LEFT_OUT, listing)
    about = {"corpus": corpus_name or name, "licence": licence}
    extra.write(store)
    manifest = {**_manifest(identity, about, writer.shards, parts, left_out), **extra.in_manifest()}
    write_manifest(store, manifest)
    end(store)
    return PackReport(store.url, False, manifest, _read_left_out(store))


def _tell_nobody(step: str, done: int, total: int | None) -> None:
    """The progress of a caller who does not ask for it."""


def _write_shards(
    writer: SetWriter, clips: list[Clip], settings: PackSettings, workers: Workers, progress: Callable[[int], None]
) -> list[LeftOut]:
    """Decode, encode and write all clips; those that turn out to be damaged."""
    damaged: list[LeftOut] = []
    shards = _arranged(clips, settings)
    order = [(clip, position == len(shard) - 1) for shard in shards for position, clip in enumerate(shard)]
    jobs = (_job(clip, settings) for clip, _ in order)
    for done, ((clip, is_last), result) in enumerate(zip(order, workers.map(_encode, jobs), strict=True), start=1):
        if isinstance(result, SampleError):
            damaged.append(LeftOut(clip.key, clip.audio, "damaged", result.reason, str(result)))
        else:
            writer.add(clip.key, result.audio, settings.codec, frames=result.frames, sample_rate=settings.sample_rate,
                       metadata=clip.metadata)  # fmt: skip
        if is_last:
            writer.end_shard()
        progress(done)
    return damaged


def _arranged(clips: list[Clip], settings: PackSettings) -> Iterator[list[Clip]]:
    if not clips:
        return
    seconds = np.array([clip.seconds for clip in clips], dtype=np.float64)
    num_bytes = np.array([_estimated_bytes(clip, settings) for clip in clips], dtype=np.float64)
    keys = [clip.key for clip in clips]
    for positions in arrange(keys, seconds, num_bytes, settings.shard_mb * _BYTES_PER_MB, settings.seed):
        yield [clips[position] for position in positions]


def _estimated_bytes(clip: Clip, settings: PackSettings) -> float:
    """Bytes in the shard; a mono FLAC at the wanted rate says it best itself."""
    source = clip.source
    if settings.codec == "wav":
        audio = clip.seconds * settings.sample_rate * 2
    elif source.kind == "FLAC PCM_16" and (source.channels, source.sample_rate) == (1, settings.sample_rate):
        audio = source.num_bytes * (clip.stop_frame - clip.first_frame) / source.frames
    else:
        audio = clip.seconds * settings.sample_rate * 2 * _FLAC_SHARE_OF_PCM
    return audio + _HEADER_BYTES + len(metadata_json(clip.metadata))


def _job(clip: Clip, settings: PackSettings) -> _Job:
    return _Job(clip.audio, clip.first_frame, clip.stop_frame, settings.sample_rate, settings.channel, settings.codec)


def _encode(job: _Job) -> _Encoded | SampleError:
    """Runs in a worker; errors come back as values, so they keep their place in the order."""
    try:
        wav = read_source(
            job.audio,
            first_frame=job.first_frame,
            stop_frame=job.stop_frame,
            sample_rate=job.sample_rate,
            channel=job.channel,
        )
        if not len(wav):
            raise SampleError(f"no sample is left at {job.sample_rate} Hz", reason="empty")
    except SampleError as error:
        return error
    return _Encoded(encode(wav, job.sample_rate, job.codec), len(wav))


def _manifest(
    identity: dict[str, Any],
    about: dict[str, Any],
    shards: list[dict[str, Any]],
    parts: list[str],
    left_out: list[LeftOut],
) -> dict[str, Any]:
    skipped = Counter(one.reason for one in left_out if one.kind == "skipped")
    return {
        "format_version": FORMAT_VERSION,
        **identity,
        **about,
        "libraries": library_versions(),
        "counts": {
            "samples": sum(shard["samples"] for shard in shards),
            "seconds": math.fsum(shard["seconds"] for shard in shards),
            "damaged": sum(one.kind == "damaged" for one in left_out),
            "skipped": dict(sorted(skipped.items())),
        },
        "parts": parts,
        "shards": shards,
    }


def _in_corpus_order(left_out: list[LeftOut], utterances: list[Utterance]) -> list[LeftOut]:
    position = {utterance.audio: number for number, utterance in enumerate(utterances)}
    return sorted(left_out, key=lambda one: (position[one.audio], one.key))


def _json_line(one: LeftOut) -> bytes:
    # A name that is not UTF-8 holds surrogates; as \\udcXX they are JSON again.
    return json.dumps(one._asdict(), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def _read_left_out(store: Store) -> list[LeftOut]:
    return [LeftOut(**line) for line in left_out_of(store)]


def _nothing_packed(num_utterances: int, left_out: list[LeftOut]) -> str:
    first = left_out[0]
    return (
        f"none of {num_utterances} utterances could be packed. The first is {first.audio}: {first.message} "
        f"({first.reason})."
    )
