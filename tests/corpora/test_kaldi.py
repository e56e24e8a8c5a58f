"""Kaldi data directories and LibriMix."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from corpora import layouts
from corpora.trees import column, listed, tree

import s3prl_stream as ss
from s3prl_stream import corpora
from s3prl_stream.errors import UsageError

TURN = "SPEAKER {} 1 {} {} <NA> <NA> {} <NA> <NA>\n"


def test_segments_texts_speakers(tmp_path: Path) -> None:
    root = layouts.kaldi(tmp_path)
    (root / "text").write_text("\ufeff" + (root / "text").read_text())  # as editors leave it
    found = listed(corpora.kaldi(root))
    assert {key: (one.start_seconds, one.end_seconds) for key, one in found.items()} == {
        "anna-1": (0.5, 1.5), "ben-1": (1.25, 3.0), "anna-2": (None, None)
    }  # fmt: skip
    assert found["anna-1"].metadata == {"speaker": "anna", "text": "good day", "language": "en", "gender": "F"}
    assert column(found, "text") == {"anna-1": "good day", "ben-1": "", "anna-2": "\u00fcber  all"}
    assert Path(found["anna-2"].audio).name == "t w\u00f6.wav"


def test_a_stretch_to_the_end_of_its_recording(tmp_path: Path) -> None:
    root = tree(layouts.kaldi(tmp_path), {"segments": "anna-1 rec1 0 1\nben-1 rec1 1 -1\nanna-2 rec2 0 -1\n",
                                          "rttm": TURN.format("rec1", 2, 1, "ben")})  # fmt: skip
    found = listed(corpora.kaldi(root))
    assert {key: (one.start_seconds, one.end_seconds) for key, one in found.items()} == {
        "anna-1": (0, 1), "ben-1": (1, None), "anna-2": (None, None)
    }  # fmt: skip
    assert found["ben-1"].metadata["segments"] == [{"start": 1.0, "end": 2.0, "label": "ben"}]


def test_without_speakers_each_utterance_is_one(tmp_path: Path) -> None:
    root = layouts.kaldi(tmp_path)
    (root / "utt2spk").unlink()
    (root / "spk2gender").write_text("ben-1 m\n")
    assert column(listed(corpora.kaldi(root)), "gender") == {"anna-1": None, "ben-1": "M", "anna-2": None}
    (root / "segments").write_text("ben-1 rec1 1 2\n")
    assert listed(corpora.kaldi(root, recordings=True))["rec1"].metadata["segments"] == [
        {"start": 1.0, "end": 2.0, "label": "ben-1"}
    ]
    (root / "segments").unlink()
    assert column(listed(corpora.kaldi(root, recordings=True)), "num_speakers") == {"rec1": 0, "rec2": 0}


def test_rttm_is_cut_to_the_utterance(tmp_path: Path) -> None:
    turns = TURN.format("rec1", 0, 1, "anna") + TURN.format("rec1", 1.25, 0.5, "ben") + TURN.format("rec1", 3, 1, "ben")
    root = tree(layouts.kaldi(tmp_path), {"rttm": turns})
    found = listed(corpora.kaldi(root))
    assert found["anna-1"].metadata["segments"] == [
        {"start": 0.0, "end": 0.5, "label": "anna"}, {"start": 0.75, "end": 1.0, "label": "ben"}
    ]  # fmt: skip
    assert found["ben-1"].metadata["segments"] == [{"start": 0.0, "end": 0.5, "label": "ben"}]
    assert "segments" not in found["anna-2"].metadata


def test_whole_recordings_with_segments_as_turns(tmp_path: Path) -> None:
    root = layouts.kaldi(tmp_path)
    (root / "segments").write_text("anna-1 rec1 2.5 3.5\nben-1 rec1 1.25 3.0\nanna-2 rec1 0 0.5\n")
    found = listed(corpora.kaldi(root, recordings=True))
    assert column(found, "num_speakers") == {"rec1": 2, "rec2": 0}
    assert found["rec1"].metadata["segments"] == [
        {"start": 0.0, "end": 0.5, "label": "anna"},
        {"start": 1.25, "end": 3.0, "label": "ben"},
        {"start": 2.5, "end": 3.5, "label": "anna"},
    ]
    layouts.kaldi(tmp_path)
    with pytest.raises(UsageError, match="'anna-2' has no end"):
        corpora.kaldi(root, recordings=True)


def test_without_wav_scp_the_folder_wav_is_taken(tmp_path: Path) -> None:
    root = tree(tmp_path, {"wav/a.flac": "", "wav/b.wav": "", "utt2spk": "a x\nb y\n"})
    assert column(listed(corpora.kaldi(root)), "speaker") == {"a": "x", "b": "y"}
    tree(root, {"wav.scp": "a wav/a.flac\nb C:/b:1/b.wav\n"})  # no places in an archive
    assert listed(corpora.kaldi(root))["b"].audio == str(root / "C:/b:1/b.wav")
    elsewhere = tree(tmp_path / "data", {"wav.scp": "a a.flac\n"})
    assert listed(corpora.kaldi(elsewhere, audio_root=root / "wav"))["a"].audio == str(root / "wav/a.flac")


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"text": "anna-1 x\nben-1 y\n"}, "text has no line for 'anna-2' and 0 more; there are 3 utterances"),
        ({"text": "anna-1 x\nben-1 y\nanna-2 z\nq w\n"}, "text has lines for unknown utterances, 'q'"),
        (
            {"text": "anna-1 x\nben-1 y\nanna-2 z\nben-1 q\n"},
            "text, line 4: 'ben-1' stands here for the second time, with another value",
        ),
        ({"utt2spk": "anna-1 anna\n"}, "utt2spk has no line for 'ben-1' and 1 more"),
        ({"segments": "anna-1 rec9 0 1\n"}, "segments, line 1: recording 'rec9' is not in wav.scp"),
        ({"segments": "anna-1 rec1 0\n"}, "segments, line 1: 'anna-1 rec1 0' is not UTTERANCE"),
        ({"segments": "anna-1 rec1 0 1\nanna-1 rec1 1 2\n"}, "line 2: utterance 'anna-1' stands in segments twice"),
        ({"segments": "anna-1 rec1 zero 1\n"}, "line 1: START is 'zero', expected 0 or more seconds"),
        ({"wav.scp": "rec1 a.wav\nrec1 b.wav\n"}, "line 2: recording 'rec1' stands in wav.scp twice"),
        ({"wav.scp": "rec1 raw.ark:1234\n"}, "line 1: 'raw.ark:1234' is a place in an archive"),
        ({"wav.scp": "rec1 C:/raw.ark:1234\n"}, "line 1: 'C:/raw.ark:1234' is a place in an archive"),
        ({"utt2lang": "anna-1 en\n"}, "utt2lang has no line for 'ben-1' and 1 more"),
        ({"wav.scp": "rec1 touch /tmp/x |\n"}, "line 1: 'touch /tmp/x |' is a shell command"),
        ({"wav.scp": ""}, "no recordings in it"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path: Path, files: dict[str, str], complaint: str) -> None:
    root = tree(layouts.kaldi(tmp_path), files)
    with pytest.raises(UsageError) as error:
        list(corpora.kaldi(root))
    assert complaint in str(error.value)


@pytest.mark.parametrize("step", ["unlink", "replace"])
def test_a_command_that_is_cut_short_at_its_last_steps_leaves_nothing(
    step: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    root = tree(tmp_path / "data", {"one.wav": 1})
    (root / "wav.scp").write_text(f"a cat '{root}/one.wav' |\n")
    with monkeypatch.context() as patch:
        patch.setattr(Path, step, killed)
        with pytest.raises(KeyboardInterrupt):
            listed(corpora.kaldi(root, pipes_into=tmp_path / "unpacked"))
    (one,) = listed(corpora.kaldi(root, pipes_into=tmp_path / "unpacked")).values()
    assert [path for path in (tmp_path / "unpacked").rglob("*") if path.is_file()] == [Path(one.audio)]


def test_pipes_are_run_only_where_a_folder_is_given(tmp_path: Path) -> None:
    """A WAV from a pipe says an impossible length; what fails is missing, with what it said; nothing runs twice."""
    root = tree(tmp_path / "data", {"one.wav": 1})
    content = (root / "one.wav").read_bytes()
    position = content.index(b"data") + 4
    unknown = b"\x00\xf0\xff\x7f"
    from_pipe = content[:4] + unknown + content[8:position] + unknown + content[position + 4 :]
    (root / "piped.wav").write_bytes(from_pipe)
    runs, piped, gone = (shlex.quote(f"{root}/{name}") for name in ("runs", "piped.wav", "gone.wav"))
    commands = f"a echo x >> {runs}; cat {piped} |\nb cat {gone} | cat |\nc {root}/one.wav\n"
    (root / "wav.scp").write_text(commands)
    with pytest.raises(UsageError, match="is a shell command"):
        corpora.kaldi(root)
    assert not (root / "runs").exists()
    for _ in range(2):
        found = listed(corpora.kaldi(root, pipes_into=tmp_path / "unpacked"))
    assert (root / "runs").read_text() == "x\n"
    assert Path(found["a"].audio).read_bytes() == content
    assert not Path(found["b"].audio).exists()
    shards = ss.pack(corpora.kaldi(root, pipes_into=tmp_path / "unpacked"), tmp_path / "set", sample_rate=8000)
    assert sorted(shards.table().column("key").to_pylist()) == ["a", "c"]
    (left_out,) = map(json.loads, (tmp_path / "set/left_out.jsonl").read_text().splitlines())
    assert (left_out["key"], left_out["reason"]) == ("b", "missing")
    said = f"the command that makes it failed: cat: {gone}: No such file or directory, exit status 1"
    assert said in left_out["message"]
    (root / "gone.wav").write_bytes(content)
    assert Path(listed(corpora.kaldi(root, pipes_into=tmp_path / "unpacked"))["b"].audio).exists()
    assert not list((tmp_path / "unpacked").rglob("*.stderr"))
    tagged = content + b"LIST\x04\0\0\0INFO"
    (root / "tagged.wav").write_bytes(tagged)
    (root / "wav.scp").write_text(f"a cat '{root}/tagged.wav' |\n")
    (found_tagged,) = corpora.kaldi(root, pipes_into=tmp_path / "tagged")
    assert Path(found_tagged.audio).read_bytes() == tagged  # what follows the sound is none
    for command, said in (("no-such-command", "not found"), (shlex.quote(f"{root}/one.wav"), "Permission denied")):
        (root / "wav.scp").write_text(f"a {command} |\n")
        with pytest.raises(UsageError, match=rf"wav\.scp: {f'{command} '!r} cannot be run: .*{said}"):
            list(corpora.kaldi(root, pipes_into=tmp_path / "more"))


def test_librimix_knows_its_speakers_and_takes_turns_from_rttm(tmp_path: Path) -> None:
    root = layouts.librimix(tmp_path)
    found = listed(corpora.librimix(root, ["train-100", "test"]))
    assert column(found, "speakers") == {
        "19-198-0000_26-495-0001": ["19", "26"], "19-198-0002_19-198-0003": ["19", "19"],
        "61-70968-0000_121-1-0001": ["61", "121"],
    }  # fmt: skip
    assert list(column(found, "num_speakers").values()) == [2, 1, 2]
    rttm = tree(tmp_path, {"test.rttm": TURN.format("61-70968-0000_121-1-0001", 0.1, 0.5, "61")}) / "test.rttm"
    (one,) = corpora.librimix(root, "test", rttm=rttm)
    assert one.metadata["segments"] == [{"start": 0.1, "end": 0.6, "label": "61"}]
    other = tree(tmp_path, {"b.rttm": TURN.format("61-70968-0000_121-1-0001", 0.2, 0.5, "61")}) / "b.rttm"
    with pytest.raises(UsageError, match=r"b\.rttm: '61-70968-0000_121-1-0001' stands here for the second time"):
        corpora.librimix(root, "test", rttm=[rttm, other])
    with pytest.raises(UsageError, match="say nothing of it"):
        list(corpora.librimix(root, "train-100", rttm=[rttm]))
    with pytest.raises(UsageError, match=r"several splits: .*test, train-100"):
        corpora.librimix(root)
    with pytest.raises(UsageError, match="no split in here, such as train-100"):
        corpora.librimix(root, mix="mix_single")
