"""What needs no GPU stack does not load one: each case runs in a fresh interpreter."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tars import clip, tar

HEAVY = {"torch", "torchaudio", "sentencepiece", "sklearn", "matplotlib"}


def loaded_after(code: str, *arguments: str | Path) -> set[str]:
    """Top-level modules in sys.modules after `code` ran in a fresh interpreter."""
    listing = "\nimport sys\nprint('\\n' + ' '.join({name.split('.')[0] for name in sys.modules}))"
    command = [sys.executable, "-c", code + listing, *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "code",
    [
        "import s3prl_stream",
        "import s3prl_stream.shards.pack",
        "import s3prl_stream.corpora",
        "import s3prl_stream.cli",
    ],
)
def test_import_loads_no_torch_and_no_audio_library(code: str) -> None:
    assert loaded_after(code).isdisjoint(HEAVY | {"soundfile", "miniaudio", "soxr"})


def test_opening_a_set_loads_no_torch(sample_set: Path) -> None:
    code = "import sys; from s3prl_stream import open_shards; assert len(open_shards(sys.argv[1])) > 0"
    assert loaded_after(code, sample_set).isdisjoint(HEAVY)


def test_inspecting_loads_no_torch(sample_set: Path) -> None:
    code = "import sys; from s3prl_stream.cli import main; assert main(['inspect', sys.argv[1]]) == 0"
    assert loaded_after(code, sample_set).isdisjoint(HEAVY)


def test_packing_loads_no_torch(sample_set: Path, tmp_path: Path) -> None:
    (tmp_path / "audio").mkdir()
    code = (
        "import sys, numpy, soundfile; from s3prl_stream.cli import main\n"
        "soundfile.write(sys.argv[1] + '/a.wav', numpy.zeros(16000, 'int16'), 16000)\n"
        "assert main(['pack', 'folder', sys.argv[1], sys.argv[2]]) == 0"
    )
    assert loaded_after(code, tmp_path / "audio", tmp_path / "set").isdisjoint(HEAVY)


def test_indexing_loads_no_torch(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar(clip("a")))
    code = "import sys; from s3prl_stream.cli import main; assert main(['index', sys.argv[1], '--workers', '0']) == 0"
    assert loaded_after(code, tmp_path).isdisjoint(HEAVY)


def test_help_and_version_load_no_command() -> None:
    code = "from s3prl_stream.cli import main\ntry: main(['--help'])\nexcept SystemExit as stop: assert stop.code == 0"
    assert loaded_after(code).isdisjoint(HEAVY | {"soundfile", "pyarrow", "numpy"})
