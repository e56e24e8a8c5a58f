"""README.md runs: its python blocks in one namespace and its command lines, in order, on the sample set."""

from __future__ import annotations

import re
import shlex
import tarfile
from pathlib import Path
from typing import Any

import pytest

from s3prl_stream.cli import main

FENCED = re.compile(r"^```(python|console)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROMPT = "$ s3prl-stream "


def write_recordings(sample_set: Path, folder: Path) -> None:
    """The README's folder of recordings: the digits of two voices, taken out of the sample set's tars."""
    folder.mkdir()
    for shard in sorted(sample_set.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if re.fullmatch(r"(ada|hugh)-[a-z]+-\d\.flac", member.name):
                    stream = tar.extractfile(member)
                    assert stream is not None
                    (folder / member.name).write_bytes(stream.read())


def test_readme_runs(repository: Path, sample_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "sample").symlink_to(sample_set)
    write_recordings(sample_set, tmp_path / "recordings")

    blocks = FENCED.findall((repository / "README.md").read_text("utf-8"))
    assert {kind for kind, _ in blocks} == {"python", "console"}
    namespace: dict[str, Any] = {"__name__": "readme"}
    for kind, text in blocks:
        if kind == "python":
            exec(compile(text, "README.md", "exec"), namespace)
            continue
        for line in text.splitlines():
            assert line.startswith(PROMPT), f"README.md: a console line that is no command: {line}"
            assert main(shlex.split(line.removeprefix(PROMPT))) == 0, line


def test_readme_links_exist(repository: Path) -> None:
    for page in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"):
        links = re.findall(r"\]\((?!https?://)([^)#]+)", (repository / page).read_text("utf-8"))
        assert [link for link in links if not (repository / link).exists()] == [], page
