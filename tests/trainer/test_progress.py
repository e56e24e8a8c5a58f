"""What a person reads while a network trains, where there is no terminal."""

from __future__ import annotations

import math

import pytest

from s3prl_stream.trainer import progress as showing
from s3prl_stream.trainer.progress import Progress, duration


def test_figures_are_those_of_this_process_but_for_the_hours_seen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 1000.0
    monkeypatch.setattr(showing.time, "perf_counter", lambda: now)
    shown = Progress(100, 200, hours=5.0)
    for step, loss in ((101, 2.0), (102, math.nan), (103, 4.0)):
        now += 3.0
        shown.update(step, loss, audio_seconds=1800.0, waited_seconds=0.9)
    assert capsys.readouterr().err == ""
    now += 3.0
    shown.update(104, 4.0, audio_seconds=1800.0, waited_seconds=0.9)  # 12 s: time for a line
    now += 3.0
    shown.update(200, 4.0, audio_seconds=0.0, waited_seconds=0.0)  # and one at the end
    assert capsys.readouterr().err.splitlines() == [
        "step 104/200  loss 2.1950  0.1667 audio h/s  7.00 h seen  waiting 30%  00:04:48 left",
        "step 200/200  loss 2.2853  0.1333 audio h/s  7.00 h seen  waiting 24%  00:00:00 left",
    ]


def test_durations() -> None:
    assert [duration(seconds) for seconds in (59.6, 3 * 86_400 + 4 * 3600 + 5 * 60 + 6)] == ["00:01:00", "3 d 04:05:06"]
