"""Ogg pages (RFC 3533) with a serial number that is always the same.

libsndfile draws the serial number of a stream from the clock, so the same sound would never give the same bytes twice.
"""

from __future__ import annotations

import functools
import struct

from s3prl_stream.errors import SampleError

SERIAL = 1
"""Of the only stream in a file."""

_CAPTURE = b"OggS"
_SERIAL_AT, _CRC_AT, _SEGMENTS_AT, _HEADER_BYTES = 14, 22, 26, 27
_POLYNOMIAL = 0x104C11DB7


def with_fixed_serial(data: bytes) -> bytes:
    """The same pages with `SERIAL` in each, and their checksums made to fit.

    Ogg's CRC-32 has no initial and no final value, so it is linear: what changes it is the checksum of the difference
    alone, four bytes with zeros behind them. No page is summed again.

    Raises:
        SampleError(reason="decode"): not made of whole Ogg pages.
    """
    pages = bytearray(data)
    start = 0
    while start < len(pages):
        head = pages[start : start + _HEADER_BYTES]
        if len(head) < _HEADER_BYTES or head[:4] != _CAPTURE:
            raise SampleError(f"no Ogg page at byte {start}", reason="decode")
        body = start + _HEADER_BYTES + head[_SEGMENTS_AT]
        stop = body + sum(pages[start + _HEADER_BYTES : body])
        serial, crc = (struct.unpack_from("<I", head, at)[0] for at in (_SERIAL_AT, _CRC_AT))
        difference = int.from_bytes(struct.pack("<I", serial ^ SERIAL), "big")
        crc ^= _times(difference, _power_of_x(8 * (stop - start - _SERIAL_AT - 4) + 32))
        struct.pack_into("<I", pages, start + _SERIAL_AT, SERIAL)
        struct.pack_into("<I", pages, start + _CRC_AT, crc)
        start = stop
    return bytes(pages)


@functools.lru_cache(maxsize=4096)
def _power_of_x(exponent: int) -> int:
    """x ** exponent modulo the polynomial, over GF(2); bit n is the coefficient of x ** n."""
    result, square = 1, 2
    while exponent:
        if exponent & 1:
            result = _times(result, square)
        square, exponent = _times(square, square), exponent >> 1
    return result


def _times(one: int, other: int) -> int:
    product = 0
    while other:
        if other & 1:
            product ^= one
        other >>= 1
        one <<= 1
        if one >> 32:
            one ^= _POLYNOMIAL
    return product
