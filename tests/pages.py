"""Pages whose python blocks are run: section by section, behind the blocks before the first heading."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)


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
