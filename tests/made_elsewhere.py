"""Small sets in the layouts of NeMo, Energon, Lhotse Shar and plain WebDataset, written by the rules of their writers.

Real sets of Energon and Lhotse are compared by `tools/bench interop`, in an environment that has both. NeMo is too
heavy for that: its layout here follows scripts/speech_recognition/convert_to_tarred_audio_dataset.py of September 2025.
"""

from __future__ import annotations

import gzip
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import soundfile
from tars import END, Member, offsets, tar

import s3prl_stream as ss
from s3prl_stream.audio.decode import decode

RATE = 16_000


class Clip(NamedTuple):
    """What every layout holds of a clip."""

    name: str
    wav: np.ndarray[Any, np.dtype[np.int16]]
    text: str
    speaker: str

    @property
    def seconds(self) -> float:
        """Length."""
        return len(self.wav) / RATE

    def encoded(self, container: str) -> bytes:
        """As a file."""
        file = io.BytesIO()
        soundfile.write(file, self.wav, RATE, format=container, subtype="PCM_16")
        return file.getvalue()


def some_clips(sample_set: Path, count: int = 24) -> list[Clip]:
    """Short clips of the sample that ships."""
    clips = []
    for sample in ss.ShardStream(sample_set, epochs=1, shuffle=False, where="seconds < 0.5"):
        wav = decode(sample["audio"], sample["codec"])[0][:, 0]
        clips.append(Clip(str(sample["key"]), wav, str(sample["text"]), str(sample["speaker"])))
        if len(clips) == count:
            return clips
    raise AssertionError("the sample set has not so many short clips")


def dealt(clips: Sequence[Clip], num_shards: int) -> list[list[Clip]]:
    """Into shards, equally."""
    return [list(clips[number::num_shards]) for number in range(num_shards)]


def write_nemo(folder: Path, clips: Sequence[Clip], num_shards: int = 3, one_manifest: bool = True) -> None:
    """WAV alone in the tars, by length, names without slashes and dots; all else in the manifests."""
    (folder / "sharded_manifests").mkdir(parents=True)
    rows: list[dict[str, Any]] = []
    for number, shard in enumerate(dealt(clips, num_shards)):
        members, lines = [], []
        for clip in sorted(shard, key=lambda one: one.seconds):
            name = f"_data_corpus_v1_0_{clip.name}.wav"
            members.append((name, clip.encoded("WAV")))
            row = {"audio_filepath": name, "duration": round(clip.seconds, 3), "text": clip.text, "shard_id": number}
            lines.append({**row, "speaker": clip.speaker, "lang": "en"})
        (folder / f"audio_{number}.tar").write_bytes(tar(members))
        write_lines(folder / "sharded_manifests" / f"manifest_{number}.json", lines)
        rows += lines
    if one_manifest:
        write_lines(folder / "tarred_audio_manifest.json", rows)
    (folder / "metadata.yaml").write_text("version: 0\n")


def write_energon(folder: Path, clips: Sequence[Clip], num_shards: int = 3) -> None:
    """WebDataset's tars with what `energon prepare` puts beside them; the last tar is for validation."""
    (folder / ".nv-meta").mkdir(parents=True)
    names = [f"part-{number}.tar" for number in range(num_shards)]
    for name, shard in zip(names, dealt(clips, num_shards), strict=True):
        members: list[Member] = []
        starts = []
        for clip in shard:
            starts.append(len(tar(members)) - len(END))
            members += _pair(clip, "flac", clip.encoded("FLAC"), {"text": clip.text, "speaker": clip.speaker})
        (folder / name).write_bytes(tar(members))
        offsets(folder / name, starts, len(tar(members)) - len(END))
    counts = {name: len(shard) for name, shard in zip(names, dealt(clips, num_shards), strict=True)}
    (folder / ".nv-meta" / ".info.json").write_text(json.dumps({"energon_version": "7.4.1", "shard_counts": counts}))
    parts = f"  train:\n  - part-{{0..{num_shards - 2}}}.tar\n  val:\n  - {names[-1]}\n  test: []\n"
    (folder / ".nv-meta" / "split.yaml").write_text(f"split_parts:\n{parts}exclude: []\n")
    (folder / ".nv-meta" / "dataset.yaml").write_text("__module__: megatron.energon\n__class__: CrudeWebdataset\n")


def write_shar(folder: Path, clips: Sequence[Clip], num_shards: int = 3, suffix: str = "flac") -> None:
    """Recordings, features beside them, and cuts, whose names have dots; one cut has no recording."""
    folder.mkdir(parents=True)
    for number, shard in enumerate(dealt(clips, num_shards)):
        sounds: list[Member] = []
        features: list[Member] = []
        cuts = []
        for clip in shard:
            name = f"v1.0-{clip.name}"
            recording = _recording(clip)
            sounds += _pair(clip, suffix, clip.encoded("FLAC"), recording, name)
            features += _pair(clip, "llc", b"lilcom", {"type": "fbank", "num_features": 80}, name)
            supervision = {"id": name, "recording_id": clip.name, "start": 0, "duration": clip.seconds, "channel": 0}
            supervision |= {"text": clip.text, "speaker": clip.speaker, "language": "en"}
            cut = {"id": name, "start": 0, "duration": clip.seconds, "channel": 0, "supervisions": [supervision]}
            cuts.append({**cut, "recording": recording, "custom": {"snr": 12.5}, "type": "MonoCut"})
        if number == 0:
            sounds += [("v1.0-silent.nodata", b""), ("v1.0-silent.nometa", b"")]
            cuts.append({"id": "v1.0-silent", "start": 0, "duration": 1.0, "channel": 0, "supervisions": []})
        (folder / f"recording.{number:06d}.tar").write_bytes(tar(sounds))
        (folder / f"features.{number:06d}.tar").write_bytes(tar(features))
        lines = "".join(json.dumps(cut) + "\n" for cut in cuts)
        (folder / f"cuts.{number:06d}.jsonl.gz").write_bytes(gzip.compress(lines.encode()))


def write_webdataset(folder: Path, clips: Sequence[Clip], num_shards: int = 3) -> None:
    """By webdataset's own writer: sound, text, and JSON."""
    import webdataset

    folder.mkdir(parents=True)
    for number, shard in enumerate(dealt(clips, num_shards)):
        with webdataset.TarWriter(str(folder / f"train-{number:06d}.tar")) as out:
            for clip in shard:
                about = {"speaker": clip.speaker, "snr": 12.5}
                out.write({"__key__": clip.name, "flac": clip.encoded("FLAC"), "txt": clip.text, "json": about})


WRITERS = {"nemo": write_nemo, "energon": write_energon, "shar": write_shar, "tars": write_webdataset}


def write_lines(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """JSON lines."""
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), "utf-8")


def _pair(clip: Clip, suffix: str, data: bytes, about: dict[str, Any], name: str | None = None) -> list[Member]:
    name = name or clip.name
    return [(f"{name}.{suffix}", data), (f"{name}.json", json.dumps(about).encode())]


def _recording(clip: Clip) -> dict[str, Any]:
    return {
        "id": clip.name,
        "sources": [{"type": "shar", "channels": [0], "source": ""}],
        "sampling_rate": RATE,
        "num_samples": len(clip.wav),
        "duration": clip.seconds,
        "channel_ids": [0],
    }
