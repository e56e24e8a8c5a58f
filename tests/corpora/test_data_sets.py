"""Other people's data sets as sources: Lhotse manifests, Hugging Face data sets in a folder."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from corpora import layouts
from corpora.trees import column, listed, sound, tree

from s3prl_stream import corpora
from s3prl_stream.cli import main
from s3prl_stream.corpora.unpacked import unpack
from s3prl_stream.errors import UsageError
from s3prl_stream.shards.shardset import open_shards


def test_lhotse_supervisions(tmp_path: Path) -> None:
    root = layouts.lhotse(tmp_path)
    found = listed(corpora.lhotse(root))
    one = found["s1"]
    assert (one.start_seconds, one.end_seconds, Path(one.audio)) == (0.5, 1.5, root / "audio/a.wav")
    assert one.metadata == {
        "text": "one", "speaker": "x", "language": "English", "gender": "F", "level": 3, "shard_": "q"
    }  # fmt: skip
    (root / "x_supervisions_train.jsonl.gz").unlink()
    assert [one.key for one in corpora.lhotse(root)] == ["a", "b"]
    alone = listed(corpora.lhotse(root / "x_recordings_train.jsonl.gz"))
    assert {key: Path(one.audio) for key, one in alone.items()} == {key: root / f"audio/{key}.wav" for key in "ab"}


def cut(**changes: object) -> dict[str, object]:
    source = {"type": "file", "channels": [0, 1], "source": "a.wav"}
    recording = {"id": "a", "sources": [source], "sampling_rate": 8000, "num_samples": 16000, "duration": 2.0}
    return {"id": "c", "type": "MonoCut", "start": 0.25, "duration": 1.5, "channel": 0, "supervisions": [],
            "recording": recording, **changes}  # fmt: skip


def cuts(folder: Path, *rows: dict[str, object]) -> Path:
    return tree(folder, {"cuts.jsonl": "".join(json.dumps(row) + "\n" for row in rows)}) / "cuts.jsonl"


def test_lhotse_cuts(tmp_path: Path) -> None:
    turns: list[dict[str, object]] = [{"start": 1.0, "duration": 0.5, "text": "y"}, {"start": 1.25, "duration": 0.5}]
    turns.append({"start": 0.0, "duration": 0.75, "speaker": "x", "text": "z"})
    one = [{"start": 0.0, "duration": 1.5, "text": "hi", "speaker": "x", "custom": {"take": 2}}]
    rows = (
        cut(supervisions=turns),
        cut(id="d", supervisions=one, custom={"split": "dev", "speaker": "z"}),
        cut(id="e", channel=1),
    )
    found = listed(corpora.lhotse(cuts(tmp_path, *rows), only_channel=0))
    assert list(found) == ["c", "d"]
    assert (found["c"].start_seconds, found["c"].end_seconds) == (0.25, 1.75)
    assert found["c"].metadata["segments"] == [
        {"start": 0.0, "end": 0.75, "label": "x"}, {"start": 1.0, "end": 1.5, "label": "y"},
        {"start": 1.25, "end": 1.75, "label": ""},
    ]  # fmt: skip
    assert found["d"].metadata == {"text": "hi", "speaker": "x", "take": 2, "split": "dev"}
    assert [one.key for one in corpora.lhotse(tmp_path, only_channel=1)] == ["e"]


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"type": "MixedCut"}, "line 2: a MixedCut"),
        ({"channel": 1}, "'x' is channel 1 of its file, others are 0"),
        ({"channel": 7}, "line 2: the recording has no source of channel 7"),
        ({"channel": [0, 1]}, "channels [0, 1]"),
        ({"recording": None, "features": {}}, "line 2: the cut has no recording"),
        ({"duration": "long"}, "line 2: duration is 'long'"),
        ({"duration": True}, "line 2: duration is True"),
        ({"recording": {"id": "a", "sources": [{"type": "command", "channels": [0], "source": "cat a"}]}}, "'command'"),
        ({"duration": float("nan")}, "line 2: duration is nan"),
        ({"supervisions": [5]}, "line 2: its supervisions are [5]"),
        ({"recording": {"id": "a", "sources": "a.wav"}}, "line 2: the sources of the recording are 'a.wav'"),
        ({"recording": {"id": "a", "sources": [], "transforms": [{"name": "Speed"}]}}, "is transformed"),
    ],
)
def test_lhotse_rows_that_cannot_be_packed(tmp_path: Path, changes: dict[str, object], complaint: str) -> None:
    with pytest.raises(UsageError) as error:
        list(corpora.lhotse(cuts(tmp_path, cut(), cut(**{"id": "x", **changes}))))
    assert complaint in str(error.value)


def test_lhotse_of_a_second_channel_alone_is_not_packed_from_the_first(tmp_path: Path) -> None:
    recording = {"id": "a", "sources": [{"type": "file", "channels": [0, 1], "source": "a.wav"}]}
    file = cuts(tmp_path, cut(channel=1, recording=recording))
    with pytest.raises(UsageError, match=r"only_channel=1 here, and --channel 1 for packing"):
        list(corpora.lhotse(file))
    assert len(listed(corpora.lhotse(file, only_channel=1))) == 1
    alone = {"id": "a", "sources": [{"type": "file", "channels": [1], "source": "a1.wav"}]}
    (one,) = corpora.lhotse(cuts(tmp_path / "alone", cut(channel=1, recording=alone)), only_channel=1)
    assert Path(one.audio).name == "a1.wav"  # a file of one channel, whatever it is called
    supervision = {"id": "s", "recording_id": "a", "start": 0, "duration": 1, "channel": 1}
    root = tree(
        tmp_path / "both", {"recordings.jsonl": json.dumps(recording), "supervisions.jsonl": json.dumps(supervision)}
    )
    with pytest.raises(UsageError, match=r"only_channel=1 here, and --channel 1 for packing"):
        list(corpora.lhotse(root))


def test_lhotse_custom_fields_may_be_called_anything(tmp_path: Path) -> None:
    (found,) = corpora.lhotse(cuts(tmp_path, cut(custom={"start_seconds": 1, "self": 2, "weight": 3, "weight_": 4})))
    assert {"start_seconds_": 1, "self": 2, "weight_": 4, "weight__": 3}.items() <= found.metadata.items()


def test_lhotse_without_its_manifests(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no manifest of cuts or recordings"):
        corpora.lhotse(tmp_path)
    root = layouts.lhotse(tmp_path)
    (root / "x_recordings_train.jsonl.gz").unlink()
    tree(root, {"y_recordings.jsonl": '{"id": "z", "sources": []}\n'})
    with pytest.raises(UsageError, match="line 1: recording 'a' is in no manifest of recordings"):
        list(corpora.lhotse(root))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set as `save_to_disk` leaves it: the audio inside, labels as numbers."""
    datasets = pytest.importorskip("datasets")
    root = tmp_path_factory.mktemp("saved")
    parts = {}
    for name, first, intent in (("train", 0, 1), ("test", 10, 0)):
        audio = [{"bytes": sound(".wav", first + n, sample_rate=16_000), "path": "x.wav"} for n in range(2)]
        columns = {"audio": audio, "sentence": ["one", None], "speaker_id": [7, 8], "intent": [intent, -1]}
        part = datasets.Dataset.from_dict(columns).cast_column("audio", datasets.Audio(decode=False))
        parts[name] = part.cast_column("intent", datasets.ClassLabel(names=["go", "stop"]))
    datasets.DatasetDict(parts).save_to_disk(str(root / "set"), num_shards={"train": 1, "test": 1})
    return root / "set"


