"""Codecs of a set, originals that stay untouched, and recordings cut at their silences."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import soundfile
from tars import files_below

import s3prl_stream as ss
from s3prl_stream.audio.decode import decode as decode_bytes
from s3prl_stream.cli import main

RATE = 16_000


def noise(seconds: float, seed: int, rate: int = RATE) -> np.ndarray:
    return np.random.default_rng(seed).integers(-3000, 3000, int(seconds * rate), dtype=np.int16)


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that fit 16 kHz mono as they are, in all containers, and files that do not."""
    folder = tmp_path_factory.mktemp("mixed")
    for name, options in (
        ("a.flac", {}), ("b.wav", {}), ("c.ogg", {}), ("d.opus", {"format": "OGG", "subtype": "OPUS"}), ("e.mp3", {}),
        ("f.flac", {"subtype": "PCM_24"}), ("g.wav", {"subtype": "FLOAT"}), ("h.aiff", {}),
    ):  # fmt: skip
        soundfile.write(folder / name, noise(1.0, ord(name[0])) / 32768, RATE, **options)
    flac = bytearray((folder / "a.flac").read_bytes())
    flac[26:42] = bytes(16)  # an encoder that left no MD5
    (folder / "k.flac").write_bytes(flac)
    soundfile.write(folder / "i.wav", noise(1.0, 0, 8000), 8000)
    soundfile.write(folder / "j.wav", np.stack([noise(1.0, 1), noise(1.0, 2)], 1), RATE)
    return folder


FITTING = {"a": "flac", "b": "wav", "c": "ogg", "d": "opus", "e": "mp3", "f": "flac", "g": "wav", "k": "flac"}


def members(folder: Path) -> dict[str, bytes]:
    found = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {one.name: tar.extractfile(one).read() for one in tar if not one.name.endswith(".json")}  # type: ignore[union-attr]
    return found


@pytest.mark.parametrize("decode", [True, False])
def test_originals_keep_their_bytes_where_they_fit(mixed: Path, tmp_path: Path, decode: bool) -> None:
    stretch = ss.Utterance("part", mixed / "a.flac", 0.25, 0.75)
    listed = [*ss.corpora.folder(mixed), stretch]
    shards = ss.pack(listed, tmp_path / "set", codec="original", decode=decode)
    packed = members(tmp_path / "set")
    assert set(packed) == {f"{key}.{codec}" for key, codec in FITTING.items()} | {
        f"{key}.flac" for key in ("h", "i", "j", "part")
    }
    for key, codec in FITTING.items():
        (source,) = mixed.glob(f"{key}.*")
        assert packed[f"{key}.{codec}"] == source.read_bytes()
    assert json.loads((tmp_path / "set/manifest.json").read_bytes())["counts"]["reencoded"] == 4
    rows = {row["key"]: row for row in shards.table().to_pylist()}
    for name, data in packed.items():
        wav, rate = decode_bytes(data, name.partition(".")[2])
        row = rows[name.partition(".")[0]]
        assert (len(wav), rate) == (row["frames"], RATE)
        md5 = hashlib.md5(np.ascontiguousarray(wav).astype("<i2")).hexdigest()
        known = decode or row["key"] in ("a", "h", "i", "j", "part")  # a FLAC of 16 bits brings it along
        assert row["pcm_hash"] == (md5[:16] if known else None)
    assert (rows["b"]["silent_share"] is None) == (not decode)
    twins = {key: row["duplicate_of"] for key, row in rows.items() if row["duplicate_of"] is not None}
    assert twins == ({"k": "a"} if decode else {})
    assert ss.verify(tmp_path / "set", full=True).is_sound
    batch = next(iter(ss.Loader(ss.ShardStream(shards, max_batch_seconds=60.0).load_audio())))
    assert sorted(batch["key"]) == sorted(rows)


