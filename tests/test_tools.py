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
def test_a_changed_setup_py_installs_again_and_no_network_is_said(checkout: Path, tmp_path: Path) -> None:
    (checkout / "setup.py").write_text("raise SystemExit('this setup.py cannot be installed')\n")
    done = run(checkout / "tools/setup", cwd=tmp_path, PIP_NO_INDEX="1", UV_OFFLINE="1")
    assert done.returncode == 2
    assert "setup: installing s3prl-stream" in done.stdout
    assert done.stderr.splitlines()[-1].startswith("setup: not installed, for the reason above. It needs the network")
    assert not (checkout / ".venv" / "installed-for").exists()


def test_an_unusable_interpreter_is_one_line(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    done = run(checkout / "tools/setup", cwd=tmp_path, PYTHON="/no/such/python")
    assert done.returncode == 2
    assert done.stderr.splitlines() == [
        "setup: PYTHON=/no/such/python is no Python between 3.10 and 3.13; it says: /no/such/python: No such file or "
        "directory. Name another."
    ]


def on_a_path_with(folder: Path, *names: str, **scripts: str) -> str:
    """A PATH with these programs of this machine, and these of our own."""
    folder.mkdir()
    for name in ("bash", "cat", "dirname", "env", "rm", "sed", *names):
        found = shutil.which(name)
        assert found is not None
        (folder / name).symlink_to(found)
    for name, text in scripts.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{text}\n")
        (folder / name).chmod(0o755)
    return str(folder)


def test_what_setup_lacks_is_one_line(checkout: Path, tmp_path: Path) -> None:
    shutil.rmtree(checkout / ".venv")
    no_git = run(checkout / "tools/setup", cwd=tmp_path, PATH=on_a_path_with(tmp_path / "no_git"))
    assert (no_git.returncode, no_git.stderr) == (2, "setup: git is not on the PATH. Install it.\n")
    old = 'case "$2" in *exit*|*Exit*) exit 1;; *) echo 3.9.2;; esac'
    too_old = run(checkout / "tools/setup", cwd=tmp_path, PATH=on_a_path_with(tmp_path / "old", "git", python3=old))
    assert (too_old.returncode, too_old.stderr) == (
        2,
        "setup: found no Python between 3.10 and 3.13 on the PATH (python3 says: 3.9.2). Install one, or name it: "
        "PYTHON=/path/to/python tools/setup\n",
    )


def test_half_an_environment_is_not_left_behind(checkout: Path, tmp_path: Path) -> None:
    """As Debian does without python3-venv."""
    shutil.rmtree(checkout / ".venv")
    python = f'if [ "$1" = -m ]; then mkdir -p .venv/bin; exit 1; fi; exec "{sys.executable}" "$@"'
    path = on_a_path_with(tmp_path / "bin", "git", "mkdir", python3=python)
    done = run(checkout / "tools/setup", cwd=tmp_path, PATH=path)
    assert done.returncode == 2
    assert done.stderr == (
        "setup: python3 cannot make virtual environments. On Debian or Ubuntu: apt install python3-venv\n"
    )
    assert not (checkout / ".venv").exists()


@pytest.mark.parametrize("name", ["bench", "make_index", "probe_table", "task_table"])
def test_a_tool_without_libraries_says_what_to_do(name: str, repository: Path, tmp_path: Path) -> None:
    (tmp_path / "tools").mkdir()
    for file in (name, "in_venv.py"):
        shutil.copy(repository / "tools" / file, tmp_path / "tools")
    tool = tmp_path / "tools" / name
    done = subprocess.run([sys.executable, "-I", "-S", "-c", START, tool], capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"{tool}: {sys.executable} lacks the libraries. Run {tmp_path}/tools/setup first.\n"


START = """
import runpy, sys
sys.argv, tool = sys.argv[1:], sys.argv[1]
sys.path.insert(0, tool.rpartition("/")[0])
runpy.run_path(tool, run_name="__main__")
"""
"""A script in a Python without site-packages (-S)."""


def test_check_refuses_unknown_arguments(checkout: Path, tmp_path: Path) -> None:
    done = run(checkout / "tools/check", "--fast", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "check: unknown argument --fast. Only --fix is known.\n")
