"""docs/other_trainers.md runs, each section in a namespace of its own."""

from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pages
import pytest

RUN = ["Lightning", "Hugging Face", "SpeechBrain", "Pretraining", "A loop of your own"]
TEXT_ONLY = {"What is the same, and what is not"}


def write_recordings(sample_set: Path, folder: Path) -> None:
    """The digits of a voice, taken out of the sample set's tars."""
    folder.mkdir()
    for shard in sorted(sample_set.glob("*.tar")):
        with tarfile.open(shard) as tar:
            for member in tar:
                if re.fullmatch(r"hugh-[a-z]+-\d\.flac", member.name):
                    stream = tar.extractfile(member)
                    assert stream is not None
                    (folder / member.name).write_bytes(stream.read())


@pytest.mark.slow
@pytest.mark.filterwarnings("default::DeprecationWarning", "default::FutureWarning", "default::UserWarning")
@pytest.mark.parametrize("heading", RUN)
def test_section_runs(
    heading: str, repository: Path, sample_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "shards").mkdir()
    (tmp_path / "shards" / "sample").symlink_to(sample_set)
    write_recordings(sample_set, tmp_path / "recordings")
    pages.run(repository / "docs" / "other_trainers.md", ["", heading])


def test_every_section_is_run(repository: Path) -> None:
    assert set(pages.sections(repository / "docs" / "other_trainers.md")) == {"", *RUN, *TEXT_ONLY}
