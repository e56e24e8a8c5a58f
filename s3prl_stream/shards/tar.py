"""Byte-reproducible tars: ustar headers with nothing in them but name and size."""

from __future__ import annotations

import functools
import tarfile

BLOCK_BYTES = 512
END_OF_TAR = bytes(2 * BLOCK_BYTES)

_SIZE_AT, _CHECKSUM_AT, _MAX_NAME_BYTES, _MAX_OCTAL_BYTES = 124, 148, 100, 1 << 33


def member(name: str, content: bytes) -> bytes:
    """One member: header, content, padding to whole blocks.

    Args:
        name: at most 100 bytes of UTF-8, without slashes.
        content: the file's bytes.
    """
    return b"".join((header(name, len(content)), content, padding(len(content))))


def header(name: str, num_bytes: int) -> bytes:
    """The header of a member whose content has `num_bytes`: that of tarfile, written down twenty times as fast."""
    encoded = name.encode("utf-8")
    if len(encoded) > _MAX_NAME_BYTES or num_bytes >= _MAX_OCTAL_BYTES:
        return _by_tarfile(name, num_bytes)
    template, checksum = _template()
    size = b"%011o" % num_bytes
    checksum += sum(encoded) + sum(size)
    return b"".join((
        encoded.ljust(_MAX_NAME_BYTES, b"\0"),
        template[_MAX_NAME_BYTES:_SIZE_AT], size, template[_SIZE_AT + 11 : _CHECKSUM_AT],
        b"%06o\0" % checksum, template[_CHECKSUM_AT + 7 :],
    ))  # fmt: skip


def padded(num_bytes: int) -> int:
    """Bytes of the whole blocks that a content of `num_bytes` takes."""
    return -(-num_bytes // BLOCK_BYTES) * BLOCK_BYTES


def padding(num_bytes: int) -> bytes:
    """Zeros that fill the last block of a content of `num_bytes`."""
    return _ZEROS[: -num_bytes % BLOCK_BYTES]


_ZEROS = bytes(BLOCK_BYTES)


@functools.lru_cache(maxsize=1)
def _template() -> tuple[bytes, int]:
    """A header without name and size, and what its bytes add up to, with spaces for the checksum."""
    block = bytearray(_by_tarfile("", 0))
    block[_SIZE_AT : _SIZE_AT + 11] = bytes(11)
    blank = block[:_CHECKSUM_AT] + b" " * 8 + block[_CHECKSUM_AT + 8 :]
    return bytes(block), sum(blank)


def _by_tarfile(name: str, num_bytes: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size = num_bytes
    info.mode = 0o644
    return info.tobuf(format=tarfile.USTAR_FORMAT, encoding="utf-8", errors="strict")
