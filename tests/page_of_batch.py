"""What a page of a batch shows, read back by a parser of HTML."""

from __future__ import annotations

import base64
import io
import wave
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

_VOID = ("img", "meta")


class Page(HTMLParser):
    """Text, media and tables of each step of each clip."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.clips: list[dict[str, Any]] = []
        """Of each: "title", and "steps": {name: {"sounds": [...], "pictures": [...], "cells": [...]}}."""
        self._open: list[str] = []
        self._step: dict[str, Any] = {}
        self.feed(path.read_text("utf-8"))
        assert self._open == [], "tags that are not closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        self.tags.append((tag, given))
        if tag not in _VOID:
            self._open.append(tag)
        if tag == "section":
            self.clips.append({"title": "", "steps": {}})
        elif tag == "li":
            self._step = {"name": "", "sounds": [], "pictures": [], "cells": []}
        elif tag in ("th", "td") and "li" in self._open:
            self._step["cells"].append("")
        elif tag == "audio":
            self._step["sounds"].append(_sound(str(given["src"])))
        elif tag == "img":
            self._step["pictures"].append(_bytes(str(given["src"]), "image/png"))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag
        if tag == "li":
            self.clips[-1]["steps"][self._step["name"]] = self._step

    def handle_data(self, data: str) -> None:
        if "style" in self._open:
            return
        self.text += data
        if "h2" in self._open:
            self.clips[-1]["title"] += data
        elif "h3" in self._open:
            self._step["name"] += data
        elif self._open[-2:-1] in (["th"], ["td"]) and "li" in self._open:  # in its <bdi>
            self._step["cells"][-1] += data


def rows_of(step: dict[str, Any]) -> list[tuple[str, str]]:
    """Names and values of the tables of a step."""
    return list(zip(step["cells"][::2], step["cells"][1::2], strict=True))


def _sound(src: str) -> tuple[np.ndarray[Any, Any], int]:
    with wave.open(io.BytesIO(_bytes(src, "audio/wav"))) as reader:
        assert (reader.getnchannels(), reader.getsampwidth()) == (1, 2)
        return np.frombuffer(reader.readframes(reader.getnframes()), "<i2"), reader.getframerate()


def _bytes(src: str, kind: str) -> bytes:
    head, _, content = src.partition(",")
    assert head == f"data:{kind};base64"
    return base64.b64decode(content, validate=True)
