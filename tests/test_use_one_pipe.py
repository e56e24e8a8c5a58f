"""docs/use_one_pipe.md runs, each section in a namespace of its own behind the first block."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

SECTION = re.compile(r"^## (.+)$", re.MULTILINE)
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FIRST = "A list of dicts"

LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""As webdataset does; they are closed when its objects are collected."""


def sections(repository: Path) -> dict[str, list[str]]:
    """Heading -> its blocks; "": those before the first heading."""
    parts = SECTION.split((repository / "docs" / "use_one_pipe.md").read_text("utf-8"))
    return {"": BLOCK.findall(parts[0])} | {
        heading: BLOCK.findall(text) for heading, text in zip(parts[1::2], parts[2::2], strict=True)
    }


def run(repository: Path, headings: list[str]) -> None:
    found = sections(repository)
    namespace: dict[str, Any] = {"__name__": "use_one_pipe"}
    for heading in headings:
        assert found[heading], f"{heading}: no block"
        for block in found[heading]:
            exec(compile(block, f"docs/use_one_pipe.md: {heading}", "exec"), namespace)


@pytest.mark.parametrize(
    "heading",
    [
        FIRST,
        "torch's DataLoader",
        "torchdata's StatefulDataLoader",
        "torchdata.nodes",
        pytest.param("A webdataset pipeline", marks=LEAVES_FILES_OPEN),
        pytest.param("Hugging Face datasets", marks=pytest.mark.slow),
        "On the GPU",
    ],
)
def test_section_runs(heading: str, repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)
    run(repository, ["", *dict.fromkeys([FIRST, heading])])


def test_every_section_is_run(repository: Path) -> None:
    (mark,) = (one for one in test_section_runs.pytestmark if one.name == "parametrize")
    tried = {getattr(value, "values", [value])[0] for value in mark.args[1]}
    assert tried == set(sections(repository)) - {""}
