"""`pack` and `inspect` on the command line: summaries, exit statuses, one line for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from s3prl_stream.cli import main
from s3prl_stream.cli.summary import duration
from s3prl_stream.errors import ShardError


@pytest.fixture(scope="module")
def audio(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips of 0.5 to 3 s by two speakers, with a manifest."""
    folder = tmp_path_factory.mktemp("audio")
    rng = np.random.default_rng(0)
    for number in range(6):
        wav = rng.integers(-3000, 3000, 8000 * (number + 1), dtype=np.int16)
        soundfile.write(folder / f"{number}_{'anna' if number % 2 else 'ben'}.wav", wav, 16_000)
    rows = [{"audio": path.name, "language": "de"} for path in sorted(folder.glob("*.wav"))]
    (folder / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return folder


@pytest.fixture(scope="module")
def packed(audio: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "set"
    arguments = ["--pattern", "{take}_{speaker}", "--workers", "0", "--min-seconds", "0.6", "--licence", "CC0"]
    arguments += ["--channel", "0", "--seed", "3", "--split-seconds", "9", "--cut-at", "silence"]
    assert main(["pack", "folder", str(audio), str(out), *arguments]) == 0
    return out


def test_pack_ends_with_a_summary_and_reports_steps_in_plain_lines(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--workers", "0", "--codec", "wav", "--sample-rate", "8000", "--split-seconds", "1.0"]
    assert main(["pack", "manifest", str(audio / "m.jsonl"), str(tmp_path / "set"), *options]) == 0
    captured = capsys.readouterr()
    assert "12 samples, 0.2 min in 1 shard, " in captured.out
    assert "(wav, 8000 Hz)" in captured.out
    assert captured.err.splitlines() == ["packing: 12 of 12"]


def test_an_unfinished_pack_is_begun_anew_when_asked(
    audio: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def killed(*_: object) -> None:
        raise ShardError("the end")

    words = ["pack", "folder", str(audio), str(tmp_path / "set"), "--workers", "0"]
    with monkeypatch.context() as patch:
        patch.setattr("s3prl_stream.packing.pack.finish", killed)
        assert main(words) == 1
    assert main([*words, "--seed", "1"]) == 2
    assert "--restart" in capsys.readouterr().err
    assert main([*words, "--seed", "1", "--restart"]) == 0


def test_hours_are_told_as_minutes_where_they_are_few() -> None:
    assert [duration(hours) for hours in (0.05, 0.1, 12.3456)] == ["3.0 min", "0.10 h", "12.35 h"]


def test_pack_lists_the_first_twenty_damaged_files_and_says_where_all_are(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in audio.glob("*.wav"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    for number in range(25):
        (tmp_path / f"bad{number:02d}.wav").write_text("text")
    assert main(["pack", "folder", str(tmp_path), str(tmp_path / "set"), "--workers", "0"]) == 1
    out = capsys.readouterr().out
    assert "6 samples" in out
    assert "damaged: 25" in out
    assert "bad19.wav" in out
    assert "bad20.wav" not in out
    assert "and 5 more" in out
    assert str(tmp_path / "set/left_out.jsonl") in out


def test_inspect_shows_what_the_set_holds(packed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", str(packed), "--top", "1"]) == 0
    out = capsys.readouterr().out
    assert "set: 5 samples" in out
    assert "licence: CC0" in out
    assert "0 damaged, 1 too short" in out
    assert "by speaker (2 values)" in out
    assert "... and 1 more" in out
    assert main(["inspect", str(packed), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["samples"] == sum(part["samples"] for part in facts["duration_histogram"]) == 5
    assert facts["hours"] == pytest.approx((1.0 + 1.5 + 2.0 + 2.5 + 3.0) / 3600)
    assert facts["hours_by"]["speaker"] == pytest.approx({"anna": 6.0 / 3600, "ben": 4.0 / 3600})
    assert facts["codecs"] == {"flac": 5}
    assert facts["skipped"] == {"too_short": 1}
    told = {"channel": 0, "seed": 3, "min_seconds": 0.6, "split_seconds": 9.0, "split": "silence"}
    assert facts["packing"] == facts["packing"] | told
    assert facts["bytes"] == sum(path.stat().st_size for path in packed.glob("*.tar"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["pack", "folder", "ABSENT", "OUT"], "no such folder"),
        (["pack", "folder", "EMPTY", "OUT"], "no audio found"),
        (["pack", "librispeech", "AUDIO", "OUT"], "no split in here, such as train-clean-100"),
        (["pack", "manifest", "ABSENT", "OUT"], "no such file"),
        (["pack", "folder", "AUDIO", "SET"], "holds another set"),
        (["pack", "folder", "AUDIO", "AUDIO"], "holds other files"),
        (["pack", "folder", "AUDIO", "OUT", "--pattern", "{a}-{b}"], "6 of 6 do not fit"),
        (["pack", "folder", "AUDIO", "OUT", "--codec", "mp3"], "codec 'mp3'"),
        (["pack", "folder", "AUDIO", "OUT", "--channel", "left"], "channel: 'left' is not one of 'first', 'mean'"),
        (["pack", "folder", "AUDIO", "OUT", "--seed", "abc"], "invalid int value: 'abc'"),
        (["pack", "folder", "AUDIO", "OUT", "--workers", "-1"], "num_workers is -1"),
        (["pack", "cassette", "AUDIO", "OUT"], "invalid choice: 'cassette'"),
        (["inspect", "EMPTY"], "no shard set here"),
    ],
)
def test_mistakes_get_one_line_and_exit_2(
    audio: Path, packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], complaint: str
) -> None:
    (tmp_path / "empty").mkdir()
    places = {"AUDIO": audio, "SET": packed, "EMPTY": tmp_path / "empty"}
    places |= {"OUT": tmp_path / "out", "ABSENT": tmp_path / "absent"}
    try:
        status = main([str(places.get(word, word)) for word in arguments])
    except SystemExit as stop:  # argparse's own complaints
        status = int(stop.code or 0)
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("s3prl-stream")]
    assert status == 2
    assert len(lines) == 1
    assert complaint in lines[0]
    assert not (tmp_path / "out").exists()
