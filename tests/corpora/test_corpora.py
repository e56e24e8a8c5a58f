"""What the corpora list, and what they say to a newcomer's mistakes."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest
from corpora import layouts
from corpora.trees import tree

from s3prl_stream import corpora, tables, text_lines
from s3prl_stream.corpora.audio_files import audio_by_stem
from s3prl_stream.corpora.names import NamePattern
from s3prl_stream.errors import UsageError


@pytest.fixture
def libri(tmp_path: Path) -> Path:
    return layouts.librispeech(tmp_path)


def test_librispeech_reads_texts_and_genders_where_there_are_some(libri: Path) -> None:
    first, second, third = corpora.librispeech(libri, split=["dev-clean", "test-clean"])
    assert first.key == "1-2-0000"
    assert first.audio == str(libri / "dev-clean/1/2/1-2-0000.flac")
    assert first.metadata == {"speaker": "1", "chapter": "2", "split": "dev-clean", "gender": "F", "text": "ONE TWO"}
    assert second.metadata["text"] == "THREE"
    assert third.metadata == {"speaker": "3", "chapter": "4", "split": "test-clean"}


def test_librispeech_is_in_the_order_of_names_and_a_line_may_have_no_words(libri: Path) -> None:
    tree(libri, " ".join(f"dev-clean/{speaker}/7/{speaker}-7-0000.flac" for speaker in range(29, 9, -1)))
    (libri / "dev-clean/1/2/1-2.trans.txt").write_text("1-2-0000\n1-2-0001 THREE\n")
    found = list(corpora.librispeech(libri, split="dev-clean"))
    assert [one.key for one in found] == sorted(one.key for one in found)
    assert found[0].metadata["text"] == ""


def test_librispeech_names_the_splits_it_found(libri: Path) -> None:
    for split in (None, "dev", ["dev-clean", "dev"]):
        with pytest.raises(UsageError, match="dev-clean, test-clean"):
            corpora.librispeech(libri, split=split)
    for split, said in ((["dev-clean", "dev-clean"], "dev-clean, dev-clean"), ([], "empty")):
        with pytest.raises(UsageError, match=f"split is {said}: name each once"):
            corpora.librispeech(libri, split=split)
    with pytest.raises(UsageError, match="no such folder"):
        corpora.librispeech(libri / "absent")
    with pytest.raises(UsageError, match="no split"):
        corpora.librispeech(libri / "dev-clean")


def test_librispeech_does_not_pass_over_a_missing_transcript(libri: Path) -> None:
    (libri / "dev-clean/1/2/1-2.trans.txt").write_text("1-2-0000 ONE TWO\n")
    with pytest.raises(UsageError, match="no line for 1-2-0001"):
        list(corpora.librispeech(libri, split="dev-clean"))


def test_folder_lists_all_audio_below_it_sorted(tmp_path: Path) -> None:
    tree(tmp_path, "b/2.flac b/1.WAV a.v1.5.ogg notes.txt .hidden/x.wav b/._1.wav")
    listed = list(corpora.folder(tmp_path))
    assert [utterance.key for utterance in listed] == ["a.v1.5", "b/1", "b/2"]
    assert [Path(utterance.audio).name for utterance in listed] == ["a.v1.5.ogg", "1.WAV", "2.flac"]
    with pytest.raises(UsageError, match="no audio found"):
        corpora.folder(tree(tmp_path / "c", "x.txt"))
    with pytest.raises(UsageError, match="no such folder"):
        corpora.folder(tmp_path / "absent")
    with pytest.raises(UsageError, match=r"x\.txt: is a file; unpack it, or give the folder"):
        corpora.folder(tmp_path / "c/x.txt")


def test_folder_follows_links_but_not_in_circles(tmp_path: Path) -> None:
    tree(tmp_path / "elsewhere", "1.wav")
    root = tree(tmp_path / "root", "2.wav")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    assert [utterance.key for utterance in corpora.folder(root)] == ["2", "linked/1"]
    (root / "inside").mkdir()
    (root / "inside/circle").symlink_to(root / "inside")
    with pytest.raises(UsageError, match="inside/circle: a link leads back"):
        corpora.folder(root)
    (root / "circle").symlink_to(root)
    with pytest.raises(UsageError, match="root/circle: a link leads back"):
        corpora.folder(root)


def test_audio_by_its_name_in_the_order_of_names(tmp_path: Path) -> None:
    tree(tmp_path, " ".join([*(f"{number}.WAV" for number in range(29, 9, -1)), ".30.wav", "31.txt"]))
    assert list(audio_by_stem(tmp_path, "here")) == [str(number) for number in range(10, 30)]


def test_folder_takes_metadata_from_names_and_folders(tmp_path: Path) -> None:
    tree(tmp_path, "train/0_george_1.wav test/9_theo-b_12.wav")
    listed = corpora.folder(tmp_path, "{digit}_{speaker}_{take}", label_from="folder")
    assert [dict(utterance.metadata) for utterance in listed] == [
        {"label": "test", "digit": "9", "speaker": "theo-b", "take": "12"},
        {"label": "train", "digit": "0", "speaker": "george", "take": "1"},
    ]
    by_path = corpora.folder(tmp_path, "{split}/{digit}_{rest}_{take}")
    assert [utterance.metadata["split"] for utterance in by_path] == ["test", "train"]
    with pytest.raises(UsageError, match=r"'label' of test/9_theo-b_12\.wav is given twice"):
        corpora.folder(tmp_path, "{label}_{speaker}_{take}", label_from="folder")


def test_names_that_do_not_fit_are_counted_and_one_is_shown(tmp_path: Path) -> None:
    tree(tmp_path, "0_george_1.wav odd.wav 1_2_3_4.wav")
    with pytest.raises(UsageError, match=r"2 of 3 do not fit, the first is 1_2_3_4\.wav"):
        corpora.folder(tmp_path, "{digit}_{speaker}_{take}")
    with pytest.raises(UsageError, match="3 of 3 do not fit"):
        corpora.folder(tmp_path, label_from="folder")


def test_fields_hold_no_divider() -> None:
    """That is neither a letter nor a digit. A letter of the pattern may stand in a field; there may be no divider."""
    assert NamePattern("spk{speaker}_{take}").match("a/spkkip_1") == {"speaker": "kip", "take": "1"}
    assert NamePattern("{word}").match("a/b c_d") == {"word": "b c_d"}


@pytest.mark.parametrize("pattern", ["", "plain", "{a}{b}", "{a}_{a}", "{1}_x", "{a}_{", "{}"])
def test_patterns_that_mean_nothing_are_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="pattern"):
        NamePattern(pattern)


def test_fields_with_reserved_names_are_refused(tmp_path: Path) -> None:
    tree(tmp_path, "a_b.wav")
    with pytest.raises(UsageError, match="'set'"):
        corpora.folder(tmp_path, "{set}_{x}")
    for taken in ("seconds", "end_seconds"):
        (tmp_path / "t.csv").write_text(f"file,{taken}\na_b.wav,3\n")
        with pytest.raises(UsageError, match=rf"t\.csv, line 2: .*'{taken}'"):
            corpora.folder(tmp_path, table="t.csv")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("metadata.csv", "one|Hello, \"you\".\ntwo|Good day.\n"),
        ("t.csv", 'file_name,transcription\nwavs/one.wav,"Hello, ""you""."\nwavs/two.wav,Good day.\n'),
        ("t.tsv", 'text\tpath\nHello, "you".\tone.wav\nGood day.\ttwo.wav\n'),
        ("t.jsonl", '{"wav": "one", "text": "Hello, \\"you\\"."}\n{"wav": "two", "sentence": "Good day."}\n'),
        ("t.json", '{"one.wav": {"text": "Hello, \\"you\\"."}, "two.wav": {"text": "Good day."}}'),
        ("t.ndjson", '{"wav": "one", "text": "Hello, \\"you\\"."}\n\n{"wav": "two", "text": "Good day."}\n'),
        ("id.csv", '\nid|text\none|Hello, "you".\n\ntwo|Good day.\n'),
        ("key.csv", 'key|text\none|Hello, "you".\ntwo|Good day.\n'),
        ("wavs/two.csv", ' file , text\nwavs/one,"Hello, ""you""."\n\nwavs/two,Good day.\n'),
    ],
)  # fmt: skip
def test_folder_finds_texts_in_tables(tmp_path: Path, name: str, content: str) -> None:
    tree(tmp_path, "wavs/one.wav wavs/two.wav")
    (tmp_path / name).write_text(content)
    listed = list(corpora.folder(tmp_path, table=name))
    assert [(utterance.key, utterance.metadata) for utterance in listed] == [
        ("wavs/one", {"text": 'Hello, "you".'}),
        ("wavs/two", {"text": "Good day."}),
    ]


def test_which_table_and_which_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A table below the root before one where you are; the path of a file before its bare name."""
    root, here = tree(tmp_path / "root", "x.wav a/x.wav a/y.wav b/y.wav"), tmp_path / "here"
    rows = "x.wav,1\na/x.wav,2\na/y,3\nb/y.wav,4\n"
    tree(here, "t.csv other.csv")
    (root / "t.csv").write_text(f"file,text\n{rows}")
    (here / "other.csv").write_text(f"file,text\n{rows}")
    monkeypatch.chdir(here)
    for table in ("t.csv", "other.csv"):
        found = {one.key: one.metadata["text"] for one in corpora.folder(root, table=table)}
        assert found == {"x": "1", "a/x": "2", "a/y": "3", "b/y": "4"}


