"""Hidden states of utterances on disk, computed once and read in every later epoch and run.

    CACHE/FINGERPRINT/part-00000.bin     float32 [states, F, H] of an utterance after the other
                      part-00000.jsonl   for each: whose they are, where they begin, their shape, CRC-32C of all that

The fingerprint is the upstream's: other weights, another set. An entry is found by (fingerprint of the data set, key,
first frame, samples), so packing a corpus anew cannot give old features. Each process writes a part of its own, and an
entry counts once its line is complete, so a kill costs at most the utterance being written. Several processes may write
at once; none sees what another writes after it has begun, and each keeps to the limit by itself.
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import re
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import torch
from torch import Tensor

from s3prl_stream.errors import UsageError
from s3prl_stream.json_files import json_object

_log = logging.getLogger(__name__)

_DATA, _LINES = ".bin", ".jsonl"
_PART = re.compile(r"part-\d{5,}\.(bin|jsonl)")


class CacheKey(NamedTuple):
    """Whose features they are."""

    data: str
    """Fingerprint of the packed set, and what else its features depend on."""
    key: str
    first_frame: int
    num_samples: int


class _Place(NamedTuple):
    file: int  # descriptor
    offset: int
    shape: tuple[int, ...]
    crc32c: int


class FeatureCache:
    """Features of one upstream, kept within a limit.

    Args:
        folder: may be shared by several upstreams and processes, and hold other things, which are left alone.
        fingerprint: of the upstream.
        max_gigabytes: of all features in the folder. Those of other upstreams make room, the longest unused first; then
            what does not fit is not kept.

    Raises:
        UsageError: the folder is a file, or a limit below 0.
    """

    def __init__(self, folder: str | Path, fingerprint: str, *, max_gigabytes: float = 20.0) -> None:
        self.folder = Path(folder) / fingerprint
        if Path(folder).exists() and not Path(folder).is_dir():
            raise UsageError(f"cache {folder}: is a file; give a folder")
        if not max_gigabytes >= 0:
            raise UsageError(f"cache {folder}: a limit of {max_gigabytes} GB; give 0 or more")
        self.folder.mkdir(parents=True, exist_ok=True)
        os.utime(self.folder)
        self._told = False
        self._places: dict[CacheKey, _Place] = {}
        self._files: list[int] = []
        for lines in sorted(self.folder.glob(f"*{_LINES}")):
            self._read_part(lines)
        # what is no folder of features is neither counted nor ever deleted
        others = {one: _size(one) for one in Path(folder).iterdir() if one != self.folder and _holds_features(one)}
        self._others = sorted(others.items(), key=lambda other: _last_used(other[0]))
        self._room = int(max_gigabytes * 1e9) - _size(self.folder) - sum(others.values())
        self._writer: int | None = None
        self._lines = -1

    def get(self, key: CacheKey) -> Tensor | None:
        """float32 [states, F, H], or None. What was damaged on disk, or cannot be read, is taken for absent."""
        place = self._places.get(key)
        if place is None:
            return None
        try:
            data = os.pread(place.file, 4 * math.prod(place.shape), place.offset)
        except OSError as error:
            self._tell(error)
            data = b""
        if _checksum(data, key, place.shape) != place.crc32c:
            del self._places[key]
            return None
        return torch.frombuffer(bytearray(data), dtype=torch.float32).view(place.shape)

    def put(self, key: CacheKey, states: Tensor) -> None:
        """Keep float32 [states, F, H] on the CPU, if there is room; UsageError if the disk is full before the limit."""
        if key in self._places:
            return
        data = states.numpy().tobytes()
        while self._room < len(data) and self._others:
            other, size = self._others.pop(0)
            _delete_features(other)  # who reads there has its files open
            self._room += size
        if self._room < len(data):
            return
        try:
            self._write(key, data, tuple(states.shape))
        except OSError as error:
            where = f"cache {self.folder}: cannot be written ({error.strerror})"
            raise UsageError(f"{where}. Make room there, or lower its limit (--cache-gb).") from error

    def _write(self, key: CacheKey, data: bytes, shape: tuple[int, ...]) -> None:
        if self._writer is None:
            self._writer, self._lines = self._new_part()
        offset = os.lseek(self._writer, 0, os.SEEK_END)
        place = _Place(self._writer, offset, shape, _checksum(data, key, shape))
        line = {**key._asdict(), "offset": offset, "shape": place.shape, "crc32c": place.crc32c}
        _write_all(self._writer, data)
        _write_all(self._lines, (json.dumps(line) + "\n").encode())
        self._places[key] = place
        self._room -= len(data)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files.clear()
        self._places.clear()
        self._writer = None

    def _tell(self, error: OSError) -> None:
        """Once: without a cache, all is only slower."""
        if not self._told:
            self._told = True
            _log.warning("cache %s: cannot be read (%s); what is in it is computed anew", self.folder, error.strerror)

    def _read_part(self, lines: Path) -> None:
        try:  # another process may be making room of it
            texts = lines.read_bytes().splitlines()
            file = os.open(lines.with_suffix(_DATA), os.O_RDONLY)
        except FileNotFoundError:
            return
        except OSError as error:
            self._tell(error)
            return
        self._files.append(file)
        size = os.fstat(file).st_size
        for text in texts:
            # what does not fit was damaged on disk, or cut by a kill
            with contextlib.suppress(ValueError, KeyError, TypeError, OverflowError):
                line = json_object(text)
                key, shape = CacheKey(*(line[name] for name in CacheKey._fields)), tuple(map(int, line["shape"]))
                place = _Place(file, int(line["offset"]), shape, int(line["crc32c"]))
                if min(place.offset, *shape) >= 0 and place.offset + 4 * math.prod(shape) <= size:
                    self._places[key] = place

    def _new_part(self) -> tuple[int, int]:
        number = 0
        self.folder.mkdir(parents=True, exist_ok=True)  # another process may have made room of it
        while True:
            path = self.folder / f"part-{number:05d}{_DATA}"
            try:
                data = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
            except FileExistsError:
                number += 1
                continue
            lines = os.open(path.with_suffix(_LINES), os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
            self._files += [data, lines]
            return data, lines


def _checksum(data: bytes, key: CacheKey, shape: tuple[int, ...]) -> int:
    """CRC-32C of features and of what tells whose they are."""
    return int(google_crc32c.extend(google_crc32c.value(data), ascii((*key, *shape)).encode()))


def _parts(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if _PART.fullmatch(path.name)]


def _holds_features(folder: Path) -> bool:
    """Whether there are parts in a folder, and nothing else."""
    found = False
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if not _PART.fullmatch(entry.name):
                    return False
                found = True
    except OSError:  # a file, one that we may not look into, or one that is gone
        return False
    return found and not folder.is_symlink()


def _size(folder: Path) -> int:
    """Bytes of the parts in a folder; another process may be deleting them."""
    total = 0
    for path in _parts(folder):
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_size
    return total


def _last_used(folder: Path) -> float:
    try:
        return folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _delete_features(folder: Path) -> None:
    with contextlib.suppress(OSError):
        for path in _parts(folder):
            path.unlink(missing_ok=True)
        folder.rmdir()


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
