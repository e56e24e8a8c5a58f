"""Hostile tars: refused or listed with a reason. Nothing is written outside, unpickled or run; memory stays bounded."""

from __future__ import annotations

import contextlib
import gzip
import io
import json
import os
import pickle
import struct
import tarfile
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tars import END, clip, encoded, files_below, header, member, tar, with_checksum

import s3prl_stream as ss
from s3prl_stream.errors import SampleError, ShardError, StreamError, UsageError
from s3prl_stream.indexing import scan
from s3prl_stream.indexing.foreign import IndexReport, index_tars
from s3prl_stream.shards.bytes import split_sample

WAV = encoded("wav", 400)
GOOD = [(f"{key}.{suffix}", data) for key in ("first", "good") for suffix, data in (("wav", WAV), ("json", b"{}"))]
Z = member("z.wav", WAV) + member("z.json", b"{}")
FINE = ["first", "good"]
MOST_BYTES = 24 << 20
"""Of memory for any of these tars; a JSON of 4 MB is read whole."""

INDEX_FILES = {"index/part-00000.parquet", "left_out.jsonl", "manifest.json", "x.tar.idx", "x.tar.parquet"}


@contextlib.contextmanager
def memory_below(most: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < most
    finally:
        tracemalloc.stop()


def indexed(folder: Path, data: bytes) -> IndexReport:
    """Index one tar in a folder of its own, and see that nothing but the index was written anywhere near."""
    inside = folder / "outer/inner"
    inside.mkdir(parents=True)
    (folder / "outer/victim").write_bytes(b"untouched")
    (inside / "x.tar").write_bytes(data)
    before = files_below(folder)
    with memory_below(MOST_BYTES):
        report = index_tars(inside / "x.tar")
    after = files_below(folder)
    assert {name: after[name] for name in before} == before
    assert after.keys() - before.keys() == {f"outer/inner/{name}" for name in INDEX_FILES}
    assert all(path.is_dir() or (path.is_file() and not path.is_symlink()) for path in folder.rglob("*"))
    return report


def reasons(report: IndexReport) -> list[str]:
    return [one.reason for one in report.left_out]


def keys(report: IndexReport) -> list[str]:
    """All keys of the set, each delivered once by its stream."""
    shards = ss.open_shards(report.url)
    rows = [str(row["key"]) for row in shards.table().to_pylist()]
    stream = ss.ShardStream(shards, epochs=1, shuffle=False, too_long="crop").load_audio()
    assert sorted(str(sample["key"]) for sample in stream) == sorted(rows)
    return rows


@pytest.mark.parametrize("name", ["/etc/evil.wav", "../victim.wav", "a/../../b.wav", "..wav/../x.wav", "a\nb.wav"])
def test_paths_that_lead_out(name: str, tmp_path: Path) -> None:
    report = indexed(tmp_path, tar([(name, WAV), *GOOD]))
    assert reasons(report) == ["path"]
    assert (report.left_out[0].kind, keys(report)) == ("refused", FINE)


def test_absolute_paths_of_every_kind_of_header(tmp_path: Path) -> None:
    long = "/" + "very/" * 60 + "long.wav"
    for number, kind in enumerate((tarfile.GNU_FORMAT, tarfile.PAX_FORMAT)):
        assert reasons(indexed(tmp_path / str(number), tar([(long, WAV), *GOOD], kind))) == ["path"]


def test_dots_and_backslashes_are_only_names(tmp_path: Path) -> None:
    report = indexed(tmp_path, tar([("./a.wav", WAV), ("b..c.wav", WAV), ("C:\\d.wav", WAV), ("~/e.wav", WAV)]))
    assert keys(report) == ["%2E+a", "b", "C:%5Cd", "~+e"]
    assert reasons(report) == []


@pytest.mark.parametrize(
    ("kind", "what"),
    [
        (tarfile.SYMTYPE, "symbolic link"),
        (tarfile.LNKTYPE, "hard link"),
        (tarfile.CHRTYPE, "device"),
        (tarfile.BLKTYPE, "device"),
        (tarfile.FIFOTYPE, "fifo"),
        (b"V", "kind b'V'"),
    ],
)
def test_what_is_no_file(kind: bytes, what: str, tmp_path: Path) -> None:
    info = tarfile.TarInfo("evil.wav")
    info.type, info.linkname, info.devmajor, info.devminor = kind, "../victim", 1, 3
    report = indexed(tmp_path, tar([info, ("evil.json", b"{}"), *GOOD]))
    assert reasons(report) == ["not_a_file", "no_audio"]
    assert what in report.left_out[0].message
    assert keys(report) == FINE


@pytest.mark.parametrize("size", [1 << 33, 1 << 61, b"\x80" + b"\xff" * 11, b"\xff" + b"\xff" * 11, b"77777777777\0"])
def test_claimed_sizes(size: int | bytes, tmp_path: Path) -> None:
    data = tar(GOOD)[:-1024]
    between = indexed(tmp_path / "a", data + header("evil.wav", size) + Z + END)
    last = indexed(tmp_path / "b", data + header("evil.wav", size) + WAV)
    assert reasons(between) == ["size"]
    assert keys(between) == [*FINE, "z"]
    assert reasons(last) == (["size"] if isinstance(size, bytes) and size[0] > 127 else ["truncated"])
    assert keys(last) == FINE


def test_a_pax_header_may_not_make_a_body_of_what_follows(tmp_path: Path) -> None:
    def pax(text: bytes) -> bytes:
        return member("h", b"%d %s\n" % (len(text) + 4, text), b"x")

    for number, text in enumerate((b"size=9999999", b"size=-1234567", b"path=../../x.wav", b"GNU.sparse.size=1")):
        data = tar(GOOD)[:-1024] + pax(text) + member("a.wav", WAV) + Z + END
        report = indexed(tmp_path / str(number), data)
        assert len(report.left_out) == 1
        assert keys(report) == [*FINE, "z"] or (text.startswith(b"size=99") and keys(report) == FINE)  # z is inside it


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    data = member(b"caf\xe9.wav", WAV) + member(b"caf\xe9.json", b'{"text": "x"}') + member(b"\xff\xfe.wav", WAV)
    report = indexed(tmp_path, data + member(b"\xc3\x28.txt", b"no audio") + END)
    assert keys(report) == ["caf%ED%B3%A9", "%ED%B3%BF%ED%B3%BE"]
    assert reasons(report) == ["no_audio"]
    (tmp_path / "outer/inner/left_out.jsonl").read_text("utf-8")
    (tmp_path / "outer/inner/manifest.json").read_text("utf-8")


def test_one_name_many_times(tmp_path: Path) -> None:
    report = indexed(tmp_path, tar([("a.wav", WAV), ("a.wav", WAV), *GOOD, *[("b.txt", b"")] * 1500, *GOOD]))
    assert reasons(report) == ["duplicate_member", "too_large", "duplicate_key", "duplicate_key"]
    assert keys(report) == FINE


class _Evil:
    """Creates a file where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = str(path)

    def __reduce__(self) -> tuple[object, ...]:
        return os.mknod, (self.path,)


@pytest.mark.parametrize("suffix", ["pyd", "pkl", "pickle", "pth", "pt", "npy", "npz", "json", "txt", "cls", "wav"])
def test_nothing_is_unpickled(suffix: str, tmp_path: Path) -> None:
    evil = pickle.dumps(_Evil(tmp_path / "unpickled"))
    pickle.loads(evil)
    assert (tmp_path / "unpickled").exists()  # it would
    (tmp_path / "unpickled").unlink()
    sound = [] if suffix == "wav" else [("evil.wav", WAV)]
    report = indexed(tmp_path / "x", tar([*sound, (f"evil.{suffix}", evil), *GOOD]))
    if suffix in ("json", "txt", "cls", "wav"):
        assert (keys(report), len(report.problems)) == (FINE, 1)
    else:  # other files of a sample are left alone
        assert (keys(report), reasons(report)) == (["evil", *FINE], [])
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize(
    "url", ["pipe:touch {}", "pipe:cat x.tar | tee {}", "PIPE:touch {}", "$(touch {}).tar", "|touch {}"]
)
def test_no_shell(url: str, tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar(GOOD))
    touched = tmp_path / "touched"
    for sources in (url.format(touched), [str(tmp_path / "a.tar"), url.format(touched)]):
        with pytest.raises(StreamError):
            ss.index_shards(sources, tmp_path / "out")
        assert not touched.exists()
        if not url.startswith("pipe:"):
            break  # a file that is not there, one of two
    with pytest.raises(UsageError):
        ss.open_shards(url.format(touched))


NESTED = {
    "arrays": b"[" * 500_000,
    "objects": b'{"a":' * 300_000,
    "closed": b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "digits": b'{"n": ' + b"1" * 5000 + b"}",
    "no object": b"[1, 2]",
    "not json": b"\x80\x04\x95",
    "not utf-8": b'{"a": "\xff"}',
    "cut": b'{"text": "abc',
    "empty": b"",
}


@pytest.mark.parametrize("kind", NESTED)
def test_json_that_is_none(kind: str, tmp_path: Path) -> None:
    report = indexed(tmp_path, tar([("a.wav", WAV), ("a.json", NESTED[kind]), *GOOD]))
    assert (reasons(report), keys(report)) == (["json"], FINE)
    assert len(report.left_out[0].message) < 600


def test_json_that_no_worker_could_send(tmp_path: Path) -> None:
    """Python reads 900 levels, but pickles half of that: the queue of a worker would swallow the batch."""
    texts = {depth: b'{"a":' + b"[" * depth + b"]" * depth + b"}" for depth in (99, 100, 900)}  # and the object around
    report = indexed(
        tmp_path, tar(one for depth in texts for one in ((f"{depth}.wav", WAV), (f"{depth}.json", texts[depth])))
    )
    assert (reasons(report), keys(report)) == (["json", "json"], ["99"])
    assert report.left_out[0].message.endswith("damaged JSON (lists and objects nested more than 100 deep)")
    with pytest.raises(SampleError, match="more than 100 deep"):
        split_sample(member("a.wav", WAV) + member("a.json", texts[100]), "here")
    (tmp_path / "a.wav").write_bytes(WAV)
    with pytest.raises(UsageError, match="'deep' does not fit into JSON: lists and objects nested more than 100 deep"):
        ss.pack([ss.Utterance("a", tmp_path / "a.wav", deep=json.loads(texts[100]))], tmp_path / "set")


def test_json_and_text_without_bound(tmp_path: Path) -> None:
    huge = b'{"text": "' + b"x" * (5 << 20) + b'"}'
    members = [
        ("a.wav", WAV),
        ("a.json", huge),
        ("b.wav", WAV),
        ("b.txt", huge),
        ("c.wav", WAV),
        ("c.cls", huge),
        *GOOD,
    ]
    report = indexed(tmp_path, tar(members))
    assert (reasons(report), keys(report)) == (["too_large"] * 3, FINE)


def test_metadata_of_ten_thousand_names_and_odd_values(tmp_path: Path) -> None:
    odd = {f"n{number}": number for number in range(12_000)}
    strange = {"": 1, "a\nb": 2, "\ud800": 3, "s": "\ud800", "big": 1 << 80, "inf": float("inf"), "nan": float("nan"),
               "key": "x", "wav": [1], "__class__": "y", "null": None, "mixed": 1}  # fmt: skip
    texts = (json.dumps(odd), json.dumps(strange), '{"mixed": "x", "nan": 1.5}')
    pairs = zip("abc", texts, strict=True)
    report = indexed(
        tmp_path, tar(one for key, text in pairs for one in ((f"{key}.wav", WAV), (f"{key}.json", text.encode())))
    )
    assert (keys(report), reasons(report)) == (["a", "b", "c"], [])
    assert report.manifest["indexed"]["metadata_without_column"] > 9000
    assert len(ss.open_shards(report.url).columns()) < 150
    samples = {str(sample["key"]): sample for sample in ss.ShardStream(report.url, epochs=1)}
    assert samples["a"]["n11999"] == 11_999  # no column, but delivered
    assert (samples["b"]["key_"], samples["b"]["wav_"]) == ("x", [1])


def test_a_manifest_of_hostile_values(tmp_path: Path) -> None:
    report = indexed(tmp_path, tar(GOOD))
    path = tmp_path / "outer/inner/manifest.json"
    content = path.read_bytes()
    for where, value in [
        (("name",), "\ud800"),
        (("shards", 0, "name"), "a\0b"),
        (("shards", 0, "rows_hash"), "\ud800"),
        (("shards", 0, "seconds"), "x" * 100_000),
        (("indexed",), 5),
        (("indexed", "from_table"), 3),
        (("indexed", "tars"), "a\0b"),
        (("indexed", "tars"), "\ud800"),
        (("format_version",), "x" * 100_000),
    ]:
        manifest = inside = json.loads(content)
        for name in where[:-1]:
            inside = inside[name]
        inside[where[-1]] = value
        path.write_text(json.dumps(manifest))
        with pytest.raises(ShardError, match=r"manifest\.json: (not a readable manifest|format version)") as caught:
            ss.open_shards(report.url)
        assert len(str(caught.value)) < 1000


def with_first_row(folder: Path, **values: int | None) -> None:
    """Change the first row of an index."""
    part = folder / "index/part-00000.parquet"
    table = pq.read_table(part)
    rows = table.to_pylist()
    rows[0] |= values
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), part)


def test_an_index_of_impossible_rows(tmp_path: Path) -> None:
    report = indexed(tmp_path, tar(GOOD))
    folder = tmp_path / "outer/inner"
    for values, said in (
        ({"frames": 1 << 62}, "impossible lengths"),
        ({"frames": -1}, "impossible lengths"),
        ({"frames": 0}, "impossible lengths"),
        ({"sample_rate": 0}, "impossible lengths"),
        ({"size": -512}, "impossible lengths"),
        ({"frames": None}, "nothing for 'frames'"),
    ):
        with_first_row(folder, **{"frames": 400, "sample_rate": 16_000, "size": 2048, **values})
        with memory_below(MOST_BYTES), pytest.raises(ShardError, match=rf"the index of x\.tar has .*{said}"):
            list(ss.ShardStream(report.url, epochs=1))
    with_first_row(folder, frames=400)
    table = pq.read_table(folder / "index/part-00000.parquet")
    frames = table.column_names.index("frames")
    texts = table.set_column(frames, "frames", table.column("frames").cast("string"))
    pq.write_table(texts, folder / "index/part-00000.parquet")
    with pytest.raises(ShardError, match="column 'frames' of string, expected int64"):
        list(ss.ShardStream(report.url, epochs=1))
    pq.write_table(table.take([0] * 5), folder / "index/part-00000.parquet")
    with pytest.raises(ShardError, match=r"has 5 rows for x\.tar, the manifest 2"):
        list(ss.ShardStream(report.url, epochs=1))
    pq.write_table(table, folder / "index/part-00000.parquet")
    with_first_row(folder, frames=400, size=1 << 62)
    stream = ss.ShardStream(report.url, epochs=1)
    with memory_below(MOST_BYTES):
        assert [sample["key"] for sample in stream] == ["good"]
    assert [(one["key"], one["reason"]) for one in stream.damaged] == [("first", "truncated")]


# ---- bombs ------------------------------------------------------------------------------------


def flac_claiming(frames: int) -> bytes:
    data = bytearray(encoded("flac", 4000))
    data[21:26] = bytes([data[21] & 0xF0 | frames >> 32 & 15]) + struct.pack(">I", frames & 0xFFFFFFFF)
    return bytes(data)


def mp3_claiming(frames: int) -> bytes:
    """An MP3 whose Xing header counts other frames than there are."""
    data = bytearray(encoded("mp3", 40_000))
    at = next(data.find(name) for name in (b"Xing", b"Info") if name in data)
    assert data[at + 7] & 1
    data[at + 8 : at + 12] = struct.pack(">I", frames)
    return bytes(data)


def wav_claiming(size: int) -> bytes:
    return WAV[:4] + struct.pack("<I", size + 36) + WAV[8:40] + struct.pack("<I", size) + WAV[44:]


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("hours.flac", flac_claiming(16_000 * 3600 * 20)),
        ("hours.mp3", mp3_claiming(1 << 24)),
        ("more.mp3", mp3_claiming(1 << 31)),
        ("hours.wav", wav_claiming(1 << 30)),
        ("rate.wav", WAV[:24] + struct.pack("<I", 1 << 31) + WAV[28:]),
        ("nothing.wav", WAV[:40] + bytes(4)),
        ("nothing.flac", b""),
        ("text.flac", b"fLaC but not really"),
        ("text.mp3", b"ID3" + b"\x7f" * 3000),
        ("text.ogg", b"OggS" + bytes(500)),
        ("text.opus", b"OggS" + b"\xff" * 500),
    ],
)
def test_audio_that_claims_hours_or_is_none(name: str, data: bytes, tmp_path: Path) -> None:
    report = indexed(tmp_path, tar([(name, data), *GOOD]))
    assert len(report.problems) == 1, report
    assert reasons(report) in (["decode"], ["empty"])
    assert keys(report) == FINE


def test_silence_of_many_minutes_in_a_few_bytes_is_decoded_piece_by_piece(tmp_path: Path) -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, 1, format="FLAC") as sound:
        for _ in range(10):
            sound.write(np.zeros(16_000 * 60, np.int16))
    report = indexed(tmp_path, tar([("bomb.flac", file.getvalue()), *GOOD]))  # 20 MB as samples
    loader = ss.Loader(ss.ShardStream(report.url, epochs=1, max_batch_seconds=30.0).load_audio(dtype="int16"))
    with memory_below(12 << 20):
        batches = [(batch["key"], sum(batch["wav_len"].tolist())) for batch in loader]
    assert sum(frames for keys, frames in batches if keys == ["bomb"]) >= 16_000 * 60 * 9
    assert max(frames for _, frames in batches) <= 16_000 * 30


def test_a_gzip_bomb_is_no_tar(tmp_path: Path) -> None:
    for name in ("x.tar", "x.tar.gz"):
        (tmp_path / name).write_bytes(gzip.compress(bytes(10 << 20), 9))
        with memory_below(MOST_BYTES), pytest.raises(UsageError, match="Unpack it"):
            ss.index_shards(tmp_path / name)


@pytest.mark.parametrize(
    ("table", "match"),
    [
        (b'{"key": "' + bytes(40 << 20), "a line of more than 16777216 characters"),
        ((b" " * (1 << 20) + b"\n") * 80, "of gzip become more than"),
        (b'{"key": ' + b"[" * (1 << 20), "not JSON"),
        (b"key,text\n" + b'"' + b"x," * (1 << 20), "not readable as a table"),
    ],
    ids=["line", "many_lines", "nesting", "cell"],  # pytest 8.3 would make them of the bytes, 300 MB
)
def test_a_table_that_is_a_bomb(table: bytes, match: str, tmp_path: Path) -> None:
    (tmp_path / "good.tar").write_bytes(tar(GOOD))
    (tmp_path / "table.gz").write_bytes(gzip.compress(table, 6))
    with memory_below(80 << 20), pytest.raises(UsageError, match=match):
        ss.index_shards(tmp_path / "good.tar", durations=tmp_path / "table.gz")


def test_a_tar_of_nothing_but_refusals_is_refused_as_a_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scan, "MAX_LEFT_OUT", 50)
    (tmp_path / "a.tar").write_bytes(header("l", 0, b"2") * 200 + END)
    (tmp_path / "b.tar").write_bytes(tar(GOOD))
    report = index_tars(tmp_path)
    assert [(one.audio, one.reason) for one in report.left_out] == [("a.tar", "not_a_tar")]
    assert "more than 50 of its entries are of no use; the first: byte 0: a symbolic link" in report.left_out[0].message


def test_a_file_between_that_is_too_far_away(tmp_path: Path) -> None:
    """A sample is read from its first used file to its last: a sparse file of a gigabyte between costs the sample."""
    path = tmp_path / "x.tar"
    with path.open("wb") as file:
        file.write(member("a.wav", WAV) + header("a.mp4", 1 << 30))
        file.seek(1 << 30, io.SEEK_CUR)
        file.write(member("a.json", b"{}") + tar(GOOD))
    assert reasons(index_tars(path)) == ["too_large"]


# ---- bytes by chance --------------------------------------------------------------------------

BASE = tar(
    [*clip("a", text="one"), (f"{'d' * 120}/b.flac", encoded("flac", 500)), ("b.cls", b"3"), *clip("c", codec="ogg")],
    tarfile.PAX_FORMAT,
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), min_size=1, max_size=20),
    make_right=st.booleans(),
    cut=st.integers(1, len(BASE)) | st.just(len(BASE)),
)
def test_no_bytes_break_the_index(
    changes: list[tuple[int, int]], make_right: bool, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(BASE)
    for at, value in changes:
        data[at] = value
    if make_right:  # damage that no checksum shows
        for block in {at // 512 * 512 for at, _ in changes}:
            data[block : block + 512] = with_checksum(bytes(data[block : block + 512]))
    folder = tmp_path_factory.mktemp("x")
    (folder / "x.tar").write_bytes(data[:cut])
    before = {path.name for path in folder.parent.iterdir()}
    try:
        report = index_tars(folder / "x.tar")
    except StreamError:
        pass
    else:
        stream = ss.ShardStream(report.url, epochs=1, shuffle=False, max_consecutive_failures=10**6).load_audio()
        rows = len(ss.open_shards(report.url))
        assert len(list(stream)) + len({one["key"] for one in stream.source.damaged}) >= rows  # type: ignore[union-attr]
    assert {path.name for path in folder.parent.iterdir()} == before
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files <= INDEX_FILES | {"x.tar"}
