"""docs/your_shards.md runs: its command lines and python blocks, in order, on small sets of each maker's layout."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from made_elsewhere import WRITERS, some_clips
from pages import arguments, fenced

from s3prl_stream.cli import main

PROMPT = "$ "


def test_the_page_runs(
    repository: Path,
    sample_set: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    clips = some_clips(sample_set)
    for name, write in WRITERS.items():
        write(tmp_path / name, clips)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "sample").symlink_to(sample_set)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "your_shards"}
    printed = []
    for kind, text in fenced(repository / "docs" / "your_shards.md"):
        if kind == "python":
            exec(compile(text, "docs/your_shards.md", "exec"), namespace)
            continue
        for line in text.replace("\\\n", " ").splitlines():
            assert line.startswith(PROMPT), line
            assert main(arguments(line.removeprefix(PROMPT))) == 0, line
            printed.append(capsys.readouterr().out)
    layouts = re.findall(r"^layout: (\w+)", "".join(printed), re.MULTILINE)
    assert layouts == ["NeMo", "Lhotse", "Energon"]
    beside = [one for one in printed if re.search(r"^padding +[\d.]+% +[\d.]+%$", one, re.MULTILINE)]
    assert len(beside) == len(WRITERS)
