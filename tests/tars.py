"""Tars as others make them, for tests: encoded noise, members by name, headers written byte by byte."""

from __future__ import annotations

import io
import json
import struct
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import soundfile

RATE = 16_000
FORMATS = {"flac": ("FLAC", "PCM_16"), "wav": ("WAV", "PCM_16"), "ogg": ("OGG", "VORBIS"), "opus": ("OGG", "OPUS"),
           "mp3": ("MP3", "MPEG_LAYER_III")}  # fmt: skip
END = bytes(1024)

Member = tuple[str, bytes]


def noise(frames: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Noise [frames] int16."""
    return np.random.default_rng([frames, seed]).integers(-2000, 2000, frames).astype(np.int16)


def encoded(codec: str, frames: int, seed: int = 0) -> bytes:
    """`noise` as a file."""
    container, subtype = FORMATS[codec]
    file = io.BytesIO()
    soundfile.write(file, noise(frames, seed), RATE, format=container, subtype=subtype)
    return file.getvalue()


def noise_files(folder: Path, count: int, frames: int, *, rate: int = RATE, suffix: str = "flac") -> Path:
    """The folder with so many files of `noise`, all different: clip00.flac and so on."""
    for number in range(count):
        soundfile.write(folder / f"clip{number:02d}.{suffix}", noise(frames, number), rate)
    return folder


def clip(key: str, frames: int = 800, codec: str = "wav", **metadata: Any) -> list[Member]:
    """The two members of one sample."""
    return [(f"{key}.{codec}", encoded(codec, frames)), (f"{key}.json", json.dumps(metadata).encode())]


def tar(members: Iterable[Member | tarfile.TarInfo], format: int = tarfile.USTAR_FORMAT) -> bytes:  # noqa: A002
    """What Python's tarfile makes of members, without the padding at its end; names of a TarInfo are not files."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=format, errors="surrogateescape") as out:
        for one in members:
            if isinstance(one, tarfile.TarInfo):
                out.addfile(one)
            else:
                info = tarfile.TarInfo(one[0])
                info.size = len(one[1])
                out.addfile(info, io.BytesIO(one[1]))
        end = out.offset
    return file.getvalue()[:end] + END


def header(name: str | bytes, size: int | bytes, kind: bytes = b"0") -> bytes:
    """One block with a right checksum; a size in bytes is the field as it stands."""
    if isinstance(size, bytes):
        field = size
    else:
        field = b"%011o\0" % size if size < 8**11 else b"\x80" + size.to_bytes(11, "big")
    path = name if isinstance(name, bytes) else name.encode()
    block = path.ljust(100, b"\0") + b"0000644\0" + b"0000000\0" * 2 + field.ljust(12, b"\0") + b"0" * 11 + b"\0"
    block += b" " * 8 + kind + bytes(100) + b"ustar\00000"
    return with_checksum(block.ljust(512, b"\0"))


def with_checksum(block: bytes) -> bytes:
    """The same block, its checksum made right."""
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def member(name: str | bytes, content: bytes, kind: bytes = b"0") -> bytes:
    """A header and its content, padded."""
    return header(name, len(content), kind) + content + bytes(-len(content) % 512)


def offsets(path: Path, starts: Iterable[int], end: int) -> None:
    """A `.tar.idx` beside a tar."""
    numbers = [*starts, end]
    path.with_name(path.name + ".idx").write_bytes(struct.pack(f"<{len(numbers)}Q", *numbers))


def unescaped(key: str) -> str:
    """What a sample was called that has this key (but a shortened one)."""
    return unquote(key.replace("+", "/"), errors="surrogatepass")


def files_below(folder: Path) -> Mapping[str, bytes]:
    """Every file of a folder and its bytes."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