def test_tables_and_folders_must_fit_each_other(tmp_path: Path) -> None:
    tree(tmp_path, "one.wav two.wav")
    (tmp_path / "t.csv").write_text("file,text\none.wav,x\nthree.wav,y\n")
    with pytest.raises(UsageError, match=r"1 of 2 do not fit, the first is two\.wav"):
        corpora.folder(tmp_path, table="t.csv")
    for content, complaint in (
        (
            "file,text\none.wav,x\n./one.wav,y\ntwo.wav,z\n",
            r"t\.csv, line 3: 'one\.wav' has a row already: .*t\.csv, line 2\.",
        ),
        ("file,text\n", r"t\.csv: the table has no rows"),
    ):
        (tmp_path / "t.csv").write_text(content)
        with pytest.raises(UsageError, match=complaint):
            corpora.folder(tmp_path, table="t.csv")
    tree(tmp_path, "a/one.wav")
    (tmp_path / "t.csv").write_text("file,text\none,x\ntwo,y\n")
    with pytest.raises(UsageError, match="fits several files"):
        corpora.folder(tmp_path, table="t.csv")
    (tmp_path / "a/one.wav").unlink()
    (tmp_path / "t.csv").write_text("file,text\none.wav,x\ntwo.wav,y\nthree.wav,z\n")
    assert list(corpora.folder(tmp_path, table="t.csv"))[-1].audio == str(tmp_path / "three.wav")
    with pytest.raises(UsageError, match="no such file"):
        corpora.folder(tmp_path, table="absent.csv")


