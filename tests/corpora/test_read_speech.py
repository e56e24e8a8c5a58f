"""Libri-light, LJSpeech and folders with RTTM. Names and texts matter here; most files are empty."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from corpora import layouts
from corpora.trees import column, listed, tree
from hypothesis import given
from hypothesis import strategies as st

from s3prl_stream import corpora
from s3prl_stream.corpora.librilight import grouped
from s3prl_stream.errors import UsageError


@pytest.fixture
def light(tmp_path: Path) -> Path:
    return layouts.librilight(tmp_path)


def test_librilight_lists_recordings_with_their_voice_activity(light: Path) -> None:
    found = listed(corpora.librilight(light, split="small"))
    one, two = found["960/a_book_64kb_mp3/one_64kb"], found["960/a_book_64kb_mp3/two_64kb"]
    assert one.metadata["segments"][2] == {"start": 15.0, "end": 40.0, "label": "speech"}
    assert {**one.metadata, "segments": 0} == {
        "speaker": "960", "book": "a_book_64kb_mp3", "split": "small", "title": "A b", "genre": "Poetry", "snr": 5.5,
        "segments": 0,
    }  # fmt: skip
    assert two.metadata == {"speaker": "960", "book": "a_book_64kb_mp3", "split": "small", "segments": []}


def test_librilight_cuts_where_nobody_speaks(light: Path) -> None:
    found = listed(corpora.librilight(light, split="small", voice_seconds=15))
    stretches = [(one.start_seconds, one.end_seconds) for one in found.values()]
    assert stretches == [(0.5, 14.0), (15.0, 40.0), (41.0, 42.0)]  # 25 s without a pause stay whole
    assert next(iter(found)) == "960/a_book_64kb_mp3/one_64kb-0000"
    with pytest.raises(UsageError, match="voice_seconds is 0"):
        corpora.librilight(light, split="small", voice_seconds=0)


def test_stretches_as_long_as_asked_are_one() -> None:
    assert list(grouped([(0, 5), (6, 10)], 10)) == [(0, 10)]
    assert list(grouped([(0, 5), (6, 10)], 9)) == [(0, 5), (6, 10)]


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 20)), max_size=30), st.integers(1, 60))
def test_stretches_are_joined_up_to_a_length_and_none_is_lost(pairs: list[tuple[int, int]], longest: int) -> None:
    voice, now = [], 0
    for pause, spoken in pairs:
        voice.append((now + pause, now + pause + spoken))
        now += pause + spoken
    joined = list(grouped(voice, longest))
    assert all(end <= start for (_, end), (start, _) in itertools.pairwise(joined))
    inside = [[one for one in voice if first <= one[0] and one[1] <= last] for first, last in joined]
    assert [one for some in inside for one in some] == voice
    for (first, last), some in zip(joined, inside, strict=True):
        assert (first, last) == (some[0][0], some[-1][1])
        assert len(some) == 1 or last - first <= longest


def test_librilight_with_supervision_is_nested(light: Path) -> None:
    ten_minutes, hour, ten_hours = (listed(corpora.librilight(light, split=s)) for s in ("10min-0", "1h", "10h"))
    assert list(ten_minutes) == ["10-7-0001", "20-7-0001"]
    assert (len(hour), len(ten_hours)) == (12, 14)
    assert ten_minutes.keys() < hour.keys() < ten_hours.keys()
    assert ten_minutes["10-7-0001"].metadata == {
        "speaker": "10", "chapter": "7", "gender": "F", "text": "ONE TWO", "split": "10min-0", "part": "clean",
    }  # fmt: skip
    assert column(ten_hours, "part")["31-7-0001"] == "other"


def test_librilight_says_what_is_missing(light: Path) -> None:
    with pytest.raises(UsageError, match=r"no split 'large'. It has: small, 1h, 10h, 10min-0"):
        corpora.librilight(light, split="large")
    with pytest.raises(UsageError, match="several splits"):
        corpora.librilight(light)
    shutil.rmtree(light / "9h")
    with pytest.raises(UsageError, match=r"no split '10h'. It has: small, 1h, 10min-0"):
        corpora.librilight(light, split="10h")
    with pytest.raises(UsageError, match="no split in here, such as small"):
        corpora.librilight(light / "phones")
    (light / "small/960/a_book_64kb_mp3/one_64kb.json").write_text('{"speaker": "960"}')
    with pytest.raises(UsageError, match=r"one_64kb\.json: not a description of Libri-light .*voice_activity"):
        list(corpora.librilight(light, split="small"))
    (light / "small/960/a_book_64kb_mp3/one_64kb.json").unlink()
    with pytest.raises(UsageError, match=r"one_64kb\.json: no such file"):
        list(corpora.librilight(light, split="small"))


def test_ljspeech_reads_both_texts_and_keeps_quotation_marks(tmp_path: Path) -> None:
    root = layouts.ljspeech(tmp_path)
    with (root / "metadata.csv").open("a") as table:
        table.write("LJ1-3|gone|gone\n")
    found = listed(corpora.ljspeech(root))
    assert column(found, "text") == {"LJ1-1": 'He said "1 at".', "LJ1-2": "Dr. No", "LJ1-3": "gone"}
    assert column(found, "normalized_text")["LJ1-2"] == "Doctor No"
    assert found["LJ1-2"].audio.endswith("LJ1-2.flac")
    assert found["LJ1-3"].audio.endswith("wavs/LJ1-3.wav")  # not there: packing says so
    (root / "metadata.csv").write_text("LJ1-1|path|x\n" + (root / "metadata.csv").read_text().partition("\n")[2])
    assert len(listed(corpora.ljspeech(root))) == 3  # its first line is no header, whatever the text is
    tree(root, "wavs/LJ9-9.WAV")
    with pytest.raises(UsageError, match=r"no row for 1 of the 3 files in wavs/, the first is LJ9-9\.WAV"):
        list(corpora.ljspeech(root))
    (root / "metadata.csv").write_text("LJ1-1|a|b|c\n")
    with pytest.raises(UsageError, match="4 cells for 3 columns"):
        list(corpora.ljspeech(root))
    tree(root, "wavs/LJ1-1.flac")
    with pytest.raises(UsageError, match="have one name"):
        corpora.ljspeech(root)


RTTM = "SPKR-INFO a 1 <NA> <NA> <NA> unknown anna <NA>\nSPEAKER {} 1 {} 1.5 <NA> <NA> {} <NA> <NA>\n"


def test_rttm_finds_recordings_by_name_and_without_accents(tmp_path: Path) -> None:
    turns = RTTM.format("b/x", 3, "anna").replace("b/x", "tren") + RTTM.format("tren", 1.2, "bo\u00e9")
    root = tree(tmp_path, {"x.rttm": turns, "y.uem": "tren NA 0 9", "sub/tr\u00e9n.wav": "", "quiet.flac": ""})
    found = listed(corpora.rttm(root))
    assert list(found) == ["quiet", "sub/tr\u00e9n"]
    assert found["quiet"].metadata == {"recording": "quiet", "segments": [], "num_speakers": 0}
    assert found["sub/tr\u00e9n"].metadata == {
        "recording": "tren",
        "num_speakers": 2,
        "segments": [{"start": 1.2, "end": 2.7, "label": "bo\u00e9"}, {"start": 3.0, "end": 4.5, "label": "anna"}],
    }
    files = corpora.rttm(root).files
    assert files == {"reference.rttm": turns.encode(), "reference.uem": b"tren NA 0 9\n"}


def test_turns_are_in_the_order_of_time_to_the_microsecond(tmp_path: Path) -> None:
    turns = "".join(RTTM.format("a", start, who) for start, who in ((2, "b"), (2, "a"), ("1.0000004", "c")))
    longer = "SPEAKER a 1 2 1 <NA> <NA> z <NA> <NA>\n"
    (found,) = corpora.rttm(tree(tmp_path, {"x.rttm": turns + longer, "a.wav": ""}))
    assert [(one["start"], one["end"], one["label"]) for one in found.metadata["segments"]] == [
        (1.0, 2.5, "c"), (2.0, 3.0, "z"), (2.0, 3.5, "a"), (2.0, 3.5, "b")
    ]  # fmt: skip


def test_rttm_does_not_guess_between_two_files_and_lists_missing_ones(tmp_path: Path) -> None:
    turns = RTTM.format("tren", 1, "a") + RTTM.format("gone", 1, "a")
    root = tree(tmp_path, {"x.rttm": turns, "tr\u00e9n.wav": "", "tr\u00e8n.wav": ""})
    found = listed(corpora.rttm(root))
    assert column(found, "num_speakers") == {"tr\u00e9n": 0, "tr\u00e8n": 0, "tren": 1, "gone": 1}
    assert not Path(found["gone"].audio).exists()
    (root / "y.rttm").write_text(RTTM.format("tr\u00e9n", 1, "b"))
    (root / "tr\u00e8n.wav").unlink()
    found = listed(corpora.rttm(root))
    assert column(found, "recording") == {"tr\u00e9n": "tr\u00e9n", "tren": "tren", "gone": "gone"}  # the name as it is
    assert [one["label"] for one in found["tr\u00e9n"].metadata["segments"]] == ["b"]
    (root / "y.rttm").unlink()
    tree(root, {"a/tren.wav": "", "b/tren.wav": ""})
    with pytest.raises(UsageError, match="recording 'tren' of the RTTM fits several files, one is b/tren"):
        list(corpora.rttm(root))


def test_rttm_takes_splits_from_several_files_and_refuses_one_recording_twice(tmp_path: Path) -> None:
    train, test = (RTTM.format(a, 1, "s") + RTTM.format(b, 1, "s") for a, b in (("a", "b"), ("c", "d")))
    root = tree(tmp_path, {"x.train.rttm": train, "x.test.rttm": test, "e.wav": "", "a.wav": "", "c.wav": ""})
    assert column(listed(corpora.rttm(root)), "split") == {
        "a": "train", "b": "train", "c": "test", "d": "test", "e": None
    }  # fmt: skip
    tree(root, {"more/y.rttm": RTTM.format("a", 1, "s")})
    with pytest.raises(UsageError, match="stands in another RTTM file"):
        corpora.rttm(root)
    assert "split" not in listed(corpora.rttm(root, rttm=root / "x.train.rttm"))["a"].metadata
    tree(root, {"more/y.rttm": RTTM.format("e", 1, "s")})  # one recording: perhaps a file for each
    assert not [key for key, split in column(listed(corpora.rttm(root)), "split").items() if split]


@pytest.mark.parametrize(
    ("turns", "complaint"),
    [
        ("SPEAKER a 1 1.0 0.5\n", r"line 1: 'SPEAKER a 1 1\.0 0\.5' is not TYPE RECORDING"),
        ("SPEAKER a 1 x 0.5 <NA> <NA> s\n", "line 1: START is 'x', expected 0 or more seconds"),
        ("SPEAKER a 1 1 -2 <NA> <NA> s\n", "line 1: DURATION is '-2', expected 0 or more"),
        ("SPEAKER a 1 1 inf <NA> <NA> s\n", "line 1: DURATION is 'inf', expected 0 or more"),
        ("SPEAKER a 1 nan 2 <NA> <NA> s\n", "line 1: START is 'nan', expected 0 or more"),
        (b"\xff\xfe", "line 1: not UTF-8"),
    ],
)
def test_rttm_mistakes_are_named_by_line(tmp_path: Path, turns: str | bytes, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        corpora.rttm(tree(tmp_path, {"x.rttm": turns, "a.wav": ""}))