def test_the_command_line_says_what_was_reencoded(
    mixed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["pack", "folder", str(mixed), str(tmp_path / "set"), "--codec", "original", "--trust-headers"]
    assert main([*words, "--workers", "0"]) == 0
    assert "do not fit as they are: 3\n" in capsys.readouterr().out


def test_damage_in_an_original_is_noticed_when_it_is_decoded(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.flac", noise(2.0, 0), RATE)
    soundfile.write(tmp_path / "b.flac", noise(2.0, 1), RATE)
    data = bytearray((tmp_path / "a.flac").read_bytes())
    data[len(data) // 2] ^= 0x40
    (tmp_path / "a.flac").write_bytes(data)
    shards = ss.pack(ss.corpora.folder(tmp_path), tmp_path / "out", codec="original")
    assert shards.table().column("key").to_pylist() == ["b"]
    words = ["pack", "folder", str(tmp_path), str(tmp_path / "trusted"), "--codec", "original", "--workers", "0"]
    assert main([*words, "--trust-headers"]) == 0
    assert sorted(ss.open_shards(tmp_path / "trusted").table().column("key").to_pylist()) == ["a", "b"]


@pytest.mark.parametrize("codec", ["flac", "wav", "opus"])
def test_a_set_of_each_codec_streams_verifies_and_repeats(mixed: Path, tmp_path: Path, codec: str) -> None:
    listed = [ss.Utterance(key, next(mixed.glob(f"{key}.*"))) for key in "abci"]
    for name in ("one", "two"):
        ss.pack(listed, tmp_path / name / "set", codec=codec)
    assert files_below(tmp_path / "one/set") == files_below(tmp_path / "two/set")
    assert ss.verify(tmp_path / "one/set", full=True).is_sound
    shards = ss.open_shards(tmp_path / "one/set")
    assert shards.table().column("codec").to_pylist() == [codec] * 4
    (batch,) = ss.Loader(ss.ShardStream(shards, max_batch_seconds=60.0, epochs=1).load_audio())
    assert batch["wav_len"].tolist() == [RATE] * 4


def test_a_recording_is_cut_in_its_silences_and_nothing_is_lost(tmp_path: Path) -> None:
    words = [noise(1.5, 0), np.zeros(8000, np.int16), noise(2.0, 1), np.zeros(4000, np.int16), noise(1.0, 2)]
    wav = np.concatenate(words)
    soundfile.write(tmp_path / "long.flac", np.stack([np.zeros_like(wav), wav], 1), RATE)
    soundfile.write(tmp_path / "hum.flac", noise(4.0, 3), RATE)  # no silence: equal pieces
    (tmp_path / "broken.flac").write_bytes((tmp_path / "hum.flac").read_bytes()[:30_000])
    segments = [{"start": 0.0, "end": 1.5, "label": "a"}, {"start": 2.0, "end": 4.0, "label": "b"}]
    listed = [
        ss.Utterance("long", tmp_path / "long.flac", segments=segments),
        ss.Utterance("hum", tmp_path / "hum.flac"),
        ss.Utterance("broken", tmp_path / "broken.flac"),
    ]
    out = tmp_path / "set"
    shards = ss.pack(listed, out, channel=1, split_seconds=3.0, split="silence")
    assert "channel" in (out / "left_out.jsonl").read_text()  # hum has one channel
    shards = ss.pack(listed[:1], tmp_path / "two", channel=1, split_seconds=3.0, split="silence")
    rows = sorted(shards.table().to_pylist(), key=lambda row: row["key"])
    assert [row["first_second"] for row in rows] == pytest.approx([0.0, 1.75, 4.125], abs=0.02)
    pieces = members(tmp_path / "two")
    found = np.concatenate([soundfile.read(io.BytesIO(pieces[f"{row['key']}.flac"]), dtype="int16")[0] for row in rows])
    np.testing.assert_array_equal(found, wav)
    absent = ss.Utterance("absent", tmp_path / "absent.flac")
    mono = ss.pack([*listed[1:], absent], tmp_path / "mono", split_seconds=3.0, split="silence")
    assert sorted(mono.table().column("seconds").to_pylist()) == [2.0, 2.0]
    lines = map(json.loads, (tmp_path / "mono/left_out.jsonl").read_bytes().splitlines())
    assert [(line["key"], line["reason"]) for line in lines] == [("broken", "decode"), ("absent", "missing")]
