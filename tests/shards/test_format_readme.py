"""The examples of shards/README.md that read a set without this package, and its index, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import s3prl_stream as ss


def test_queries_of_the_index_run(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In one namespace, from a folder in which `shards` is the repository's."""
    blocks = re.findall(r"^```python\n(.*?)^```", (repository / "shards/README.md").read_text("utf-8"), re.M | re.S)
    queries = [block for block in blocks if "shards/sample" in block]
    assert len(queries) == 3
    (tmp_path / "shards").symlink_to(repository / "shards")
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, object] = {}
    for block in queries:
        exec(compile(block, "shards/README.md", "exec"), namespace)
    shown = capsys.readouterr().out
    assert "clips" in shown
    assert f"{len(ss.open_shards(repository / 'shards/sample'))} samples read" in shown
    assert (tmp_path / "too_fast.txt").read_text().strip()
