"""Tables beside tars: NeMo's manifests, Lhotse's cuts, CSV, TSV and JSON lines, read with suspicion."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from s3prl_stream.errors import UsageError
from s3prl_stream.indexing.durations import Table, read_table
from s3prl_stream.indexing.table_lengths import TableLengths, write_lengths


def table_of(tmp_path: Path, content: str | bytes, name: str = "table") -> Table:
    (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_table(tmp_path / name)


def cut(**values: Any) -> str:
    return json.dumps({"id": "k", "duration": 2.5, "supervisions": [], **values})


def test_keys_are_found_by_name_path_or_the_end_of_a_path(tmp_path: Path) -> None:
    table = table_of(tmp_path, "audio_filepath,duration\n/data/x/a.wav,1\ny/b.mono.wav,2\n./z/b.wav,3\nc.1-2.flac,4\n")
    assert table.find("/data/x/a") == ("/data/x/a", 1.0, {})
    assert table.find("a") == ("/data/x/a", 1.0, {})
    assert table.find("b") is None  # which of the two?
    assert table.find("z/b") == ("z/b", 3.0, {})
    assert table.find("./y/b") == ("y/b", 2.0, {})
    assert table.find("c") == ("c", 4.0, {})
    assert table.find("d") is None


def test_rows_of_one_key_are_not_used(tmp_path: Path) -> None:
    table = table_of(tmp_path, "id,text\na,1\nb,2\na,3\n")
    assert (table.num_rows, table.num_keys, table.twice) == (3, 2, {"a"})
    assert table.find("a") is None
    assert table.find("b") == ("b", None, {"text": "2"})


def test_durations_are_those_that_a_sample_would_find(tmp_path: Path) -> None:
    table = table_of(tmp_path, "id,duration\na,1\na,3\nx/b,2\nx/c,4\ny/c,5\n")
    write_lengths(table, tmp_path / "lengths.npy")
    lengths = TableLengths(str(tmp_path / "lengths.npy"))
    expected = {"a": None, "b": 2.0, "x/b": 2.0, "./x/b": 2.0, "c": None, "x/c": 4.0, "y/c": 5.0, "d": None}
    assert {key: lengths.seconds(key) for key in expected} == expected
    for key in expected:
        found = table.find(key)
        assert (key, None if found is None else found[1]) == (key, expected[key])


def test_a_key_that_is_not_utf8(tmp_path: Path) -> None:
    """A tar's name may be so, and a lone surrogate may stand in JSON."""
    table = table_of(tmp_path, '{"id": "caf\\udce9", "duration": 1.5}\n{"id": "b", "duration": 2}')
    write_lengths(table, tmp_path / "lengths.npy")
    lengths = TableLengths(str(tmp_path / "lengths.npy"))
    assert [lengths.seconds(key) for key in ("caf\udce9", "b", "caf\udce8")] == [1.5, 2.0, None]


def test_a_cut_says_what_all_its_supervisions_say(tmp_path: Path) -> None:
    both = [{"start": 1.0, "text": "two", "speaker": "s", "language": "de"}, {"start": 0, "text": "one", "speaker": "s",
             "language": "en"}]  # fmt: skip
    (row,) = [table_of(tmp_path, cut(supervisions=both, custom={"snr": 3.5, "x": [1]})).find("k")]
    assert row == ("k", 2.5, {"text": "one two", "speaker": "s", "snr": 3.5})
    one = [{"start": 0, "text": "t", "custom": {"domain": "tv"}}]
    assert table_of(tmp_path, cut(supervisions=one)).find("k") == ("k", 2.5, {"text": "t", "domain": "tv"})
    assert table_of(tmp_path, cut()).find("k") == ("k", 2.5, {})
    assert table_of(tmp_path, cut(supervisions=[{"text": "a"}, {}])).find("k") == ("k", 2.5, {})  # not the whole text


def test_reserved_names_and_odd_values(tmp_path: Path) -> None:
    row = {"id": "k", "sample_rate": 8000, "wav": "x", "list": [1], "none": None, "ok": True, "s": "\ud800", "": 1}
    assert table_of(tmp_path, json.dumps(row)).find("k") == (
        "k", None, {"sample_rate_": 8000, "wav_": "x", "ok": True, "s": "\\ud800"}
    )  # fmt: skip


def test_gzip_byte_order_marks_line_ends_and_several_files(tmp_path: Path) -> None:
    lines = gzip.compress(b'{"id": "a"}\r\n') + gzip.compress(b'\n{"id": "b"}')
    assert table_of(tmp_path, lines).num_keys == 2
    assert table_of(tmp_path, b"\xef\xbb\xbfkey\ttext\r\na\tx y\r\n").find("a") == ("a", None, {"text": "x y"})
    for number in range(2):
        (tmp_path / f"t{number}.csv").write_text(f"key,n\nk{number},{number}\n")
    assert read_table(f"{tmp_path}/t{{0..1}}.csv").num_keys == 2
    assert read_table([tmp_path / "t0.csv", tmp_path / "t1.csv"]).find("k1") == ("k1", None, {"n": "1"})


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (b"", "no rows"),
        (b"key,text\n", "no rows"),
        (b"name,text\na,b\n", "no column names the sample"),
        (b"[{}]", "item 0: no column names the sample"),
        (b'{"id": "a"}\n\n{"id": ', "line 3: not JSON"),
        (b'{"id": "a"}\n[1]\n', r"line 2: expected an object, found \[1\]"),
        (b'{"id": "a", "duration": "long"}', "duration is 'long', expected 0 or more seconds"),
        (b'{"id": "a", "duration": true}', "duration is True, expected 0 or more seconds"),
        (b"key,seconds\na,-1\n", "expected 0 or more seconds"),
        (b"key,seconds\na,nan\n", "expected 0 or more seconds"),
        (b"\nkey,text\n\na,b,c\n", "line 4: 3 cells for 2 columns"),
        (b"key,text,text\na,b,c\n", "line 1: two columns are called 'text'"),
        (b'key,text\na,"b\n', "line 2: not readable as a table"),
        (b"key,text\na,\xff\n", "line 2: not UTF-8"),
        (b'{"id": "a", "duration": ' + b"9" * 400 + b"}", "expected 0 or more seconds"),  # no float is so large
        (b'{"id": "a", "supervisions": [1]}', "supervisions are objects"),
        (b'{"id": "a", "supervisions": [{"start": "x"}]}', "start is no number of seconds"),
        (gzip.compress(b"key\na\n", mtime=0)[:-9], "a damaged gzip file"),
        (b"\x1f\x8b" + b"\xff" * 40, "a damaged gzip file"),
    ],
)
def test_what_is_no_table(content: bytes, match: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=match):
        table_of(tmp_path, content)


def test_a_table_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        read_table(tmp_path / "none.jsonl")
