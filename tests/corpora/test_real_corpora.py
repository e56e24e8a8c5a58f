"""Real recordings pack as users would pack them: one command each, and what cannot be packed is named.

LibriSpeech, the wake words, some of which are damaged, and odd files are in tests/shards/test_pack_real.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from s3prl_stream.cli import main
from s3prl_stream.shards.shardset import ShardSet, open_shards


@pytest.fixture
def packed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """pack(corpus, root, options) -> (exit status, report, set)."""

    def pack(corpus: str, root: Path, *options: str | Path) -> tuple[int, dict[str, Any], ShardSet]:
        words = ["pack", corpus, root, tmp_path / "set", "--workers", "0", "--json", *options]
        status = main([str(word) for word in words])
        return status, json.loads(capsys.readouterr().out), open_shards(tmp_path / "set")

    return pack


def values(shards: ShardSet, column: str) -> list[Any]:
    return sorted(shards.table().column(column).drop_null().unique().to_pylist())


def test_kathleen_as_ljspeech(real_data: Path, packed: Any) -> None:
    status, report, shards = packed("ljspeech", real_data / "kathleen")
    assert (status, report["samples"]) == (0, 400)
    assert report["hours"] == pytest.approx(0.33, abs=0.01)
    assert shards.table().column("text").null_count == 0


@pytest.mark.slow
def test_digits_by_a_name_pattern(real_data: Path, packed: Any) -> None:
    status, report, shards = packed("folder", real_data / "fsdd/recordings", "--pattern", "{digit}_{speaker}_{take}")
    assert (status, report["samples"]) == (0, 2000)
    assert values(shards, "digit") == [str(digit) for digit in range(10)]
    assert len(values(shards, "speaker")) == 4
    assert values(shards, "sample_rate") == [16_000]  # from 8 kHz


def test_yes_and_no_by_a_name_pattern(real_data: Path, packed: Any) -> None:
    pattern = "_".join(f"{{word{number}}}" for number in range(1, 9))
    status, report, shards = packed("folder", real_data / "yesno/waves_yesno", "--pattern", pattern)
    assert (status, report["samples"]) == (0, 60)
    assert values(shards, "word8") == ["0", "1"]


@pytest.mark.slow
def test_sounds_by_folder(real_data: Path, packed: Any) -> None:
    status, report, shards = packed("folder", real_data / "esc10", "--label-from", "folder")
    assert (status, report["samples"]) == (0, 240)
    assert values(shards, "label")[:2] == ["001 - Dog bark", "002 - Rain"]
    assert len(values(shards, "label")) == 10


def test_orders_with_their_slots_as_columns(real_data: Path, packed: Any) -> None:
    root = real_data / "barista"
    options = ("--audio-root", root / "audio", "--columns-from", "slots", "--max-seconds", "8")
    status, report, shards = packed("manifest", root / "label.json", *options)
    rows = json.loads((root / "label.json").read_bytes())
    assert status == 0
    assert report["samples"] + sum(report["skipped"].values()) == len(rows)
    slots = {f"slots_{slot}" for row in rows.values() for slot in row["slots"]}
    assert slots <= shards.columns().keys()
    for row in shards.table().to_pylist():
        wanted = rows[f"{row['key']}.flac"]
        assert row["intent"] == wanted["intent"]
        found = {slot: row[slot] for slot in slots if row[slot] is not None}
        assert found == {f"slots_{slot}": value for slot, value in wanted["slots"].items()}


def test_who_speaks_when_with_odd_names_and_silent_files(real_data: Path, packed: Any) -> None:
    root = real_data / "diarization"
    status, report, shards = packed("rttm", root)
    assert (status, report["samples"], report["damaged"]) == (0, 15, [])
    rows = {row["key"]: row for row in shards.table().to_pylist()}
    odd = rows["tr\u00f1" + "00"]  # the RTTM says trn00
    assert (odd["recording"], odd["split"]) == ("trn00", "train")
    assert odd["num_speakers"] > 1
    assert (rows["empty"]["num_speakers"], rows["empty"]["split"]) == (0, None)
    lines = sum((root / f"debug.{split}.rttm").read_bytes().count(b"\n") for split in ("train", "development", "test"))
    assert shards.extra_file("reference.rttm").count(b"\nSPEAKER") + 1 == lines
    assert b"trn00 NA 0.000 30.000" in shards.extra_file("reference.uem")
