"""VoxPopuli: sessions with a segment list, files cut out of them, and what is transcribed."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest
from corpora import layouts
from corpora.trees import column, listed

from s3prl_stream import corpora
from s3prl_stream.errors import UsageError


def test_segments_are_stretches_of_the_sessions(tmp_path: Path) -> None:
    root = layouts.voxpopuli(tmp_path)
    found = listed(corpora.voxpopuli(root))
    assert {key: (one.start_seconds, one.end_seconds) for key, one in found.items()} == {
        "20090505-0900-PLENARY-10_en_0": (0.25, 1.75),
        "20090505-0900-PLENARY-10_en_1": (2.0, 3.5),
        "20100101-0900-PLENARY_de_0": (1.0, 2.5),
    }  # French is in the list, not in raw_audios
    one = found["20090505-0900-PLENARY-10_en_1"]
    assert one.metadata == {"language": "en", "session": "20090505-0900-PLENARY-10", "year": 2009}
    assert Path(one.audio).is_file()
    assert list(column(listed(corpora.voxpopuli(root, language=["de"])), "language").values()) == ["de"]


def test_the_list_by_speaker_has_other_columns(tmp_path: Path) -> None:
    root = layouts.voxpopuli(tmp_path)
    by_speaker = tmp_path / "unlabelled_sd.tsv.gz"
    by_speaker.write_bytes(
        gzip.compress(b"session_id|speaker|id_|start_time|end_time\n20100101-0900-PLENARY_de|x|a-1|0.5|2\n")
    )
    (one,) = corpora.voxpopuli(root, segments=by_speaker)
    assert (one.key, one.start_seconds, one.end_seconds) == ("20100101-0900-PLENARY_de_a-1", 0.5, 2.0)


def test_whole_sessions_and_cut_files(tmp_path: Path) -> None:
    root = layouts.voxpopuli(tmp_path)
    assert list(listed(corpora.voxpopuli(root, "sessions"))) == [
        "20100101-0900-PLENARY_de", "20090505-0900-PLENARY-10_en"
    ]  # fmt: skip
    (one,) = corpora.voxpopuli(root, "cut")
    assert (one.key, one.metadata["session"]) == ("20090505-0900-PLENARY-10_en_0", "20090505-0900-PLENARY-10")
    year = Path(one.audio).parent
    (year / f"._{one.key}.ogg").touch()  # as macOS leaves them in archives
    assert len(list(corpora.voxpopuli(root, "cut"))) == 1
    (year / "notes.ogg").touch()
    with pytest.raises(UsageError, match=r"notes\.ogg: 'notes' does not begin with a year"):
        list(corpora.voxpopuli(root, "cut"))


def test_transcribed(tmp_path: Path) -> None:
    root = layouts.voxpopuli(tmp_path)
    train, test = corpora.voxpopuli(root, "transcribed")
    assert train.metadata == {
        "text": "he said yes", "raw_text": 'He said "yes', "speaker": "77", "gender": "F",
        "language": "en", "year": 2009, "session": "20090505-0900-PLENARY-10", "split": "train",
    }  # fmt: skip
    assert test.metadata["text"] == "and no"
    assert not {"speaker", "gender", "raw_text"} & test.metadata.keys()  # None, N/A and nothing in the table
    assert Path(train.audio).is_file()
    (again,) = corpora.voxpopuli(root, "transcribed", split="test")
    assert again.key == test.key


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    root = layouts.voxpopuli(tmp_path)
    with pytest.raises(UsageError, match=r"no split 'dev'. It has: train, test"):
        corpora.voxpopuli(root, "transcribed", split="dev")
    with pytest.raises(UsageError, match=r"no language 'fr'. It has: de, en"):
        corpora.voxpopuli(root, language="fr")
    with pytest.raises(UsageError, match="part 'segments' has none"):
        corpora.voxpopuli(root, split="dev")
    (root / "unlabelled_data/unlabelled_v2.tsv.gz").write_bytes(gzip.compress(b"event_id\tstart\tend\nx_en\t1\t2\n"))
    with pytest.raises(UsageError, match=r"line 2: no column 'segment_no' in the table. It has: event_id, start, end"):
        list(corpora.voxpopuli(root))
    (root / "unlabelled_data/unlabelled_v2.tsv.gz").unlink()
    with pytest.raises(UsageError, match=r"unlabelled_v2\.tsv\.gz: no such file"):
        list(corpora.voxpopuli(root))
