"""The scripts under tools/: what they do without a network, from any folder, with a real virtual environment."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

SCRIPTS = ["setup", "check", "test", "quickstart", "demo_elastic"]


def run(script: Path, *arguments: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if name not in ("PYTHON", "VIRTUAL_ENV")}
    return subprocess.run(
        [str(script), *arguments], cwd=cwd, env={**inherited, **environment}, capture_output=True, text=True
    )


@pytest.fixture
def checkout(repository: Path, tmp_path: Path) -> Path:
    """A copy of what tools/setup reads, with a real `.venv` that claims to be installed."""
    root = tmp_path / "a checkout"
    (root / "tools").mkdir(parents=True)
    for name in ("setup.py", "pyproject.toml", "tools/setup", "tools/check"):
        shutil.copy(repository / name, root / name)
    venv.create(root / ".venv", with_pip=False)
    both = (root / "setup.py").read_bytes() + (root / "pyproject.toml").read_bytes()
    digest = subprocess.run(["git", "hash-object", "--stdin"], input=both, check=True, capture_output=True).stdout
    (root / ".venv" / "installed-for").write_bytes(digest)
    return root


@pytest.mark.parametrize("name", SCRIPTS)
def test_script_is_executable_and_parses(repository: Path, name: str) -> None:
    script = repository / "tools" / name
    assert os.access(script, os.X_OK)
    subprocess.run(["bash", "-n", str(script)], check=True)


def test_ci_runs_tools_test_and_nothing_more(repository: Path) -> None:
    commands = [
        line for line in (repository / ".ci/run").read_text("utf-8").splitlines() if line and not line.startswith("#")
    ]
    assert commands == ["set -euo pipefail", 'exec "$(dirname "$0")/../tools/test" "$@"']
    assert os.access(repository / ".ci/run", os.X_OK)


def test_second_setup_does_nothing_from_any_folder(checkout: Path, tmp_path: Path) -> None:
    # No uv, no pip and no Python on this PATH: whatever tried to install would fail.
    tools_only = tmp_path / "bin"
    tools_only.mkdir()
    for name in ("bash", "cat", "dirname", "env", "git"):
        found = shutil.which(name)
        assert found is not None
        (tools_only / name).symlink_to(found)
    done = run(checkout / "tools/setup", cwd=tmp_path, PATH=str(tools_only))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == f"setup: .venv is ready (Python {sys.version.split()[0]})\n"


@pytest.mark.slow
def test_a_changed_setup_py_installs_again(checkout: Path, tmp_path: Path) -> None:
    (checkout / "setup.py").write_text("raise SystemExit('this setup.py cannot be installed')\n")
    done = run(checkout / "tools/setup", cwd=tmp_path, PIP_NO_INDEX="1", UV_OFFLINE="1")
    assert done.returncode != 0
    assert "setup: installing s3prl-stream" in done.stdout
    assert not (checkout / ".venv" / "installed-for").exists()


def test_an_unusable_interpreter_is_one_line(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    done = run(checkout / "tools/setup", cwd=tmp_path, PYTHON="/no/such/python")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "setup: PYTHON=/no/such/python is not a Python between 3.10 and 3.13. Name another one."
    ]


def test_check_refuses_unknown_arguments(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout / "tools/check", "--fast", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "check: unknown argument --fast. Only --fix is known.\n")
