"""README.md runs: its python blocks in one namespace and its command lines, in order, in a folder with the sample set.

So do docs/when_a_run_goes_wrong.md, docs/your_corpus.md and docs/tasks.md, behind it.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
from pages import arguments, fenced

from s3prl_stream.cli import main

PROMPT = "$ "


def run_line(words: str) -> int:
    """A command line as a user types it; ours in this process, which spares the imports."""
    if words.startswith("s3prl-stream "):
        return main(arguments(words))
    return subprocess.run(["bash", "-o", "pipefail", "-c", words]).returncode


def run_page(page: Path) -> None:
    """Every block, in order."""
    blocks = fenced(page)
    assert {kind for kind, _ in blocks} == {"python", "console"}
    namespace: dict[str, Any] = {"__name__": page.stem}
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, page.name, "exec"), namespace)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            assert line.startswith(PROMPT), f"{page.name}: a console line that is no command: {line}"
            assert run_line(line.removeprefix(PROMPT)) == 0, line


def test_readme_runs(repository: Path, sample_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "sample").symlink_to(sample_set)
    run_page(repository / "README.md")
    for page in ("when_a_run_goes_wrong.md", "your_corpus.md", "tasks.md"):
        run_page(repository / "docs" / page)


def test_links_exist(repository: Path) -> None:
    pages = [*repository.glob("*.md"), *(repository / "docs").glob("*.md"), repository / "shards" / "README.md"]
    assert len(pages) >= 11
    for page in pages:
        links = re.findall(r"\]\((?!https?://)([^)#]*)#?([^)]*)\)", page.read_text("utf-8"))
        for link, anchor in links:
            target = page.parent / link if link else page
            assert target.exists(), f"{page}: {link}"
            if anchor:
                headings = re.findall(r"^#+ (.+)$", target.read_text("utf-8"), re.MULTILINE)
                assert anchor in {re.sub(r"[^\w -]", "", one.lower()).replace(" ", "-") for one in headings}, anchor