def test_a_saved_data_set_is_packed(saved: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["pack", "huggingface", str(saved), str(tmp_path / "set"), "--workers", "0", "--json"]
    assert main([*command]) == 2
    assert "the audio is inside the data set. Give a folder for it with unpack_into" in capsys.readouterr().err
    assert main([*command, "--unpack-into", str(tmp_path / "audio"), "--split", "test,train"]) == 0
    rows = {row["key"]: row for row in open_shards(tmp_path / "set").table().to_pylist()}
    assert rows.keys() == {"train-00000000", "train-00000001", "test-00000000", "test-00000001"}
    first = rows["test-00000000"]
    assert (first["text"], first["speaker_id"], first["intent"], first["split"]) == ("one", 7, "go", "test")
    assert rows["train-00000000"]["intent"] == "stop"
    assert (rows["test-00000001"]["text"], rows["test-00000001"]["intent"]) == (None, None)  # -1: no label
    found = listed(corpora.huggingface(saved, "test", unpack_into=tmp_path / "audio"))
    assert found["test-00000001"].metadata == {"speaker_id": 8, "split": "test"}
    assert Path(found["test-00000000"].audio).read_bytes() == sound(".wav", 10, sample_rate=16_000)
    keys = [one.key for one in corpora.huggingface(saved, "test", key="speaker_id", unpack_into=tmp_path / "audio")]
    assert keys == ["7", "8"]


def test_an_audiofolder_is_read_where_it_lies(tmp_path: Path) -> None:
    table = "file_name,transcription\none.wav,hello\ntwo.wav,bye\n"
    root = tree(
        tmp_path / "a", {"train/one.wav": "", "train/two.wav": "", "train/metadata.csv": table, "README.md": ""}
    )
    assert column(listed(corpora.huggingface(root)), "text") == {"train/one": "hello", "train/two": "bye"}
    (root / "train/metadata.csv").write_text("file_name,split\none.wav,a\ntwo.wav,b\n")
    assert column(listed(corpora.huggingface(root)), "split") == {"train/one": "a", "train/two": "b"}
    classes = tree(tmp_path / "b", "test/dog/1.wav test/cat/1.wav train/dog/2.wav")
    found = listed(corpora.huggingface(classes, "test"))
    assert found["test/dog/1"].metadata == {"label": "dog", "split": "test"}
    assert list(found) == ["test/cat/1", "test/dog/1"]
    assert list(listed(corpora.huggingface(tree(tmp_path / "c", "dog/1.wav")))) == ["dog/1"]
    lines = tree(tmp_path / "d", {"valid/1.wav": "", "valid/metadata.jsonl": '{"file_name": "1.wav", "text": "x"}\n'})
    assert column(listed(corpora.huggingface(lines)), "text") == {"valid/1": "x"}


def test_one_part_with_keys_of_its_own(tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    columns = {"audio": [{"bytes": sound(".flac", 1), "path": "x.flac"}], "id": ["u1"], "note": ["n"]}
    part = datasets.Dataset.from_dict(columns, split=datasets.NamedSplit("dev"))
    part = part.cast_column("audio", datasets.Audio(decode=False))
    part.save_to_disk(str(tmp_path / "set"))
    (one,) = corpora.huggingface(tmp_path / "set", unpack_into=tmp_path / "audio")
    assert (one.key, one.metadata, Path(one.audio).suffix) == ("u1", {"note": "n", "split": "dev"}, ".flac")
    part.rename_column("note", "seconds").save_to_disk(str(tmp_path / "taken"))
    with pytest.raises(UsageError, match="split dev: the stream uses the name 'seconds' itself"):
        corpora.huggingface(tmp_path / "taken")


def test_parquet_files_are_a_data_set(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    (tmp_path / "parquet").mkdir()
    datasets.load_from_disk(str(saved))["test"].to_parquet(str(tmp_path / "parquet/test-00000.parquet"))
    found = listed(corpora.huggingface(tmp_path / "parquet", unpack_into=tmp_path / "audio"))
    assert column(found, "intent") == {"test-00000000": "go", "test-00000001": None}


def test_unpacked_audio_is_that_of_its_name(tmp_path: Path) -> None:
    one, other = unpack(tmp_path, "a b", ".wav", b"12"), unpack(tmp_path, "a_b", ".wav", b"34")
    assert (one.read_bytes(), other.read_bytes()) == (b"12", b"34")
    assert unpack(tmp_path, "a b", ".wav", b"56") == one  # the data set has changed
    assert one.read_bytes() == b"56"


def test_data_sets_that_are_none(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="not a data set of Hugging Face"):
        corpora.huggingface(tmp_path)
    with pytest.raises(UsageError, match=r"no split 'dev'. It has: train, test"):
        corpora.huggingface(saved, "dev")
    with pytest.raises(UsageError, match=r"no column 'name' in the data set. It has: audio, sentence"):
        corpora.huggingface(saved, "test", key="name")
    datasets = pytest.importorskip("datasets")
    datasets.Dataset.from_dict({"x": np.arange(3)}).save_to_disk(str(tmp_path / "numbers"))
    with pytest.raises(UsageError, match="0 columns of audio among x"):
        corpora.huggingface(tmp_path / "numbers")
    part = datasets.load_from_disk(str(saved))["test"]
    part.add_column("more", part["audio"][:]).cast_column("more", datasets.Audio(decode=False)).save_to_disk(
        str(tmp_path / "two")
    )
    with pytest.raises(UsageError, match=r"2 columns of audio among audio, .*more"):
        corpora.huggingface(tmp_path / "two")
