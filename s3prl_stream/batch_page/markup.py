"""HTML of what comes from data: escaped and bounded; sound and pictures inside the page while there is room."""

from __future__ import annotations

import base64
import html
import unicodedata
from collections.abc import Mapping
from typing import Any

MOST_CHARACTERS = 400
"""Of one value."""

_INVISIBLE = ("Cc", "Cs")
"""Categories that are shown as escapes: control characters, and surrogates, which no file can hold."""
_TURNING = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")
"""So are marks that turn the direction of what follows: a value would look like another one."""


class Room:
    """How many bytes of sound and pictures the page may still take."""

    def __init__(self, num_bytes: int) -> None:
        self._left = num_bytes
        self.full = False
        """Whether something has been left out."""

    def data_uri(self, kind: str, content: bytes) -> str | None:
        """`content` as a URL of its own, of a type such as "image/png"; None: the page is full."""
        if not self.has(len(content)):
            return None
        uri = f"data:{kind};base64,{base64.b64encode(content).decode()}"
        self._left -= len(uri)
        return uri

    def has(self, num_bytes: int) -> bool:
        """Whether so many bytes fit. Once something does not, nothing does: the page ends there."""
        self.full = self.full or -(-num_bytes // 3) * 4 > self._left
        return not self.full


def shown(value: Any) -> str:
    """Any value as HTML, in the direction of its own script; a long one is cut, and says so."""
    return f"<bdi>{escaped(value)}</bdi>"


def escaped(value: Any) -> str:
    """Any value as text that is safe in an element and between quotes."""
    text = value if isinstance(value, str) else repr(value)
    visible = [one if _is_plain(one) else repr(one)[1:-1] for one in text[:MOST_CHARACTERS]]
    rest = f" ... ({len(text)} characters)" if len(text) > MOST_CHARACTERS else ""
    return html.escape("".join(visible) + rest)


def _is_plain(character: str) -> bool:
    return unicodedata.category(character) not in _INVISIBLE and unicodedata.bidirectional(character) not in _TURNING


def table(rows: Mapping[str, Any], caption: str) -> str:
    """Names and values under a caption; nothing if there are none."""
    if not rows:
        return ""
    lines = (f'<tr><th scope="row">{shown(name)}</th><td>{shown(value)}</td></tr>' for name, value in rows.items())
    return f"<table><caption>{html.escape(caption)}</caption>{''.join(lines)}</table>"
