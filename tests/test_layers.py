"""Imports go one way, down, through the tiers that ARCHITECTURE.md draws: picture and code cannot part."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

PACKAGE = "s3prl_stream"


def read_tiers(page: Path) -> list[list[str]]:
    """Units of each tier, lowest first: one tier a line, names apart by spaces, in the block fenced as ```tiers.

    A unit is a file or a folder of the package; `shards.layout` is one file of a folder that stands on its own tier.
    """
    lines = page.read_text("utf-8").splitlines()
    begin = lines.index("```tiers") + 1
    listed = "\n".join(lines[begin : lines.index("```", begin)]).replace("\n  ", " ")  # an indented line goes on
    return [line.split() for line in listed.splitlines() if line.strip()]


def unit_of(path: str, units: Iterable[str]) -> str | None:
    """The unit that a dotted path inside the package belongs to: the longest that leads it. None: no unit."""
    leading = [unit for unit in units if path == unit or path.startswith(f"{unit}.")]
    return max(leading, key=len, default=None)


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """(line, dotted path inside this package) of every import in a file, those inside functions included."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno}: a relative import hides its tier"
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        yield from (
            (node.lineno, name.removeprefix(PACKAGE).lstrip(".")) for name in names if name.split(".")[0] == PACKAGE
        )


@pytest.fixture(scope="module")
def tier_of(repository: Path) -> dict[str, int]:
    tiers = read_tiers(repository / "ARCHITECTURE.md")
    names = [name for tier in tiers for name in tier]
    assert len(names) == len(set(names)), "ARCHITECTURE.md: a name stands in two tiers"
    return {name: number for number, tier in enumerate(tiers) for name in tier}


def test_every_file_and_folder_has_a_tier(repository: Path, tier_of: dict[str, int]) -> None:
    there = {
        entry.stem if entry.is_file() else entry.name
        for entry in (repository / PACKAGE).iterdir()
        if entry.suffix == ".py" or (entry / "__init__.py").exists()
    } - {"__init__", "__main__"}
    assert there == {unit for unit in tier_of if "." not in unit}


def test_imports_only_go_down(repository: Path, tier_of: dict[str, int]) -> None:
    wrong = []
    for file in sorted((repository / PACKAGE).rglob("*.py")):
        inside = file.relative_to(repository / PACKAGE)
        own = unit_of(".".join(inside.with_suffix("").parts), tier_of)
        if own is None:  # __init__ and __main__ of the package stand above all tiers
            continue
        for line, path in imports_of(file):
            unit = unit_of(path, tier_of)
            if unit not in (own, None) and tier_of[unit] >= tier_of[own]:
                wrong.append(f"{inside}:{line}: {own} must not know {unit}")
    assert wrong == []


@pytest.mark.parametrize("folder", ["stores", "shards", "packing", "indexing", "checking", "tokenizers"])
def test_the_map_of_a_folder_names_every_file(repository: Path, folder: str) -> None:
    files = {path.stem for path in (repository / PACKAGE / folder).glob("*.py")} - {"__init__"}
    words = ast.get_docstring(ast.parse((repository / PACKAGE / folder / "__init__.py").read_text("utf-8"))) or ""
    assert files - set(re.findall(r"\w+", words)) == set()
