"""What a long command says while it works, where there is no terminal."""

from __future__ import annotations

import pytest

from s3prl_stream.cli import progress as showing
from s3prl_stream.cli.progress import Progress


def test_lines_tell_rate_and_time_left_since_this_run_began(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(showing.time, "monotonic", lambda: now)
    with Progress("files", "packing") as progress:
        progress.tell("packing", 100, 40000)  # a pack that goes on: what was there is not its own pace
        now += 20.0
        progress.tell("packing", 300, 40000)
        now += 1.0
        progress.tell("packing", 400, 40000)  # not every second
        progress.tell("packing", 40000, 40000)
    assert capsys.readouterr().err.splitlines() == [
        "packing: 300 of 40000, 10 files/s, 1:06:10 left",
        "packing: 40000 of 40000",
    ]
