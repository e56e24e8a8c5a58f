"""`subset`: a part of a set written out as a set, with the bytes of its samples untouched."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from tars import files_below

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import UsageError
from s3prl_stream.shards.shardset import ShardSet

MINUTE = 60.0


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """300 clips of 0.2 to 1.2 s by three speakers in about ten shards, with trials."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "audio").mkdir()
    rng = np.random.default_rng(0)
    for number in range(300):
        wav = rng.integers(-3000, 3000, rng.integers(1600, 9600), dtype=np.int16)
        soundfile.write(folder / f"audio/{'abc'[number % 3]}-{number}.wav", wav, 8000)
    corpus = ss.corpora.WithFiles(ss.corpora.folder(folder / "audio", "{speaker}-{take}"), {"trials.txt": b"1 a b\n"})
    ss.pack(corpus, folder / "set", sample_rate=8000, shard_mb=0.3, seed=3, licence="CC0")
    return folder / "set"


def keys(shards: ShardSet) -> set[str]:
    return set(shards.table().column("key").to_pylist())


def samples(folder: Path) -> dict[str, bytes]:
    """Key -> all bytes of the sample, headers and padding too."""
    rows = ss.open_shards(folder).table().select(["key", "shard", "offset", "size"]).to_pylist()
    return {
        row["key"]: (folder / row["shard"]).read_bytes()[row["offset"] : row["offset"] + row["size"]] for row in rows
    }


def test_one_minute_lies_inside_two_and_is_what_a_stream_reads(whole: Path, tmp_path: Path) -> None:
    one, two = (ss.subset(whole, tmp_path / f"{n}", f"{n}min") for n in (1, 2))
    assert keys(one) < keys(two) < keys(ss.open_shards(whole))
    assert one.hours * 3600 == pytest.approx(MINUTE, abs=1.3)
    assert two.hours * 3600 == pytest.approx(2 * MINUTE, abs=1.3)
    stream = ss.ShardStream(whole, subset="1min", epochs=1, max_batch_seconds=20.0).load_audio()
    assert {sample["key"] for sample in stream} == keys(one)
    again = ss.subset(two, tmp_path / "of_two", "1min")
    assert keys(again) == keys(one)
    assert again.fingerprint == one.fingerprint


