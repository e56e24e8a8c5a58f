"""The quality gate: each finding made, counted, told; nothing left out for it unless asked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import s3prl_stream as ss
from s3prl_stream.audio.measures import Measures
from s3prl_stream.cli import main
from s3prl_stream.errors import UsageError
from s3prl_stream.packing.quality import THRESHOLDS, checked_thresholds, findings_of, with_duplicates
from s3prl_stream.shards.layout import QUALITY_COLUMNS

RATE = 16_000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of a second for every finding, four of those of glued files, and two that are fine."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)

    def noise(seconds: float = 1.0, rate: int = RATE) -> np.ndarray:
        return rng.integers(-3000, 3000, int(seconds * rate), dtype=np.int16)

    loud = noise()
    loud[:160] = 32767
    quiet = noise()
    quiet[:15_000] //= 200
    fine = noise()
    for name, wav, rate in (
        ("fine", fine, RATE), ("twin", fine, RATE), ("loud", loud, RATE),
        ("quiet", quiet, RATE), ("offset", noise() + np.int16(1000), RATE), ("narrow", noise(1.0, 8000), 8000),
        ("two", np.stack([noise(1.5), noise(1.5)], 1), RATE), ("odd key ", noise(), RATE), ("no-text", noise(), RATE),
        ("much-text", noise(), RATE),
    ):  # fmt: skip
        soundfile.write(folder / f"{name}.wav", wav, rate)
    float_wav = np.full(RATE, 0.1, np.float32)
    float_wav[::2] *= -1
    float_wav[100:200] = 1.5
    soundfile.write(folder / "beyond.wav", float_wav, RATE, subtype="FLOAT")
    soundfile.write(folder / "another.flac", noise(), RATE)
    for name, suffix in (("glued", "flac"), ("chained", "ogg"), ("riffs", "wav"), ("more", "mp3")):
        soundfile.write(folder / "part", noise(), RATE, format=suffix)
        soundfile.write(folder / "rest", noise(2.0), RATE, format=suffix)
        parts = [folder / "part", folder / "rest"]
        (folder / f"{name}.{suffix}").write_bytes(b"".join(part.read_bytes() for part in parts))
        for part in parts:
            part.unlink()
    return folder


TEXTS = {"no-text": " ", "much-text": "x" * 41, "fine": "x" * 40}
WANTED = {
    "fine": "", "twin": "duplicate", "another": "", "loud": "clipped duplicate", "another+folder": "clipped",
    "quiet": "silent", "offset": "dc_offset", "narrow": "upsampled", "two": "multichannel",
    "glued": "glued", "chained": "glued", "riffs": "glued", "more": "glued",
    "odd%20key%20": "unsafe_key", "no-text": "empty_text", "much-text": "long_text", "beyond": "clipped",
}  # fmt: skip


def corpus(folder: Path) -> list[ss.Utterance]:
    return [
        ss.Utterance(path.stem, path, **({"text": TEXTS[path.stem]} if path.stem in TEXTS else {}))
        for path in sorted(folder.iterdir())
    ] + [ss.Utterance("another/folder", folder / "loud.wav")]


@pytest.mark.parametrize("codec", ["flac", "wav"])
def test_every_finding_is_made_and_nothing_else(recordings: Path, tmp_path: Path, codec: str) -> None:
    shards = ss.pack(corpus(recordings), tmp_path / "set", codec=codec, shard_mb=0.1)
    rows = {row["key"]: row for row in shards.table().to_pylist()}
    assert {key: row["findings"] for key, row in rows.items()} == WANTED
    twins = {key: row["duplicate_of"] for key, row in rows.items() if row["duplicate_of"] is not None}
    assert twins == {"twin": "fine", "loud": "another+folder"}
    assert rows["loud"]["clipped_share"] == 160 / RATE
    assert rows["beyond"]["clipped_share"] == 100 / RATE
    assert rows["quiet"]["silent_share"] == pytest.approx(15_000 / RATE, abs=0.02)
    assert rows["offset"]["dc_offset"] == pytest.approx(1000 / 32768, abs=0.003)
    assert (rows["narrow"]["source_sample_rate"], rows["narrow"]["sample_rate"]) == (8000, RATE)
    assert rows["two"]["source_channels"] == 2
    samples = soundfile.read(recordings / "fine.wav", dtype="<i2")[0].tobytes()
    assert rows["fine"]["pcm_hash"] == hashlib.md5(samples).hexdigest()[:16]
    report = json.loads((tmp_path / "set/report.json").read_bytes())
    assert report["samples"] == 17
    found = {name: one["samples"] for name, one in report["findings"].items()}
    assert found == {name: sum(name in text.split() for text in WANTED.values()) for name in found}
    assert sorted(report["findings"]["clipped"]["first_keys"]) == ["another+folder", "beyond", "loud"]
    assert report["findings"]["multichannel"]["seconds"] == rows["two"]["seconds"] == 1.5
    assert report["findings"]["glued"]["seconds"] == 4.0  # of the first alone of each
    counts = json.loads((tmp_path / "set/manifest.json").read_bytes())["counts"]
    assert counts["findings"] == {name: count for name, count in found.items() if count}
    stream = ss.ShardStream(shards, epochs=1, shuffle=False, where="findings == '' and duplicate_of is None")
    assert sorted(sample["key"] for sample in stream) == ["another", "fine"]
    assert ss.verify(tmp_path / "set", full=True).is_sound
    ss.repair(tmp_path / "set", tmp_path / "repaired")
    again = {row["key"]: row for row in ss.open_shards(tmp_path / "repaired").table().to_pylist()}
    assert all(again[key][name] == row[name] for key, row in rows.items() for name in QUALITY_COLUMNS)


def test_a_threshold_may_be_reached_and_not_passed() -> None:
    def found(measures: Measures, rate: int = RATE, text: str = "x" * 40, **thresholds: float) -> list[str]:
        return findings_of(
            measures, seconds=1.0, sample_rate=RATE, source_sample_rate=rate, source_channels=1, is_glued=False,
            text=text, key_is_unsafe=False, thresholds=checked_thresholds(thresholds),
        )  # fmt: skip

    at = Measures(THRESHOLDS["clipped"], THRESHOLDS["silent"], -THRESHOLDS["dc_offset"])
    assert found(at) == found(at, rate=2 * RATE) == []
    passed = Measures(*(1.01 * value for value in at))
    assert found(passed, text="x" * 41) == ["clipped", "silent", "dc_offset", "long_text"]
    assert found(Measures(0.0, 0.0, 0.0), clipped=0) == []
    assert found(at, clipped=0) == ["clipped"]
    assert with_duplicates("clipped unsafe_key") == "clipped duplicate unsafe_key"


def test_thresholds_are_set_and_findings_refused_on_the_command_line(
    recordings: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pack", "folder", str(recordings), str(tmp_path / "set"), "--workers", "0"]
    options = ["--threshold", "clipped=0.007", "--threshold", "dc_offset=0.5", "--refuse", "silent,upsampled"]
    assert main([*words, *options]) == 0
    out = capsys.readouterr().out
    assert "14 samples" in out
    assert "findings: 1 clipped, 1 multichannel, 4 glued, 1 duplicate, 1 unsafe_key" in out
    assert "skipped: 1 silent" in out
    lines = [json.loads(line) for line in (tmp_path / "set/left_out.jsonl").read_bytes().splitlines()]
    assert [(line["key"], line["kind"], line["reason"]) for line in lines] == [
        ("narrow", "refused", "upsampled"),
        ("quiet", "refused", "silent"),
    ]
    assert "0.9" in lines[1]["message"]
    assert ss.verify(tmp_path / "set").is_sound


@pytest.mark.parametrize("decode", [True, False])
def test_a_glued_file_is_known_where_it_is_decoded(recordings: Path, tmp_path: Path, decode: bool) -> None:
    glued = recordings / "glued.flac"
    listed = [ss.Utterance("whole", glued), ss.Utterance("part", glued, 0.25, 0.5)]
    shards = ss.pack(listed, tmp_path / "set", codec="original", decode=decode)
    found = {row["key"]: row["findings"] for row in shards.table().to_pylist()}
    assert found == {"part": "glued", "whole": "glued" if decode else ""}


@pytest.mark.parametrize(
    ("wrong", "complaint"),
    [
        ({"thresholds": {"loud": 1}}, "'loud' has none"),
        ({"thresholds": {"clipped": -1}}, "clipped is -1"),
        ({"refuse": ["duplicate"]}, 'where="duplicate_of is None"'),
        ({"refuse": "nothing"}, "no finding is called 'nothing'"),
        ({"decode": False}, "codec='original'"),
        ({"split": "silence"}, "needs split_seconds"),
        ({"split": "words", "split_seconds": 1.0}, "split is 'words'"),
        ({"codec": "opus", "sample_rate": 22_050}, "'opus' cannot be written at 22050"),
        ({"engine": "cluster"}, "engine is 'cluster'"),
    ],
)
def test_wrong_settings_are_told(tmp_path: Path, wrong: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        ss.pack([ss.Utterance("a", "a.wav")], tmp_path / "set", **wrong)  # type: ignore[arg-type]
    assert not (tmp_path / "set").exists()


def test_a_column_of_the_gate_is_no_name_for_metadata(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'findings'"):
        ss.pack([ss.Utterance("a", "a.wav", findings="none")], tmp_path / "set")
