"""One shard of a plan, from the source files to its place in the set. Runs anywhere: here, in a worker, on a cluster.

What it writes follows from the plan alone, so it may be begun again, or twice.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from s3prl_stream.audio.decode import decode
from s3prl_stream.audio.encode import encode
from s3prl_stream.audio.headers import flac_header
from s3prl_stream.audio.measures import Measures, measure
from s3prl_stream.audio.open_source import explaining_reads, is_glued
from s3prl_stream.audio.source import OTHER_MD5, read_flac_unchecked, read_source
from s3prl_stream.errors import SampleError, ShardError
from s3prl_stream.packing.clips import Clip
from s3prl_stream.packing.packplan import clips_of_shard, original_codec
from s3prl_stream.packing.quality import FINDINGS, findings_of, text_of
from s3prl_stream.packing.settings import ORIGINAL, PackSettings
from s3prl_stream.packing.workfolder import FinishedShard, is_finished, local_clips, read_plan, write_finished
from s3prl_stream.shards.layout import MANIFEST, QUALITY_COLUMNS, shard_name
from s3prl_stream.shards.left_out import LeftOut
from s3prl_stream.shards.rows import index_table
from s3prl_stream.shards.scratch import publish
from s3prl_stream.shards.write_index import described
from s3prl_stream.shards.writer import ShardWriter
from s3prl_stream.stores.store import Store
from s3prl_stream.stores.whole_files import explaining_writes

Int16 = npt.NDArray[np.int16]


class ShardTask(NamedTuple):
    """What whoever packs a shard must know."""

    store: Store
    name: str
    """Of the set."""
    plan: str
    """Its digest."""
    number: int
    settings: PackSettings
    columns: dict[str, str]
    """Metadata columns of the set."""
    scratch: str | None
    """A folder of this machine; None: make one."""
    clips: str | None
    """`plan.arrow` on this machine; None: fetch it."""


class _Packed(NamedTuple):
    audio: bytes
    codec: str
    frames: int
    sample_rate: int
    wav: Int16 | None
    """None: not decoded."""
    pcm_md5: bytes | None
    is_untouched: bool = False
    """The bytes of the file."""


def pack_shard(task: ShardTask, tell: Callable[[], None]) -> int:
    """Decode, check, encode and write the clips of one shard; how many of them.

    Args:
        task: which.
        tell: called after each clip.

    Raises:
        ShardError: the set cannot be written.
    """
    store, name = task.store, shard_name(task.name, task.number)
    with explaining_writes(store.url), tempfile.TemporaryDirectory(prefix="shard-", dir=task.scratch) as folder:
        scratch = Path(folder)
        clips = clips_of_shard(task.clips or local_clips(store, scratch), task.number)
        left_out: list[tuple[int, LeftOut]] = []
        reencoded = 0
        with ShardWriter(scratch, name) as writer:
            for clip in clips:
                try:
                    reencoded += _add(writer, clip, task.settings)
                except SampleError as error:
                    kind = "refused" if error.reason in FINDINGS else "damaged"
                    left_out.append((clip.position, LeftOut(clip.key, clip.audio, kind, error.reason, str(error))))
                tell()
            table = index_table(writer.rows, {**QUALITY_COLUMNS, **task.columns})
            description = described(name, table, writer.finish()) if writer.rows else None
        # else another has finished it meanwhile, or the whole set
        if not is_finished(store, task.name, task.plan, task.number) and store.size(MANIFEST) is None:
            there = read_plan(store)
            if there is not None and there.digest != task.plan:  # whose shards have the names of these
                raise ShardError(
                    f"{store.url}: another pack has begun anew here with another plan (--restart); this one ends."
                )
            about = FinishedShard(description, left_out, reencoded)
            write_finished(store, task.plan, task.number, table, about, scratch)
            if description is not None:
                publish(writer.path, store, name)
    return len(clips)


def _add(writer: ShardWriter, clip: Clip, settings: PackSettings) -> bool:
    """Append a clip; True if its bytes did not fit as they were.

    Raises:
        SampleError: it is damaged, or refused for a finding.
    """
    packed = _packed(clip, settings)
    if not packed.frames:
        raise SampleError(f"no sample is left at {settings.sample_rate} Hz", reason="empty")
    metadata = json.loads(clip.metadata.decode())  # from bytes it would guess the encoding first
    measures = None if packed.wav is None else measure(packed.wav, packed.sample_rate)
    found = findings_of(
        measures,
        seconds=packed.frames / packed.sample_rate,
        sample_rate=settings.sample_rate,
        source_sample_rate=clip.source.sample_rate,
        source_channels=clip.source.channels,
        is_glued=packed.wav is not None and is_glued(clip.audio),
        text=text_of(metadata),
        key_is_unsafe=clip.unsafe_key,
        thresholds=settings.thresholds,
    )
    refused = next((name for name in found if name in settings.refuse), None)
    if refused is not None:
        raise SampleError(_why_refused(refused, measures, settings.thresholds), reason=refused)
    cells = {
        **metadata,
        **(measures._asdict() if measures else {}),
        "source_sample_rate": clip.source.sample_rate,
        "source_channels": clip.source.channels,
        "pcm_hash": packed.pcm_md5[:8].hex() if packed.pcm_md5 else None,
        "findings": " ".join(found),
    }
    writer.add(
        clip.key, packed.audio, packed.codec, clip.metadata,
        frames=packed.frames, sample_rate=packed.sample_rate, cells=cells,
    )  # fmt: skip
    return settings.codec == ORIGINAL and not packed.is_untouched


def _packed(clip: Clip, settings: PackSettings) -> _Packed:
    with explaining_reads():
        _check_size(clip, os.stat(clip.audio).st_size)
    codec = original_codec(clip, settings)
    if codec is not None:
        return _untouched(clip, codec, settings)
    rate, encoder = settings.sample_rate, settings.encoder
    if encoder == "flac" and clip.is_whole_file and _is_plain_flac(clip, settings):
        wav, md5 = read_flac_unchecked(clip.audio)
        audio = encode(wav, rate, encoder)
        found = _flac_md5(audio)
        if md5 not in (None, found):
            raise SampleError(OTHER_MD5, reason="md5")
        return _Packed(audio, encoder, len(wav), rate, wav, found)
    wav = read_source(
        clip.audio, first_frame=clip.first_frame, stop_frame=clip.stop_frame, sample_rate=rate, channel=settings.channel
    )
    if not len(wav):
        return _Packed(b"", encoder, 0, rate, None, None)
    audio = encode(wav, rate, encoder)
    found = _flac_md5(audio) if encoder == "flac" else _md5(wav)
    return _Packed(audio, encoder, len(wav), rate, wav, found)


def _untouched(clip: Clip, codec: str, settings: PackSettings) -> _Packed:
    """The file as it is; decoded all the same, unless its header is to be believed."""
    with explaining_reads():
        audio = Path(clip.audio).read_bytes()
    _check_size(clip, len(audio))
    rate = settings.sample_rate
    flac = flac_header(audio) if codec == "flac" else None
    md5 = flac.md5 if flac is not None and flac.bits == 16 and any(flac.md5) else None
    if not settings.decode:
        return _Packed(audio, codec, clip.source.frames, rate, None, md5, True)
    if codec == "flac":  # as strict as for what is encoded
        wav = read_source(clip.audio, sample_rate=rate, channel=settings.channel)
    else:
        wav = np.ascontiguousarray(decode(audio, codec)[0][:, 0])
    return _Packed(audio, codec, len(wav), rate, wav, md5 or _md5(wav), True)


def _check_size(clip: Clip, num_bytes: int) -> None:
    if num_bytes != clip.source.num_bytes:
        message = f"the file has {num_bytes} bytes; it had {clip.source.num_bytes} when the pack was planned"
        raise SampleError(message, reason="changed")


def _is_plain_flac(clip: Clip, settings: PackSettings) -> bool:
    source = clip.source
    found = (source.kind, source.channels, source.sample_rate)
    return settings.takes_mono and found == ("FLAC PCM_16", 1, settings.sample_rate)


def _flac_md5(encoded: bytes) -> bytes:
    header = flac_header(encoded)
    assert header is not None
    return header.md5


def _md5(wav: Int16) -> bytes:
    """As the header of a FLAC would have it."""
    return hashlib.md5(wav.astype("<i2", copy=False).data, usedforsecurity=False).digest()


def _why_refused(name: str, measures: Measures | None, thresholds: Mapping[str, float]) -> str:
    values = {} if measures is None else measures._asdict()
    value = next((values[column] for column in (name, f"{name}_share") if column in values), None)
    limit = f" {thresholds[name]:g}" if name in thresholds else ""
    return f"refused: {FINDINGS[name]}{limit}{'' if value is None else f' ({value:g})'}"