def test_bytes_are_copied_and_the_set_is_sound(whole: Path, tmp_path: Path) -> None:
    part = ss.subset(whole, tmp_path / "part", "50%", where="speaker != 'c'", shard_mb=0.45)
    assert part.num_shards > 1
    assert ss.verify(tmp_path / "part", full=True).is_sound
    before, after = samples(whole), samples(tmp_path / "part")
    assert after == {key: before[key] for key in after}
    assert part.extra_file("trials.txt") == b"1 a b\n"
    table = part.table()
    assert set(table.column("speaker").to_pylist()) == {"a", "b"}
    assert list(part.columns()) == list(ss.open_shards(whole).columns())
    manifest = json.loads((tmp_path / "part/manifest.json").read_bytes())
    origin = ss.open_shards(whole).members[0]
    assert manifest["subset_of"] == {
        "name": "set", "fingerprint": origin.fingerprint, "subset": "50%", "where": "speaker != 'c'"
    }  # fmt: skip
    packed = json.loads((whole / "manifest.json").read_bytes())
    assert {name: manifest[name] for name in ("packing", "corpus", "licence", "libraries")} == {
        name: packed[name] for name in ("packing", "corpus", "licence", "libraries")
    }
    # runs of 16 neighbours of like duration, as in a packed shard
    seconds = np.array(table.column("seconds").to_pylist()[: part.shard_samples[0]])
    runs = seconds[: len(seconds) // 16 * 16].reshape(-1, 16)
    assert len(runs) > 1
    assert np.ptp(runs, axis=1).mean() < 0.7 * np.ptp(seconds)


def test_a_subset_of_all_is_the_set_that_was_packed(whole: Path, tmp_path: Path) -> None:
    """The same seed and wanted size: the same shards, but that sizes are now known and not estimated."""
    assert ss.subset(whole, tmp_path / "all", where="seconds > 0").num_shards > 1
    for folder, mb in ((whole, 0.3), (tmp_path / "all", 512)):
        ss.subset(folder, tmp_path / f"one-{mb}", where="seconds > 0", shard_mb=512)
    ss.pack(ss.corpora.folder(whole.parent / "audio", "{speaker}-{take}"), tmp_path / "set", sample_rate=8000, seed=3)
    tars = [tmp_path / name / "set-000000.tar" for name in ("set", "one-0.3", "one-512")]
    assert tars[0].read_bytes() == tars[1].read_bytes() == tars[2].read_bytes()


def test_workers_do_not_change_a_byte(whole: Path, tmp_path: Path) -> None:
    for workers in (0, 2):  # processes
        ss.subset(whole, tmp_path / f"{workers}", "1min", shard_mb=0.2, num_workers=workers)
    files = files_below(tmp_path / "0")
    assert len(files) > 9
    assert files == files_below(tmp_path / "2")


def test_a_balanced_amount(whole: Path, tmp_path: Path) -> None:
    part = ss.subset(whole, tmp_path / "part", "30s by speaker", name="small")
    assert part.name == "small"
    rows = part.table().to_pylist()
    seconds = {who: sum(row["seconds"] for row in rows if row["speaker"] == who) for who in "abc"}
    assert all(amount == pytest.approx(10.0, abs=1.3) for amount in seconds.values())


def test_damage_costs_the_sample_and_is_told(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(whole, tmp_path / "damaged")
    row = ss.open_shards(whole).table().select(["key", "shard", "offset", "size"]).slice(5, 1).to_pylist()[0]
    with (tmp_path / "damaged" / row["shard"]).open("r+b") as file:
        file.seek(row["offset"] + 700)
        file.write(b"\xff\x00\xff")
    command = ["subset", str(tmp_path / "damaged"), str(tmp_path / "part"), "--subset", "100%", "--workers", "0"]
    assert main(command) == 1
    out = capsys.readouterr().out
    assert "299 samples" in out
    assert f"{row['key']} at byte {row['offset']}" in out
    (line,) = (tmp_path / "part/left_out.jsonl").read_text().splitlines()
    assert json.loads(line)["key"] == row["key"]
    assert ss.verify(tmp_path / "part", full=True).is_sound


def test_the_command_says_what_it_wrote(whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["subset", str(whole), str(tmp_path / "part"), "--where", "speaker == 'a'", "--workers", "0", "--json"]
    assert main(command) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["samples"], report["damaged"]) == (100, [])
    assert main(["inspect", str(tmp_path / "part")]) == 0
    assert "100 samples" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({}, "say what of the set"),
        ({"subset": "ten hours"}, "is no amount"),
        ({"where": "speaker == 'nobody'"}, "selects none"),
        ({"where": "nothing == 1"}, "nothing"),
        ({"subset": "1min", "name": "a b"}, "name is 'a b'"),
        ({"subset": "1min", "shard_mb": 0}, "shard_mb is 0"),
        ({"subset": "1min", "shard_mb": "x"}, "shard_mb: 'x' is not"),
        ({"subset": "1min", "num_workers": -1}, "num_workers is -1"),
        ({"subset": "1min", "out": "SET"}, "holds a set"),
        ({"subset": "1min", "out": "OTHER"}, "holds other files"),
        ({"subset": "1min", "shards": "TWO"}, "a subset is of one packed set"),
        ({"subset": "1min", "shards": "ABSENT"}, "no shard set here"),
        ({"subset": "1min", "shards": "INDEXED"}, "tars made elsewhere, indexed where they lie"),
    ],
)
def test_mistakes(whole: Path, sample_set: Path, tmp_path: Path, arguments: dict[str, Any], complaint: str) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other/notes.txt").touch()
    places = {"SET": whole, "OTHER": tmp_path / "other", "ABSENT": tmp_path / "absent"}
    if arguments.get("shards") == "INDEXED":
        places["INDEXED"] = tmp_path / "index"
        ss.index_shards(next(whole.glob("*.tar")), tmp_path / "index")
    if arguments.get("shards") == "TWO":
        arguments = {**arguments, "shards": ss.open_shards([whole, sample_set])}
    given = {name: places.get(value, value) if isinstance(value, str) else value for name, value in arguments.items()}
    with pytest.raises(UsageError) as error:
        ss.subset(**{"shards": whole, "out": tmp_path / "out", **given})
    assert complaint in str(error.value)
    assert not (tmp_path / "out/manifest.json").exists()
