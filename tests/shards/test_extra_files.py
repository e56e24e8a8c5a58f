"""Small files that a corpus sends along with a set."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import ShardError, UsageError

TRIALS = b"1 a b\n0 a c\n"


def corpus(folder: Path, **files: bytes) -> ss.corpora.WithFiles:
    return ss.corpora.WithFiles(
        ss.corpora.folder(folder), {name.replace("_", "."): content for name, content in files.items()}
    )


@pytest.fixture
def audio(tmp_path: Path) -> Path:
    (tmp_path / "audio").mkdir()
    for number in range(3):
        wav = np.random.default_rng(number).integers(-99, 99, 4000, dtype=np.int16)
        soundfile.write(tmp_path / f"audio/{number}.wav", wav, 16_000)
    return tmp_path / "audio"


def test_extra_files_go_with_the_set_through_verify_and_repair(
    audio: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "set"
    shards = ss.pack(corpus(audio, trials_txt=TRIALS), out)
    assert shards.extra_file("trials.txt") == (out / "files/trials.txt").read_bytes() == TRIALS
    (entry,) = json.loads((out / "manifest.json").read_bytes())["files"]
    assert (entry["name"], entry["bytes"]) == ("files/trials.txt", len(TRIALS))
    assert ss.verify(out).is_sound
    with pytest.raises(UsageError, match=r"no extra file 'x'. The set has: trials\.txt"):
        shards.extra_file("x")
    ss.repair(out, tmp_path / "repaired")
    assert ss.open_shards(tmp_path / "repaired").extra_file("trials.txt") == TRIALS
    (out / "files/trials.txt").write_bytes(TRIALS.replace(b"1", b"0"))
    assert [(one.file, one.reason) for one in ss.verify(out).findings] == [("files/trials.txt", "extra")]
    with pytest.raises(ShardError, match="SHA-256 differs"):
        ss.open_shards(out).extra_file("trials.txt")
    assert ss.repair(out, tmp_path / "without").files_lost == ["files/trials.txt"]
    assert ss.verify(tmp_path / "without", full=True).is_sound
    assert not (tmp_path / "without/files").exists()
    assert main(["repair", str(out), str(tmp_path / "again"), "--workers", "0"]) == 1
    assert "lost: files/trials.txt" in capsys.readouterr().out
    (out / "manifest.json").unlink()  # and with it what the file was
    assert ss.repair(out, tmp_path / "taken").files_lost == []
    assert ss.open_shards(tmp_path / "taken").extra_file("trials.txt") == (out / "files/trials.txt").read_bytes()


@pytest.mark.parametrize(
    "files",
    [
        5,
        [5],
        [{"name": "files/trials.txt"}],
        [{"name": 5, "sha256": "0"}],
        [{"name": "index/trials.txt", "sha256": hashlib.sha256(TRIALS).hexdigest()}],
        [{"name": "files/../../outside", "sha256": hashlib.sha256(TRIALS).hexdigest()}],
    ],
)
def test_an_entry_that_is_none_is_found_and_leads_nowhere(audio: Path, tmp_path: Path, files: object) -> None:
    out = tmp_path / "a/set"
    ss.pack(corpus(audio, trials_txt=TRIALS), out)
    (tmp_path / "a/outside").write_bytes(TRIALS)
    manifest = json.loads((out / "manifest.json").read_bytes())
    (out / "manifest.json").write_text(json.dumps({**manifest, "files": files}))
    assert [(one.file, one.reason) for one in ss.verify(out, full=True).findings] == [("manifest.json", "extra")]
    with pytest.raises(UsageError, match="no extra file"):
        ss.open_shards(out).extra_file("trials.txt")
    (tmp_path / "b").mkdir()
    ss.repair(out, tmp_path / "b/set")
    assert ss.verify(tmp_path / "b/set", full=True).is_sound
    ss.subset(out, tmp_path / "b/part", where="seconds > 0")
    assert sorted(path.name for path in (tmp_path / "b").iterdir()) == ["part", "set"]


def test_a_finished_set_with_other_extra_files_is_not_this_set(audio: Path, tmp_path: Path) -> None:
    out = tmp_path / "set"
    ss.pack(corpus(audio, trials_txt=TRIALS), out)
    ss.pack(corpus(audio, trials_txt=TRIALS), out)
    with pytest.raises(UsageError, match="other extra files"):
        ss.pack(corpus(audio, trials_txt=b"0 a b\n"), out)
    with pytest.raises(UsageError, match="other extra files"):
        ss.pack(ss.corpora.folder(audio), out)


def test_names_lead_nowhere_else(audio: Path, tmp_path: Path) -> None:
    for name in ("../x", "a/b", ".hidden", ""):
        with pytest.raises(UsageError, match="extra file"):
            ss.pack(ss.corpora.WithFiles(ss.corpora.folder(audio), {name: b""}), tmp_path / "set")
    assert not (tmp_path / "set").exists()
