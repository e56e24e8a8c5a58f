"""Source files, opened: what can be known to be wrong with one before any of it is decoded."""

from __future__ import annotations

import errno
import io
import mmap
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, BinaryIO

from s3prl_stream.audio.decode import libsndfile_reason
from s3prl_stream.audio.glued import end_of_first, may_be_glued
from s3prl_stream.audio.headers import FlacHeader, flac_header, wav_header
from s3prl_stream.audio.lengths import goes_on_behind_mp3
from s3prl_stream.audio.seeking import open_sound, seek
from s3prl_stream.audio.uncounted_mp3 import UncountedMp3, is_uncounted
from s3prl_stream.errors import SampleError

HEADER_BYTES = 4096
"""In which a WAV or a FLAC mostly tells all that is needed of it."""

SAID = ".stderr"
"""Ends the name of the file beside one that a command should have made, with what it said in its place."""

_NO_WAITING = getattr(os, "O_NONBLOCK", 0)


@contextmanager
def opened(path: str, first_frame: int = 0) -> Iterator[tuple[Any, FlacHeader | None]]:
    """An open `soundfile.SoundFile` (or what stands for one) whose header we have checked ourselves, and STREAMINFO of
    a FLAC. The next frame that it reads is `first_frame`, if it has so many.

    Raises:
        SampleError: reason "missing", "unreadable", "empty" or "decode"; so do reads inside, where the file fails them.
    """
    import soundfile

    try:
        with explaining_reads():
            flac = _checked_header(path)
            with open_file(path) as file:
                may_need_it = os.pread(file.fileno(), 4, 0) in (b"OggS", b"RIFF")  # libsndfile, before another one
                content = _first_stream(file, path) if first_frame or may_need_it else None
                with _sound(file, path, content) as sound:
                    source = UncountedMp3(path) if sound.format == "MP3" and is_uncounted(path) else sound
                    if content is not None and 0 < first_frame < source.frames:
                        seek(source, first_frame, content)
                    yield source, flac
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise SampleError(f"libsndfile refuses the file: {libsndfile_reason(error)}", reason="decode") from None


@contextmanager
def explaining_reads() -> Iterator[None]:
    """SampleError with reason "missing" or "unreadable" for what the system says of a file."""
    try:
        yield
    except FileNotFoundError as error:
        raise SampleError(f"the file does not exist{_last_words(error.filename)}", reason="missing") from None
    except OSError as error:
        raise SampleError(f"the file cannot be read: {error.strerror or error}", reason="unreadable") from None


def _last_words(path: Any) -> str:
    """Of the command that should have made the file, if there was one."""
    try:
        with open(os.fsencode(path) + SAID.encode(), "rb") as file:
            lines = file.read().decode("utf-8", "replace").split("\n")
    except (OSError, TypeError, ValueError):
        return ""
    return f": the command that makes it failed: {', '.join(filter(None, map(str.strip, lines[-5:])))[-300:]}"


def is_glued(path: str) -> bool:
    """True: another FLAC, Ogg, WAV or MP3 follows the one that is read of this file.

    Raises:
        SampleError: reason "missing" or "unreadable".
    """
    with explaining_reads():
        found = os.stat(path)
        if not found.st_size or _end_of_first_in(path, _identity(found)) is not None:
            return bool(found.st_size)
        with open_file(path) as file:
            return goes_on_behind_mp3(lambda at, size: os.pread(file.fileno(), size, at), found.st_size)


def _first_stream(file: BinaryIO, path: str) -> memoryview:
    """Of the streams glued into a file, or all of it."""
    return _mapped(file)[: _end_of_first_in(path, _identity(os.fstat(file.fileno())))]


def _identity(found: os.stat_result) -> tuple[int, int, int]:
    return found.st_ino, found.st_mtime_ns, found.st_size


@lru_cache(maxsize=1 << 16)
def _end_of_first_in(path: str, identity: tuple[int, int, int]) -> int | None:  # noqa: ARG001  # bytes may change
    """Looked for once in a recording, not for each of its hundreds of stretches."""
    with open_file(path) as file:
        content = _mapped(file)
        return end_of_first(content) if may_be_glued(content) else None


def _mapped(file: BinaryIO) -> memoryview:
    """Not closed by hand: an error on its way out still holds views of it."""
    return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))


def _sound(file: BinaryIO, path: str, content: memoryview | None) -> Any:
    """By its descriptor: beside a name, libsndfile looks for a resource fork (`._NAME`, which macOS leaves in archives)
    and reads that in place of an MP3; and soundfile would refuse a name that is not UTF-8."""
    if path.endswith(".raw"):
        raise SampleError("raw samples without a header: nothing tells their rate and type", reason="decode")
    if content is not None and len(content) < os.fstat(file.fileno()).st_size:
        return open_sound(io.BytesIO(content))
    return open_sound(file.fileno())


def open_file(path: str) -> BinaryIO:
    """Without waiting for anybody to write into a named pipe."""
    try:
        return open(path, "rb", buffering=0, opener=lambda name, flags: os.open(name, flags | _NO_WAITING))
    except ValueError as error:  # no file can have a zero in its name
        raise FileNotFoundError(errno.ENOENT, str(error), path) from None


def _checked_header(path: str) -> FlacHeader | None:
    with open_file(path) as file:
        found = os.fstat(file.fileno())
        if not stat.S_ISREG(found.st_mode):
            raise SampleError("a device or a named pipe, not a file", reason="unreadable")
        num_bytes = found.st_size
        view = memoryview(file.read(HEADER_BYTES))
        if num_bytes > len(view) and bytes(view[:4]) != b"fLaC":
            view = _mapped(file)
    if not num_bytes:
        raise SampleError("the file has no bytes", reason="empty")
    wav_header(view, num_bytes)
    flac = flac_header(view, num_bytes)
    if flac is not None and not flac.frames:
        raise SampleError(
            "the FLAC header does not say how many frames there are (written to a pipe?), so a cut file cannot be told "
            "from a whole one: encode it again",
            reason="decode",
        )
    return flac
