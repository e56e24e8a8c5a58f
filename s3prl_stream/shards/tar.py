"""Byte-reproducible tars: ustar headers with nothing in them but name and size."""

from __future__ import annotations

import tarfile

BLOCK_BYTES = 512
END_OF_TAR = bytes(2 * BLOCK_BYTES)


def member(name: str, content: bytes) -> bytes:
    """One member: header, content, padding to whole blocks.

    Args:
        name: at most 100 bytes of UTF-8, without slashes.
        content: the file's bytes.
    """
    info = tarfile.TarInfo(name)
    info.size = len(content)
    info.mode = 0o644
    header = info.tobuf(format=tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict")
    return b"".join((header, content, bytes(-len(content) % BLOCK_BYTES)))
