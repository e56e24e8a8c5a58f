"""What a corpus may list: odd names and values are packed or refused with their utterance named, never a bare error."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

import s3prl_stream as ss
from s3prl_stream import Utterance
from s3prl_stream.cli import main
from s3prl_stream.errors import StreamError, UsageError
from s3prl_stream.packing.listing import list_utterances
from s3prl_stream.packing.pack import PackReport, pack_set
from s3prl_stream.packing.settings import PackSettings

RATE = 16_000


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A second of noise."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, np.random.default_rng(0).integers(-3000, 3000, RATE, dtype=np.int16), RATE)
    return path


def packed(corpus: Iterable[Any], out: Path, **settings: Any) -> PackReport:
    """The report of a set in which nothing is wrong."""
    report = pack_set(corpus, out, PackSettings(**settings))
    assert ss.verify(out, full=True).findings == []
    return report


def nested(depth: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(depth):
        value = [value]
    return value


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "surrogate": ({"text": "half \ud83d"}, r"'a': its field 'text' holds half a character"),
    "not a number": ({"speaker": "x", "snr": float("nan")}, r"'a': its field 'snr' does not fit into JSON"),
    "an array": ({"vector": np.zeros(2)}, r"'a': its field 'vector' does not fit into JSON"),
    "too deep": ({"tree": nested(100_000)}, r"'a': its field 'tree' does not fit into JSON"),
    "a bomb": ({"text": "x" * (17 << 20)}, r"'a': its field 'text' does not fit into JSON: 17825803 bytes of it"),
    "start, end": (
        {"start": 0.5, "end": 1},
        r"'start' and 'end' would be metadata .* is start_seconds and end_seconds",
    ),
    "start, duration": ({"start": 0.5, "duration": 1}, r"'start' and 'duration' would be metadata"),
    "start": ({"start_seconds": float("nan")}, r"'a': nan is no time in seconds"),
    "end": ({"end_seconds": float("inf")}, r"'a': inf is no time in seconds"),
    "key": ({"key": 5}, r"lists Utterance\(key=5, .*expected an Utterance whose key is a str"),
    "no key": ({"key": ""}, r"clip\.wav: the utterance's key is empty"),
    "path": ({"audio": "\ud800.wav"}, r"'a': '\\ud800\.wav' can be the path of no file"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_no_set_can_hold_is_refused_with_its_utterance(case: str, clip: Path, tmp_path: Path) -> None:
    values, message = REFUSED[case]
    with pytest.raises(UsageError, match=message):
        ss.pack([Utterance(**{"key": "a", "audio": clip, **values})], tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize("corpus", ["recordings", Path("recordings")])
def test_a_folder_is_no_corpus(corpus: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"'recordings' is no corpus.*corpora\.folder\('recordings'\)"):
        ss.pack(corpus, tmp_path / "set")


def test_the_digest_of_a_list_is_of_all_that_it_says(tmp_path: Path) -> None:
    """By it a pack knows the plan that lies there for its own."""
    lists = [
        Utterance(*what, **metadata)  # type: ignore[arg-type]
        for what, metadata in (
            (("k", "a.wav", 0.0, 1.0), {}), (("l", "a.wav", 0.0, 1.0), {}), (("k", "b.wav", 0.0, 1.0), {}),
            (("k", "a.wav", 0.5, 1.0), {}), (("k", "a.wav", 0.0, 0.5), {}), (("k", "a.wav", None, 1.0), {}),
            (("k", "a.wav", 0.0, 1.0), {"text": "x"}),
        )
    ]  # fmt: skip
    digests = [list_utterances([one], tmp_path / "list", lambda done: None).digest for one in lists]
    assert len(set(digests)) == len(lists)


def test_odd_keys_and_metadata_come_back_as_they_were(clip: Path, tmp_path: Path) -> None:
    corpus = [
        Utterance("a", clip, self="x", huge=2**70, mixed=1, **{"": 1, "a.b": "dot", "keep": True}),
        Utterance("A", clip, self=None, huge=-(2**63), mixed="y", tree={"b": [None, {"c": 1.5}]}),
        Utterance("\u00fc" * 200, clip, huge=1, mixed=[1], tree=[]),
        Utterance("\u00fc" * 200 + "!", clip, mixed=0.5),
        Utterance("caf\udce9", clip),
    ]
    report = packed(corpus, tmp_path / "set")
    assert report.manifest["counts"]["samples"] == len(corpus)
    stream = ss.ShardStream(tmp_path / "set", shuffle=False, epochs=1)
    found = {sample["key"]: sample for sample in stream}
    assert len(found) == len(corpus)
    for utterance in corpus[:2]:
        assert {name: found[utterance.key][name] for name in utterance.metadata} == dict(utterance.metadata)
    table = ss.open_shards(tmp_path / "set").table().to_pylist()
    rows = {row["key"]: row for row in table}
    assert (rows["a"]["huge"], rows["a"]["mixed"], rows["a"]["a.b"]) == (str(2**70), "1", "dot")
    repaired = ss.repair(tmp_path / "set", tmp_path / "again")
    assert (repaired.num_lost, repaired.samples) == (0, len(corpus))


def test_a_file_whose_name_is_not_utf8_is_packed_or_listed_like_any_other(
    clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "recordings"
    folder.mkdir()
    sound, text = (os.fsdecode(os.fsencode(folder) + name) for name in (b"/caf\xe9.wav", b"/th\xe9.wav"))
    os.link(clip, sound)
    Path(text).write_text("no sound")
    words = ["pack", "folder", str(folder), str(tmp_path / "set"), "--workers", "0"]
    assert main(words) == 1
    assert "th\\udce9.wav: " in capsys.readouterr().out
    shards = ss.open_shards(tmp_path / "set")
    assert shards.table()["key"].to_pylist() == ["caf%ED%B3%A9"]
    assert '"key": "th%ED%B3%A9"' in (tmp_path / "set/left_out.jsonl").read_text("utf-8")
    assert main([*words, "--json"]) == 1
    assert main(["verify", str(tmp_path / "set"), "--full", "--workers", "0"]) == 0


def test_folders_whose_names_are_not_utf8(clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The corpus is named in manifests; a set cannot lie there, because Arrow opens files by UTF-8."""
    folder, odd = (os.fsdecode(os.fsencode(tmp_path) + name) for name in (b"/caf\xe9", b"/s\xe9t"))
    os.mkdir(folder)
    os.link(clip, f"{folder}/a.wav")
    out = tmp_path / "set"
    assert main(["pack", "folder", folder, str(out), "--workers", "0"]) == 0
    ss.repair(out, tmp_path / "again")
    ss.subset(out, tmp_path / "part", where="seconds > 0")
    for one in ("set", "again", "part"):
        assert ss.open_shards(tmp_path / one).members[0].manifest["corpus"] == "folder caf\udce9"  # type: ignore[attr-defined]
    capsys.readouterr()
    for words in (
        ["pack", "folder", folder, odd],
        ["repair", str(out), odd],
        ["subset", str(out), odd, "--subset", "1%"],
    ):
        assert main([*words, "--workers", "0"]) == 2
        assert "a set cannot lie in a folder whose name is not UTF-8" in capsys.readouterr().err
    assert not Path(odd).exists()


