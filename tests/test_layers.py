"""Imports go one way, down, through the tiers that ARCHITECTURE.md draws: picture and code cannot part."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = "s3prl_stream"


def read_tiers(page: Path) -> list[list[str]]:
    """Units of each tier, lowest first: one tier a line, names apart by spaces, in the block fenced as ```tiers."""
    lines = page.read_text("utf-8").splitlines()
    begin = lines.index("```tiers") + 1
    return [line.split() for line in lines[begin : lines.index("```", begin)] if line.strip()]


def unit_of(module: str) -> str:
    """s3prl_stream.shards.pack -> shards; the package's own __init__ is ''."""
    return module.split(".")[1] if "." in module else ""


def imports_of(file: Path) -> Iterator[tuple[int, str]]:
    """(line, unit of this package) of every import in a file, those inside functions included."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            modules = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            modules = (
                [f"{node.module}.{alias.name}" for alias in node.names] if node.module == PACKAGE else [node.module]
            )
        elif isinstance(node, ast.ImportFrom) and node.level:
            modules = [f"{PACKAGE}.relative_imports_hide_the_tier"]
        else:
            continue
        yield from ((node.lineno, unit_of(module)) for module in modules if module.split(".")[0] == PACKAGE)


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
    assert there == set(tier_of)


def test_imports_only_go_down(repository: Path, tier_of: dict[str, int]) -> None:
    wrong = []
    for file in sorted((repository / PACKAGE).rglob("*.py")):
        inside = file.relative_to(repository / PACKAGE)
        own = inside.parts[0].removesuffix(".py")
        if own in ("__init__", "__main__"):
            continue
        for line, unit in imports_of(file):
            # Names of the package itself: its version, and the lazy table, which belongs to everyone above it.
            if unit in ("", own, "__version__"):
                continue
            if unit not in tier_of or tier_of[unit] >= tier_of[own]:
                wrong.append(f"{inside}:{line}: {own} must not know {unit}")
    assert wrong == []
