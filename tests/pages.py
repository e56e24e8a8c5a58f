"""Pages whose blocks are run: commands and python in order, or python section by section behind the first blocks."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from pathlib import Path
from typing import Any

FENCED = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def fenced(page: Path) -> list[tuple[str, str]]:
    """("python" or "console", text) of each block, in order."""
    return FENCED.findall(page.read_text("utf-8"))


def arguments(line: str) -> list[str]:
    """Those of an `s3prl-stream` line; without worker processes, which would import everything again."""
    words = shlex.split(line)[1:]
    return [*words, "--workers", "0"] if words[0] in ("pack", "index") else words


def sections(page: Path) -> dict[str, list[str]]:
    """Heading -> its blocks; "": those before the first heading."""
    parts = SECTION.split(page.read_text("utf-8"))
    return {"": BLOCK.findall(parts[0])} | {
        heading: BLOCK.findall(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def run(page: Path, headings: Iterable[str]) -> None:
    """Run the blocks of these sections in one namespace."""
    found = sections(page)
    namespace: dict[str, Any] = {"__name__": page.stem}
    for heading in headings:
        assert found[heading], f"{heading}: no block"
        for block in found[heading]:
            exec(compile(block, f"{page.name}: {heading}", "exec"), namespace)
