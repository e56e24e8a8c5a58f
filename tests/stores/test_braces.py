"""Names of many tars: as a shell writes braces, and as stars and folders find them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from s3prl_stream.errors import UsageError
from s3prl_stream.stores import braces
from s3prl_stream.stores.braces import expand_braces, find_tars

PATTERNS = [
    "a-{000..012}.tar", "{0..10..5}", "{10..0..5}", "{3..1}", "{-2..2}", "{-02..2}", "{a..e}", "{c..a}",
    "{train,dev}-{0..1}", "x{a,b{1,2},}y", "{a,b}{c,d}", "plain", "{01..3}", "{1..1}",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
def test_as_a_shell_expands_them(pattern: str) -> None:
    done = subprocess.run(["bash", "-c", f"printf '%s\\n' {pattern}"], capture_output=True, text=True, check=True)
    assert expand_braces(pattern) == done.stdout.splitlines()


def test_braces_that_count_nothing_and_nemos_way(monkeypatch: pytest.MonkeyPatch) -> None:
    assert expand_braces("{only}") == ["{only}"]
    assert expand_braces("a__OP_0..2_CL_.tar") == ["a_0.tar", "a_1.tar", "a_2.tar"]
    for wrong in ("a{0..2.tar", "{a,{b}"):
        with pytest.raises(UsageError, match="a brace is open"):
            expand_braces(wrong)
    monkeypatch.setattr(braces, "MAX_NAMES", 1000)
    with pytest.raises(UsageError, match="more than 1000 names"):
        expand_braces("{0..99999999}{0..9999}")
    monkeypatch.setattr(braces, "MAX_CHARACTERS", 10_000)
    with pytest.raises(UsageError, match="more than 10000 characters"):  # a few names, each very long
        expand_braces("x" * 900 + "{0..99}")


def test_patterns_without_bound() -> None:
    for deep in ("{" * 3000 + "}" * 3000, "{a," * 3000 + "}" * 3000, "{a,b}" * 3000):
        with pytest.raises(UsageError, match="too many braces") as caught:
            expand_braces(deep)
        assert len(str(caught.value)) < 300
    digits = "a{0.." + "9" * 5000 + "}.tar"
    assert expand_braces(digits) == [digits]  # counts nothing, and so stands for itself
    assert find_tars(digits) == [digits]  # too long for the name of a file, which is for whoever opens it to say


def test_stars_folders_and_lists(tmp_path: Path) -> None:
    for name in ("b.tar", "a.tar", "a.txt", "d/c.tar", "d.tar/x", "e{0,1}.tar"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    there = [str(tmp_path / name) for name in ("a.tar", "b.tar", "e{0,1}.tar")]
    assert find_tars(tmp_path / "*.tar") == there
    assert find_tars([tmp_path / "b.tar", str(tmp_path / "[a].tar"), tmp_path / "d"]) == [
        there[1], there[0], str(tmp_path / "d/c.tar")
    ]  # fmt: skip
    assert find_tars(there[2]) == there[2:]  # a file whose name has braces
    assert find_tars(tmp_path) == there  # and no folder whose name ends in .tar
    for nothing in (tmp_path / "*.zip", [], tmp_path / "d.tar"):
        with pytest.raises(UsageError, match="no tars"):
            find_tars(nothing)
    with pytest.raises(UsageError, match=r"a\.tar is named twice"):
        find_tars([tmp_path / "a.tar", tmp_path / "*.tar"])
    with pytest.raises(UsageError, match="commands are not run"):
        find_tars("pipe:cat a.tar")