def test_a_set_at_a_link_that_leads_nowhere(clip: Path, tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(StreamError, match=r"loop: cannot be written"):
        ss.pack([Utterance("a", clip)], tmp_path / "loop")


def test_shards_of_next_to_nothing_hold_a_clip_each(clip: Path, tmp_path: Path) -> None:
    report = packed([Utterance(f"{n}", clip) for n in range(4)], tmp_path / "set", shard_mb=1e-300)
    assert [shard["samples"] for shard in report.manifest["shards"]] == [1] * 4


def test_what_cannot_be_opened_costs_itself(clip: Path, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.wav")
    (tmp_path / "samples.raw").write_bytes(bytes(1000))
    (tmp_path / "loop.wav").symlink_to("loop.wav")
    names = ["clip.wav", "pipe.wav", "samples.raw", "loop.wav", ".", "zero\0.wav", "x" * 5000]
    report = packed([Utterance(str(n), tmp_path / name) for n, name in enumerate(names)], tmp_path / "set")
    assert [(one.key, one.reason) for one in report.damaged] == [
        ("1", "unreadable"), ("2", "decode"), ("3", "unreadable"), ("4", "unreadable"), ("5", "missing"),
        ("6", "unreadable"),
    ]  # fmt: skip


@pytest.mark.parametrize("segments", ["0 1 ada", [{"begin": 0}], [{"start": "0", "end": "1"}]])
def test_segments_that_cannot_be_cut_are_refused_where_they_would_be(segments: Any, clip: Path, tmp_path: Path) -> None:
    corpus = [Utterance("a", clip, segments=segments), Utterance("b", clip, segments=None)]
    assert packed(corpus, tmp_path / "whole").manifest["counts"]["samples"] == 2
    with pytest.raises(UsageError, match=r"utterance 'a': its segments are .*they cannot be cut"):
        pack_set(corpus, tmp_path / "cut", PackSettings(split_seconds=0.5))
    assert packed(corpus[1:], tmp_path / "none", split_seconds=0.5).manifest["counts"]["samples"] == 2


def test_an_mp3_that_does_not_say_its_length_is_packed_to_its_end(tmp_path: Path) -> None:
    wav = np.zeros(8 * RATE)
    wav[:RATE] = np.random.default_rng(0).normal(scale=0.2, size=RATE)
    path = tmp_path / "a.mp3"
    soundfile.write(path, wav, RATE, format="MP3", bitrate_mode="VARIABLE", compression_level=0.5)
    data = path.read_bytes()
    path.write_bytes(data[data.index(b"\xff", 4) :])
    corpus = [Utterance("a", path), Utterance("late", path, 6.0, 7.5)]
    for codec, decode in (("flac", True), ("original", True), ("original", False)):
        out = tmp_path / f"{codec}-{decode}"
        report = packed(corpus, out, codec=codec, decode=decode)
        assert report.left_out == []
        seconds = {row["key"]: row["seconds"] for row in ss.open_shards(out).table().to_pylist()}
        assert 8.0 <= seconds["a"] < 8.0 + 4 * 1152 / RATE
        assert seconds["late"] == 1.5


@pytest.mark.parametrize("how", [{"codec": "flac"}, {"codec": "original"}, {"codec": "original", "decode": False}])
def test_a_channel_that_is_not_there_is_not_taken_from_another(how: Any, clip: Path, tmp_path: Path) -> None:
    flac, both = tmp_path / "clip.flac", tmp_path / "both.wav"
    wav = soundfile.read(clip, dtype="int16")[0]
    soundfile.write(flac, wav, RATE)
    soundfile.write(both, np.stack([wav, wav], axis=1), RATE)
    corpus = [Utterance("wav", clip), Utterance("flac", flac), Utterance("both", both)]
    report = packed(corpus, tmp_path / "set", channel=1, **how)
    assert [(one.key, one.reason) for one in report.damaged] == [("wav", "channel"), ("flac", "channel")]


@pytest.mark.parametrize(("rate", "codec"), [(65_536, "flac"), (96_001, "original")])
def test_a_rate_that_flac_does_not_know_is_refused(rate: int, codec: str) -> None:
    with pytest.raises(UsageError, match=rf"'flac' cannot be written at {rate} Hz.*multiple of 10"):
        PackSettings(codec=codec, sample_rate=rate)
    assert PackSettings(codec="wav", sample_rate=rate).sample_rate == rate


@pytest.mark.parametrize("rate", [65_535, 65_540])
def test_rates_of_flac(rate: int, clip: Path, tmp_path: Path) -> None:
    packed([Utterance("a", clip)], tmp_path / "set", sample_rate=rate)
    assert ss.open_shards(tmp_path / "set").table()["sample_rate"].to_pylist() == [rate]


def test_pieces_of_one_frame_are_not_followed_by_an_empty_one(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, np.random.default_rng(0).integers(-3000, 3000, 3200, dtype=np.int16), RATE)
    report = packed([Utterance("a", path)], tmp_path / "set", split_seconds=0.01, split="silence")
    assert (report.manifest["counts"]["samples"], report.left_out) == (20, [])