def test_manifest_understands_nemo_and_keeps_numbers(tmp_path: Path) -> None:
    rows = [
        {"audio_filepath": "a/x.wav", "duration": 2.5, "text": "hi", "offset": 1.25, "level": 3, "score": 0.5},
        {"audio_filepath": "/far/y.wav", "duration": 2.0, "language": None, "segments": [{"start": 0, "end": 1}]},
        {"path": "z.wav", "id": 5, "key": "zed", "start": 1, "end": 2, "duration": 9, "transcription": "ho"},
    ]
    for name in ("m.jsonl", "m.json"):
        (tmp_path / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
        x, y, z = corpora.manifest(tmp_path / name)
        assert (x.key, x.audio, x.start_seconds, x.end_seconds) == (
            "a/x-1.250-3.750",
            str(tmp_path / "a/x.wav"),
            1.25,
            3.75,
        )
        assert x.metadata == {"text": "hi", "level": 3, "score": 0.5}
        assert (y.key, y.audio, y.start_seconds, y.end_seconds) == ("far/y", "/far/y.wav", None, 2.0)
        assert y.metadata == {"segments": [{"start": 0, "end": 1}]}
        assert (z.key, z.start_seconds, z.end_seconds, z.metadata) == ("zed", 1.0, 2.0, {"id": 5, "text": "ho"})
    for content in ('{"one": {"file": "two.wav"}}', '{"file": "two.wav"}', '[\n{"file":\n"two.wav"}]'):
        (tmp_path / "m.json").write_text(content)
        assert [one.key for one in corpora.manifest(tmp_path / "m.json")] == ["two"]


def test_manifest_cells_of_csv_stay_text_and_empty_ones_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text("\ufeffaudio, label,speaker\nx.wav,007,\n", "utf-8")
    (utterance,) = corpora.manifest(tmp_path / "m.csv")
    assert utterance.metadata == {"label": "007"}
    (tmp_path / "m.tsv").write_text("audio\na, b.wav\n")
    assert [one.key for one in corpora.manifest(tmp_path / "m.tsv")] == ["a, b"]  # one column, and no tab to be seen


def test_of_several_columns_for_one_thing_the_first_known_counts(tmp_path: Path) -> None:
    row = {"sentence": "s", "transcript": "t", "text": "x", "file": "f.wav", "path": "p.wav", "audio_filepath": "a.wav"}
    (tmp_path / "m.jsonl").write_text(json.dumps(row))
    (found,) = corpora.manifest(tmp_path / "m.jsonl")
    assert found.key == "a"
    assert found.metadata == {name: row[name] for name in ("sentence", "transcript", "text", "file", "path")}


def test_manifest_unfolds_objects_into_columns_when_asked(tmp_path: Path) -> None:
    rows = {"a.flac": {"intent": "order", "slots": {"size": "big", "roast": "dark"}}, "b.flac": {"intent": "stop"}}
    (tmp_path / "m.json").write_text(json.dumps(rows))
    tree(tmp_path, "audio/a.flac")
    a, b = corpora.manifest(tmp_path / "m.json", audio_root=tmp_path / "audio", columns_from="slots")
    assert a.metadata == {"intent": "order", "slots_size": "big", "slots_roast": "dark"}
    assert (a.audio, dict(b.metadata)) == (str(tmp_path / "audio/a.flac"), {"intent": "stop"})
    assert next(iter(corpora.manifest(tmp_path / "m.json"))).metadata["slots"] == {"size": "big", "roast": "dark"}
    with pytest.raises(UsageError, match=r"'a.flac'.*'intent' holds no object, but a str"):
        list(corpora.manifest(tmp_path / "m.json", columns_from=["intent"]))
    (tmp_path / "m.json").write_text(json.dumps({"a.flac": {"slots_size": "small", "slots": {"size": "big"}}}))
    with pytest.raises(UsageError, match="'slots' would give a second column 'slots_size'"):
        list(corpora.manifest(tmp_path / "m.json", columns_from="slots"))


def test_tables_may_be_compressed(tmp_path: Path) -> None:
    (tmp_path / "m.tsv.gz").write_bytes(gzip.compress(b"path\ttext\na.wav\thi\n"))
    (tmp_path / "m.tsv").write_bytes((tmp_path / "m.tsv.gz").read_bytes())  # whose name does not say so
    for name in ("m.tsv.gz", "m.tsv"):
        assert [one.metadata["text"] for one in corpora.manifest(tmp_path / name)] == ["hi"]
    packed = gzip.compress(b'{"path": "a.wav"}\n' * 5999)  # to a 300th, and of a size that needs no bound
    (tmp_path / "m.jsonl.gz").write_bytes(packed)
    assert sum(1 for _ in corpora.manifest(tmp_path / "m.jsonl.gz")) == 5999
    for damaged in (packed[:-20], packed[:10] + b"\xff" * 99):
        (tmp_path / "m.jsonl.gz").write_bytes(damaged)
        with pytest.raises(UsageError, match="damaged gzip"):
            list(corpora.manifest(tmp_path / "m.jsonl.gz"))
    (tmp_path / "m.csv.gz").write_bytes(b"path\na.wav\n")
    with pytest.raises(UsageError, match="damaged gzip"):
        list(corpora.manifest(tmp_path / "m.csv.gz"))


@pytest.mark.parametrize(
    ("filler", "complaint"),
    [(b"\n", r"\d+ bytes of gzip become more than \d+ bytes: refused"), (b" ", "line 2: a line of more than 99999")],
)
def test_a_table_that_is_a_bomb(filler: bytes, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(text_lines, "_FREE_BYTES", 1 << 16)
    monkeypatch.setattr(tables, "MAX_LINE_LENGTH", 99_999)
    (tmp_path / "m.jsonl.gz").write_bytes(gzip.compress(b'{"audio": "a.wav"}\n' + filler * (1 << 20)))
    with pytest.raises(UsageError, match=complaint):
        list(corpora.manifest(tmp_path / "m.jsonl.gz"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("audio,start\nx.wav,one\n", "line 2: start is 'one'"),
        ("audio,duration\nx.wav,-1\n", "line 2: duration is '-1'"),
        ("audio,end\nx.wav,inf\n", "line 2: end is 'inf', expected 0 or more"),
        ("audio,end\nx.wav,1_0\n", "line 2: end is '1_0', expected 0 or more"),
        ("sound;x,label\ny,a\n", r"line 2: no column names the audio.*there are: sound;x, label\.$"),
        ("sound,label\nx.wav,a\n", "line 2: no column names the audio.*there are: sound, label"),
        (
            "audio;label\nx.wav;a\n",
            "line 2: no column names the audio.*there are: audio;label. Divide the cells of a .csv by commas",
        ),
        ("audio,label\n,a\n", "line 2: nothing in column 'audio', which names the audio"),
        ("audio,text,text\nx.wav,a,b\n", "line 1: two columns are called 'text'"),
        ("audio,text\n..,a\n", "line 2: audio is '..', expected the path of a file"),
        ('audio,label\nx.wav,"a\ny.wav,b\n', "line 3: not readable as a table"),  # no cell that goes on to the end
        ("audio,label\nx.wav,a,b\n", "line 2: 3 cells for 2 columns, divided by ','.*quotation"),
        ("audio,weight\nx.wav,1\n", "line 2: .*'weight'"),
    ],
)
def test_manifest_mistakes_are_named_by_line(tmp_path: Path, content: str, complaint: str) -> None:
    (tmp_path / "m.csv").write_text(content)
    with pytest.raises(UsageError, match=complaint):
        list(corpora.manifest(tmp_path / "m.csv"))


@pytest.mark.parametrize(("line", "content"), [
    (1, b"audio,t\xe9xt\nx.wav,a\n"),
    (3001, b"audio,text\n" + b"x.wav,a\n" * 2999 + b"x.wav,caf\xe9\n"),
    (1, "audio,text\nx.wav,a\n".encode("utf-16")),
])  # fmt: skip
def test_a_table_that_is_not_utf8_is_named_by_line(tmp_path: Path, line: int, content: bytes) -> None:
    (tmp_path / "m.csv").write_bytes(content)
    with pytest.raises(UsageError, match=rf"m\.csv, line {line}: not UTF-8 text"):
        list(corpora.manifest(tmp_path / "m.csv"))


def test_a_manifest_of_a_spreadsheet(tmp_path: Path) -> None:
    """A mark of byte order, CRLF, quoted cells over two lines, columns without a name, and one that is called self."""
    content = '\ufeff,audio,text,self,\r\n0,x.wav,"a, b",1,\r\n1,y.wav,"a\r\nb",2,\r\n'
    for end in ("\r\n", "\r"):  # as on machines of today, and on older ones
        (tmp_path / "m.csv").write_bytes(content.replace("\r\n", end).encode())
        found = [(one.metadata, one.where[-6:]) for one in corpora.manifest(tmp_path / "m.csv")]
        assert found == [
            ({"": "0", "text": "a, b", "self": "1"}, "line 2"),
            ({"": "1", "text": f"a{end}b", "self": "2"}, "line 4"),
        ]


@pytest.mark.parametrize(
    ("row", "complaint"),
    [
        ('{"audio": ""}', "audio is '', expected the path"),
        ('{"audio": {"path": "x.wav"}}', "audio is {'path': 'x.wav'}, expected the path"),
        ('{"audio": 5}', "audio is 5, expected the path"),
        ('{"audio": null, "text": "x"}', "nothing in column 'audio'"),
        ('{"audio": "x.wav", "tree": ' + "[" * 50_000 + "]" * 50_000 + "}", "not JSON"),
        ("5", "expected an object, found 5"),
        ('{"audio": "x.wav", "text": "a", "text": "b"}', "two values are called 'text'. Rename one of them."),
        ('{"audio": "x.wav", "slots": {"city": "a", "city": "b"}}', "two values are called 'city'"),
    ],
)
def test_rows_of_json_that_cannot_be_understood(tmp_path: Path, row: str, complaint: str) -> None:
    (tmp_path / "m.jsonl").write_text(f'{{"audio": "a.wav"}}\n{row}\n')
    with pytest.raises(UsageError, match=re.escape(f"m.jsonl, line 2: {complaint}")):
        list(corpora.manifest(tmp_path / "m.jsonl"))
    if complaint == "not JSON":
        (tmp_path / "m.json").write_text(row)
        with pytest.raises(UsageError, match=r"m\.json: not JSON"):
            list(corpora.manifest(tmp_path / "m.json"))


def test_columns_from_a_column_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio": "a.wav", "slots": {"city": "Ulm"}}\n')
    (found,) = corpora.manifest(tmp_path / "m.jsonl", columns_from="slots")
    assert found.metadata == {"slots_city": "Ulm"}
    with pytest.raises(UsageError, match=r"no row has a column 'slot' \(columns_from\); there are: audio, slots"):
        list(corpora.manifest(tmp_path / "m.jsonl", columns_from="slot"))


def test_manifest_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "m.jsonl").write_text('{"audio": "x.wav"}\n{"audio": \n')
    with pytest.raises(UsageError, match=r"m\.jsonl, line 2: not JSON"):
        list(corpora.manifest(tmp_path / "m.jsonl"))
    with pytest.raises(UsageError, match="no such file"):
        corpora.manifest(tmp_path / "absent.csv")
    with pytest.raises(UsageError, match="tables are"):
        corpora.manifest(tree(tmp_path, "m.xls") / "m.xls")


def test_real_corpora_are_listed_whole(real_data: Path) -> None:
    assert len(list(corpora.librispeech(real_data / "LibriSpeech", split="train-clean-100"))) == 248
    digits = list(corpora.folder(real_data / "fsdd/recordings", "{digit}_{speaker}_{take}"))
    assert len(digits) == 2000
    assert len({utterance.metadata["speaker"] for utterance in digits}) == 4
    kathleen = list(corpora.folder(real_data / "kathleen", table="metadata.csv"))
    assert len(kathleen) == 400
    assert all(utterance.metadata["text"] for utterance in kathleen)
    orders = list(corpora.folder(real_data / "barista", table="label.json"))
    assert {utterance.metadata["intent"] for utterance in orders} == {"orderDrink"}
