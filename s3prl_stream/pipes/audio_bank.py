"""Sounds to draw from: decoded once, kept as one file of int16 that every process of a machine maps.

A draw costs no opening, seeking or decoding, and memory is the page cache's, shared by all workers. The file is made in
the cache folder under a name that follows from what it is made of, and taken from there the next time.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from s3prl_stream.arguments import one_number, whole_number
from s3prl_stream.audio.source import read_source
from s3prl_stream.corpora.audio_files import AUDIO_SUFFIXES, audio_below
from s3prl_stream.errors import SampleError, UsageError
from s3prl_stream.json_files import read_json
from s3prl_stream.sample import Item
from s3prl_stream.shards.claims import is_known_dead, new_owner
from s3prl_stream.shards.shardset import ShardSet, open_shards
from s3prl_stream.stores.whole_files import replacing

I16: TypeAlias = npt.NDArray[np.int16]

SILENT_BLOCK_SECONDS = 0.1
"""Blocks of digital silence of this length are left out of a bank: no noise has a level there."""

_VERSION = 1


class AudioBank:
    """Clips of audio behind each other on one timeline.

    Args:
        source: a folder of audio files (with its subfolders), the folder or URL of a packed set, or a ShardSet.
        sample_rate: Hz; the clips are resampled to it, one channel is taken.
        max_hours: no more than this is kept, from the first clips on in the order of their names; what is left out is
            said by a warning.
        cache: folder of the file that is mapped; None: s3prl_stream in $XDG_CACHE_HOME or ~/.cache.

    Attributes:
        fingerprint: hash of all samples and of where clips begin.
        damaged: {"key", "reason", "message"} of each clip that could not be used.

    Raises:
        UsageError: there is no such source, or no usable audio in it, or no room for the file.
    """

    keeps_silence = False

    def __init__(
        self,
        source: str | Path | ShardSet,
        *,
        sample_rate: int = 16_000,
        max_hours: float = 10.0,
        cache: str | Path | None = None,
    ) -> None:
        bank = type(self).__name__
        self.sample_rate = sample_rate = whole_number(bank, "sample_rate", sample_rate, least=1)
        self.max_hours = max_hours = (
            math.inf if max_hours == math.inf else one_number(bank, "max_hours", max_hours, above=0)
        )
        clips = _clips_of(source)
        made_of = json.dumps([_VERSION, self.keeps_silence, sample_rate, max_hours, [clip.made_of for clip in clips]])
        name = hashlib.blake2b(made_of.encode(), digest_size=16).hexdigest()
        self._path = _cache_folder(cache) / f"{name}.int16"
        if not (self._path.with_suffix(".json").exists() and self._path.exists()):
            try:
                self._make(clips, source)
            except OSError as error:
                raise UsageError(
                    f"{self._path}: cannot be written ({error.strerror}). Make room there, or take another folder "
                    "(cache=, $XDG_CACHE_HOME)."
                ) from error
        self._open()

    def __len__(self) -> int:
        """Number of clips."""
        return len(self.starts) - 1

    @property
    def seconds(self) -> float:
        """Length of the timeline."""
        return len(self.timeline) / self.sample_rate

    def clip(self, number: int) -> I16:
        """One of the clips, int16 [T]."""
        clip: I16 = self.timeline[self.starts[number] : self.starts[number + 1]]
        return clip

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (type(self), self._path, self.sample_rate, self.max_hours)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {len(self)} clips, {self.seconds / 60:.1f} min at {self.sample_rate} Hz>"

    def _open(self) -> None:
        told = read_json(self._path.with_suffix(".json"), UsageError, "Remove this file.")
        self.fingerprint: str = told["fingerprint"]
        self.damaged: list[dict[str, str]] = told["damaged"]
        self.starts = np.array(told["starts"], dtype=np.int64)
        self.timeline: I16 = np.memmap(self._path, dtype=np.int16, mode="r")
        if len(self.timeline) != self.starts[-1]:
            raise UsageError(
                f"{self._path}: {len(self.timeline)} samples, {self.starts[-1]} expected; remove this file"
            )

    def _make(self, clips: list[_Clip], source: Any) -> None:
        """Write the timeline, then what is told of it; each appears whole or not at all."""
        most = self.max_hours * 3600 * self.sample_rate
        starts, damaged = [0], []
        digest = hashlib.blake2b(digest_size=8)
        self._path.parent.mkdir(parents=True, exist_ok=True)
        for left in self._path.parent.glob("*.int16.*"):
            if is_known_dead(left.name.partition(".int16.")[2]):
                left.unlink(missing_ok=True)
        partial = self._path.with_name(f"{self._path.name}.{new_owner()}")
        with replacing(self._path, partial):
            with partial.open("wb") as file:
                for clip in clips:
                    try:
                        wav = self._prepared(clip.read(self.sample_rate))
                    except SampleError as error:
                        damaged.append({"key": clip.key, "reason": error.reason, "message": str(error.args[0])})
                        continue
                    if not len(wav):
                        damaged.append({"key": clip.key, "reason": "silent", "message": "nothing but digital silence"})
                        continue
                    if starts[-1] + len(wav) > most:
                        warnings.warn(f"{source}: only the first {self.max_hours} h are used (max_hours)", stacklevel=3)
                        break
                    file.write(wav.tobytes())
                    digest.update(wav.tobytes())
                    starts.append(starts[-1] + len(wav))
            if len(starts) < 2:
                why = (
                    f" The first: {damaged[0]['message']}."
                    if damaged
                    else f" max_hours={self.max_hours:g} is too little."
                )
                raise UsageError(f"{source}: none of {len(clips)} clips can be used.{why}")
            digest.update(np.array(starts).tobytes())
            if damaged:
                first = damaged[0]
                warnings.warn(
                    f"{source}: {len(damaged)} of {len(clips)} clips cannot be used, see .damaged; the first: "
                    f"{first['key']}: {first['message']}",
                    stacklevel=3,
                )
        with replacing(self._path.with_suffix(".json"), partial):
            told = {"fingerprint": digest.hexdigest(), "starts": starts, "damaged": damaged}
            partial.write_text(json.dumps(told), "utf-8")

    def _prepared(self, wav: I16) -> I16:
        """What is kept of a clip; here: all but blocks of digital silence."""
        block = round(SILENT_BLOCK_SECONDS * self.sample_rate)
        whole = wav[: len(wav) // block * block].reshape(-1, block)
        rest = wav[whole.size :]
        kept = [whole[whole.any(axis=1)].ravel(), *([rest] if rest.any() else [])]
        return np.concatenate(kept)


class _Clip(NamedTuple):
    """A clip that may become part of a bank."""

    key: str
    made_of: list[Any]
    read: Callable[[int], I16]


def _clips_of(source: str | Path | ShardSet) -> list[_Clip]:
    if isinstance(source, ShardSet):
        return list(_clips_of_set(source))
    if isinstance(source, Path) or "://" not in str(source):
        folder = Path(source)
        if not folder.exists():
            raise UsageError(f"{source}: there is no such folder of audio files or packed set.")
        if not (folder / "manifest.json").exists():
            return list(_clips_of_folder(folder))
    return list(_clips_of_set(open_shards(source)))


def _clips_of_folder(folder: Path) -> Iterator[_Clip]:
    keys = list(audio_below(folder))
    if not keys:
        raise UsageError(f"{folder}: no audio files in it ({', '.join(AUDIO_SUFFIXES)}).")
    for key in keys:
        about = (folder / key).stat()

        def read(sample_rate: int, path: Path = folder / key) -> I16:
            return read_source(str(path), sample_rate=sample_rate)

        yield _Clip(key, [key, about.st_size, about.st_mtime_ns], read)


def _clips_of_set(shards: ShardSet) -> Iterator[_Clip]:
    from s3prl_stream.pipes.load_audio import LoadAudio

    for shard in range(shards.num_shards):
        set_index, place = shards.locate(shard)
        member = shards.members[set_index]
        rows = shards.rows(shard)
        for key, frames, offset, size, crc32c in zip(
            rows.key, rows.frames.tolist(), rows.offset.tolist(), rows.size.tolist(), rows.crc32c.tolist(), strict=True
        ):
            item = Item(set_index, place, offset, size, crc32c, str(key), 0, frames, frames, 0, 0)

            def read(sample_rate: int, item: Item = item) -> I16:
                load = LoadAudio(sample_rate=sample_rate, dtype="int16")
                (sample,) = load.emit({**shards.read(item), "key": item.key, "num_frames": item.num_frames})
                wav: I16 = sample["wav"].numpy()
                return wav

            yield _Clip(str(key), [member.name, member.fingerprint, str(key)], read)


def _cache_folder(cache: str | Path | None) -> Path:
    if cache is not None:
        return Path(cache)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "s3prl_stream"


def _reopen(kind: type[AudioBank], path: Path, sample_rate: int, max_hours: float) -> AudioBank:
    bank = object.__new__(kind)
    bank._path, bank.sample_rate, bank.max_hours = path, sample_rate, max_hours
    bank._open()
    return bank
