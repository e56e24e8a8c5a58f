"""Hidden states of utterances on disk, computed once and read in every later epoch and run.

    CACHE/FINGERPRINT/part-00000.bin     float32 [states, F, H] of an utterance after the other
                      part-00000.jsonl   for each: whose they are, where they begin, their shape and CRC-32C

The fingerprint is the upstream's: other weights, another set. An entry is found by (fingerprint of the data set, key,
first frame, samples), so packing a corpus anew cannot give old features. Each process writes a part of its own, and an
entry counts once its line is complete, so a kill costs at most the utterance being written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import google_crc32c
import numpy as np
import torch
from torch import Tensor

from s3prl_stream.errors import UsageError

_DATA, _LINES = ".bin", ".jsonl"


class CacheKey(NamedTuple):
    """Whose features they are."""

    data: str
    """Fingerprint of the packed set."""
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
        folder: may be shared by several upstreams and processes.
        fingerprint: of the upstream.
        max_gigabytes: of the whole folder. Features of other upstreams make room, the longest unused first; then what
            does not fit is not kept.

    Attributes:
        hits, misses: utterances that were found and that were not.

    Raises:
        UsageError: the folder is a file.
    """

    def __init__(self, folder: str | Path, fingerprint: str, *, max_gigabytes: float = 20.0) -> None:
        self.folder = Path(folder) / fingerprint
        if Path(folder).exists() and not Path(folder).is_dir():
            raise UsageError(f"cache {folder}: is a file; give a folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        os.utime(self.folder)
        self.hits = self.misses = 0
        self._places: dict[CacheKey, _Place] = {}
        self._files: list[int] = []
        for lines in sorted(self.folder.glob(f"*{_LINES}")):
            self._read_part(lines)
        self._room = int(max_gigabytes * 1e9) - _size(self.folder)
        others = sorted(
            (one for one in Path(folder).iterdir() if one != self.folder), key=lambda one: one.stat().st_mtime
        )
        sizes = {one: _size(one) for one in others}
        self._room -= sum(sizes.values())
        self._others = [(one, sizes[one]) for one in others]
        self._writer: int | None = None
        self._lines = -1

    def get(self, key: CacheKey) -> Tensor | None:
        """float32 [states, F, H], or None. What was damaged on disk is taken for absent."""
        place = self._places.get(key)
        data = b"" if place is None else os.pread(place.file, 4 * int(np.prod(place.shape)), place.offset)
        if place is None or google_crc32c.value(data) != place.crc32c:
            self.misses += 1
            return None
        self.hits += 1
        return torch.frombuffer(bytearray(data), dtype=torch.float32).view(place.shape)

    def put(self, key: CacheKey, states: Tensor) -> None:
        """Keep float32 [states, F, H] on the CPU, if there is room."""
        data = states.contiguous().numpy().tobytes()
        while self._room < len(data) and self._others:
            other, size = self._others.pop(0)
            shutil.rmtree(other, ignore_errors=True)  # who reads there has its files open
            self._room += size
        if key in self._places or self._room < len(data):
            return
        if self._writer is None:
            self._writer, self._lines = self._new_part()
        offset = os.lseek(self._writer, 0, os.SEEK_END)
        place = _Place(self._writer, offset, tuple(states.shape), google_crc32c.value(data))
        line = {**key._asdict(), "offset": offset, "shape": place.shape, "crc32c": place.crc32c}
        _write_all(self._writer, data)
        _write_all(self._lines, (json.dumps(line) + "\n").encode())
        self._places[key] = place
        self._room -= len(data)

    def __len__(self) -> int:
        return len(self._places)

    def close(self) -> None:
        """Close the files."""
        for file in self._files:
            os.close(file)
        self._files.clear()
        self._places.clear()
        self._writer = None

    def _read_part(self, lines: Path) -> None:
        data = lines.with_suffix(_DATA)
        if not data.exists():
            return
        file = os.open(data, os.O_RDONLY)
        self._files.append(file)
        size = os.fstat(file).st_size
        for text in lines.read_bytes().splitlines(keepends=True):
            if not text.endswith(b"\n"):  # cut by a kill
                continue
            line: Mapping[str, object] = json.loads(text)
            shape = tuple(int(number) for number in line["shape"])  # type: ignore[attr-defined]
            place = _Place(file, int(line["offset"]), shape, int(line["crc32c"]))  # type: ignore[call-overload]
            if place.offset + 4 * int(np.prod(shape)) <= size:
                self._places[CacheKey(*(line[name] for name in CacheKey._fields))] = place  # type: ignore[arg-type]

    def _new_part(self) -> tuple[int, int]:
        number = 0
        while True:
            path = self.folder / f"part-{number:05d}{_DATA}"
            try:
                data = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL)
            except FileExistsError:
                number += 1
                continue
            lines = os.open(path.with_suffix(_LINES), os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            self._files += [data, lines]
            return data, lines


def _size(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]
