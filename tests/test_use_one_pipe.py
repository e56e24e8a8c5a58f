"""docs/use_one_pipe.md runs, each section in a namespace of its own behind the first block."""

from __future__ import annotations

from pathlib import Path

import pages
import pytest

PAGE = "docs/use_one_pipe.md"
FIRST = "A list of dicts"

LEAVES_FILES_OPEN = pytest.mark.filterwarnings(
    "ignore:unclosed file:ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"
)
"""As webdataset does; they are closed when its objects are collected."""


@pytest.mark.parametrize(
    "heading",
    [
        FIRST,
        "In S3PRL's spelling",
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
    pages.run(repository / PAGE, ["", *dict.fromkeys([FIRST, heading])])


def test_every_section_is_run(repository: Path) -> None:
    (mark,) = (one for one in test_section_runs.pytestmark if one.name == "parametrize")
    tried = {getattr(value, "values", [value])[0] for value in mark.args[1]}
    assert tried == set(pages.sections(repository / PAGE)) - {""}
