"""Lines of a text that somebody else wrote: gzip or not, in bounded memory, and by number where one is no UTF-8."""

from __future__ import annotations

import gzip
import io
import itertools
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from s3prl_stream.errors import UsageError

MAX_LINE_LENGTH = 16 << 20
MAX_INFLATION = 250
"""Bytes out of gzip for one byte in, once `_FREE_BYTES` have come: tables of text reach 30, bombs 1000."""

_FREE_BYTES = 64 << 20


class TextLine(NamedTuple):
    """One line."""

    where: str
    """File and line, for messages."""
    text: str
    """With its end."""


def text_lines(
    path: str | Path, opened: Callable[[], io.BufferedReader] | None = None, *, at_most: int = MAX_LINE_LENGTH
) -> Iterator[TextLine]:
    r"""Lines of UTF-8, with or without a mark of byte order, that end in \n, \r\n or \r.

    Args:
        path: of the file, which is taken for gzip if it begins like it, or if its name says so.
        opened: opens it, where `path` is but its name.
        at_most: characters of a line.

    Raises:
        UsageError: not UTF-8 or too long, named by its line; damaged gzip, or more out of it than a text has.
    """
    with open(path, "rb") if opened is None else opened() as file:
        is_packed = str(path).endswith(".gz") or file.peek(2)[:2] == b"\x1f\x8b"
        unpacked = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if is_packed else file
        num_out = 0
        # What is not UTF-8 is read as surrogates, and found in its line; decoding is pages ahead of the lines.
        with io.TextIOWrapper(unpacked, "utf-8-sig", "surrogateescape", newline="") as lines:
            for number in itertools.count(1):
                where = f"{path}, line {number}"
                try:
                    text = lines.readline(at_most + 1)
                except (gzip.BadGzipFile, EOFError, zlib.error) as error:
                    raise UsageError(f"{path}: a damaged gzip file: {error}. Fetch it again.") from None
                if not text:
                    return
                if len(text) > at_most:
                    raise UsageError(f"{where}: a line of more than {at_most} characters.")
                num_out += len(text)
                if is_packed and num_out > _FREE_BYTES and num_out > file.tell() * MAX_INFLATION:
                    raise UsageError(f"{path}: {file.tell()} bytes of gzip become more than {num_out} bytes: refused.")
                if not text.isascii() and _has_surrogates(text):
                    raise UsageError(f"{where}: not UTF-8 text. Save the file as UTF-8.")
                yield TextLine(where, text)


def _has_surrogates(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False
