"""What all loaders of the comparison share: the same clips, the same decoders, the same batch at the end.

Runs in the environment of the peers, which has no s3prl_stream: so it reads the packed set with tarfile alone.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000
INT16 = "dr_flac int16"
BUDGET_SECONDS = 240.0
"""Of a batch, padded; loaders that only count clips get the number of clips that fills it on average."""


class Clip(NamedTuple):
    """One clip as it lies in the set."""

    key: str
    flac: bytes
    seconds: float
    speaker: str


class Batch(NamedTuple):
    """What comes out of every loader."""

    keys: list[str]
    seconds: list[float]
    wav: Any  # float32 or int16 [B, T], zero-padded; None where only the order was asked for


def read_clips(folder: Path) -> Iterator[Clip]:
    """All clips of a packed set, in its order."""
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as tar:
            flac = b""
            for member in tar:
                body = tar.extractfile(member)
                assert body is not None
                if member.name.endswith(".flac"):
                    flac = body.read()
                    continue
                metadata = json.loads(body.read())
                key = member.name.removesuffix(".json")
                yield Clip(key, flac, flac_seconds(flac), str(metadata.get("speaker", "")))


class Place(NamedTuple):
    """Where the FLAC of a clip lies in a shard."""

    file: int
    offset: int
    num_bytes: int

    def read(self) -> bytes:
        """From the page cache, if it was read before."""
        return os.pread(self.file, self.num_bytes, self.offset)


def places(folder: Path) -> dict[str, Place]:
    """Key -> place, of all clips of a packed set; its shards stay open."""
    found = {}
    for shard in sorted(folder.glob("*.tar")):
        file = os.open(shard, os.O_RDONLY)
        with tarfile.open(shard) as tar:
            for member in tar:
                if member.name.endswith(".flac"):
                    key = member.name.removesuffix(".flac")
                    found[key] = Place(file, member.offset_data, member.size)
    return found


def flac_seconds(flac: bytes) -> float:
    """Length from STREAMINFO (RFC 9639, section 8.2)."""
    packed = int.from_bytes(flac[18:26], "big")
    return (packed & (2**36 - 1)) / (packed >> 44)


decoded: list[int] | None = None
"""CRC-32 of all that this process has decoded so far: what a resume reads again shows here. None: not kept."""


def note(flac: bytes | memoryview) -> None:
    """Keep in mind that a clip is decoded."""
    if decoded is not None:
        decoded.append(zlib.crc32(flac))


def decode(flac: bytes, decoder: str) -> npt.NDArray[np.float32] | npt.NDArray[np.int16]:
    """Mono float32 [T] in [-1, 1), by "soundfile" (what users of the peers write) or "dr_flac" (ours).

    By "dr_flac int16" int16 [T], as FLAC has it.
    """
    note(flac)
    if decoder.startswith("dr_flac"):
        import miniaudio

        if decoder == INT16:
            return np.frombuffer(miniaudio.flac_read_s16(flac).samples, dtype=np.int16)
        return np.frombuffer(miniaudio.flac_read_f32(flac).samples, dtype=np.float32)
    import soundfile

    floats: npt.NDArray[np.float32] = soundfile.read(io.BytesIO(flac), dtype="float32")[0]
    return floats


def pad(keys: Sequence[str], wavs: Sequence[npt.NDArray[Any]]) -> Batch:
    """A zero-padded batch of tensors, made the way collate functions are usually written."""
    import torch

    wav = torch.nn.utils.rnn.pad_sequence([torch.from_numpy(wav) for wav in wavs], batch_first=True)
    return Batch(list(keys), [len(wav) / SAMPLE_RATE for wav in wavs], wav)


def clips_per_batch(clips: Sequence[Clip]) -> int:
    """How many clips of mixed lengths fill the budget: padded seconds of random batches come to it on average."""
    rng = np.random.default_rng(0)
    seconds = np.array([clip.seconds for clip in clips])
    for count in range(1, len(clips)):
        longest = rng.choice(seconds, size=(200, count + 1)).max(axis=1)
        if float(longest.mean()) * (count + 1) > BUDGET_SECONDS:
            return count
    return len(clips)
