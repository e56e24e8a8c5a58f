"""What judges `tools/bench interop`: a clip that differs, is missing or was not compared is an error."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tools"))

from peers.interop import agree


def test_differences_are_errors() -> None:
    one = {"a": {"sound": "1", "text": "x"}, "b": {"sound": "2", "text": "y"}}
    assert agree("n", one, {"a": {"sound": "1"}, "b": {"sound": "2", "text": "y"}}) == {
        "equal": {"sound": 2, "text": 1}
    }
    for other, match in (
        ({"a": {"sound": "1"}}, "1 clips are on one side only, such as b"),
        ({"a": {"sound": "1"}, "b": {"sound": "3"}}, "b: sound is '2' and '3'"),
        ({"a": {"sound": "1"}, "b": {"text": "y"}}, "the sound of 1 of 2 clips"),
    ):
        with pytest.raises(AssertionError, match=match):
            agree("n", one, other)
