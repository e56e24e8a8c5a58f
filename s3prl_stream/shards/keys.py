"""Keys as they stand in a shard.

WebDataset cuts a member's name at its first dot and takes a slash for a folder, so `a.1-x` and `a.2-x` would merge.
"""

from __future__ import annotations

import hashlib
import re

MAX_KEY_BYTES = 88
"""A ustar header holds names of 100 bytes; `KEY.flac` and `KEY.json` must fit, and the numbers of pieces."""

_DIGEST_BYTES = 8
_PLAIN = re.compile(r"[A-Za-z0-9_-]*")


def escape_key(name: str) -> str:
    """A key without dots, slashes, spaces and control characters; different names give different keys.

    A slash becomes "+", every other unfit character (and "+" and "%") becomes "%" and its byte in hexadecimal, as in
    URLs. What is still longer than `MAX_KEY_BYTES` keeps its beginning and ends in "%%" and a digest of the whole.
    """
    escaped = escape_foreign_key(name)
    encoded = escaped.encode()
    if len(encoded) <= MAX_KEY_BYTES:
        return escaped
    digest = hashlib.blake2b(encoded, digest_size=_DIGEST_BYTES).hexdigest()
    kept = encoded[: MAX_KEY_BYTES - 2 * _DIGEST_BYTES - 2].decode(errors="ignore")
    return f"{kept}%%{digest}"


def escape_foreign_key(name: str) -> str:
    """The same for a sample of a tar made elsewhere, whose names are not ours to shorten: any length, reversible."""
    return name if _PLAIN.fullmatch(name) else "".join(_escape_character(character) for character in name)


def _escape_character(character: str) -> str:
    if character == "/":
        return "+"
    if character.isprintable() and character not in " +%.\\":
        return character
    # Names of files that are not UTF-8 reach Python as lone surrogates.
    return "".join(f"%{byte:02X}" for byte in character.encode("utf-8", "surrogatepass"))
