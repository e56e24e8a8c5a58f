"""Walking tars made elsewhere: what Python's tarfile finds is found, and nothing that a header claims is believed."""

from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tars import END, header, member, tar, with_checksum

from s3prl_stream.errors import SampleError
from s3prl_stream.shards.tarheader import MAX_MEMBER_BYTES, pax_records, pax_size, read_header
from s3prl_stream.shards.tarwalk import MAX_NAME_BYTES, Gap, Member, walk

FORMATS = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}


def walked(data: bytes, limit: bool = True) -> list[Member | Gap]:
    return list(walk(lambda offset, size: data[offset : offset + size], 0, len(data) if limit else None))


def named(entries: list[Member | Gap]) -> list[str]:
    """Names of members, reasons of gaps."""
    return [entry.name if isinstance(entry, Member) else f"<{entry.reason}>" for entry in entries]


names = st.text("abcxyz./-_ äß語", min_size=1, max_size=140).filter(lambda name: name.strip("/") == name)


@pytest.mark.parametrize("kind", FORMATS)
@settings(max_examples=40, deadline=None)
@given(some=st.lists(st.tuples(names, st.binary(max_size=1500)), max_size=6))
def test_all_that_tarfile_writes_is_found_as_tarfile_finds_it(kind: str, some: list[tuple[str, bytes]]) -> None:
    if kind == "ustar":
        some = [(name[:60].strip("/") or "x", content) for name, content in some]
    data = tar(some, FORMATS[kind])
    with tarfile.open(fileobj=io.BytesIO(data)) as file:
        expected = [(info.name, info.offset, info.offset_data, info.size) for info in file]
    found = walked(data)
    assert [(one.name, one.start, one.content, one.size) for one in found if isinstance(one, Member)] == expected
    assert len(found) == len(expected)
    assert walked(data, limit=False) == found


def test_a_name_in_two_fields_and_an_old_checksum_of_signed_bytes() -> None:
    name = "folder/" * 20 + "x.wav"
    assert named(walked(tar([(name, b"1")], tarfile.USTAR_FORMAT))) == [name]
    block = header(b"caf\xe9.wav", 0)
    signed = int(block[148:154], 8) - 256
    assert named(walked(block[:148] + b"%06o\0 " % signed + block[156:] + END)) == ["caf\udce9.wav"]


def test_long_names_and_long_links_of_both_kinds() -> None:
    link = tarfile.TarInfo("k" * 150)
    link.type, link.linkname = tarfile.SYMTYPE, "t" * 300
    for kind in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar([("d/" * 120 + "name.wav", b"abc"), link, ("after", b"x")], kind)
        assert named(walked(data)) == ["d/" * 120 + "name.wav", "k" * 150, "after"]


def test_kinds_are_told_apart_and_have_no_content_where_there_is_none() -> None:
    data = b"".join(
        header(name, 10_000, kind) for name, kind in
        (("h", b"1"), ("s", b"2"), ("c", b"3"), ("b", b"4"), ("d/", b"5"), ("p", b"6"))
    )  # fmt: skip
    data += member("old-folder/", b"", b"\0") + member("other", b"xy", b"V") + END
    kinds = ["hard link", "symbolic link", "device", "device", "folder", "fifo", "folder", "kind b'V'"]
    assert [(one.kind, one.size) for one in walked(data)] == [*((kind, 0) for kind in kinds[:-1]), (kinds[-1], 2)]


@pytest.mark.parametrize(
    ("field", "reason"),
    [
        (b"\x80" + (123).to_bytes(11, "big"), 123),
        (b"\x80" + (1 << 70).to_bytes(11, "big"), "size"),
        (b"\xff" + (2**88 - 512).to_bytes(11, "big"), "size"),  # -512
        (b"-0000000200\0", "tar"),
        (b"0x000000200\0", "tar"),
        (b"\0" * 12, 0),
        (b"         17 ", 15),
        (b"77777777777\0", 8**11 - 1),
    ],
)
def test_sizes(field: bytes, reason: int | str) -> None:
    block = header("a.wav", field)
    if isinstance(reason, int):
        assert read_header(block).size == reason
        return
    with pytest.raises(SampleError) as caught:
        read_header(block)
    assert caught.value.reason == reason
    assert named(walked(member("k.wav", b"x") + block + member("m.wav", b"y") + END)) == [
        "k.wav",
        f"<{reason}>",
        "m.wav",
    ]


def test_a_member_larger_than_the_tar_is_cut_and_others_behind_it_make_it_a_lie() -> None:
    cut = walked(member("a.wav", b"x") + header("b.wav", 1 << 40) + b"only this")
    assert named(cut) == ["a.wav", "<truncated>"]
    assert (cut[1].name, cut[1].message) == ("b.wav", "'b.wav': claims 1099511627776 bytes, 9 are left in the tar")
    lie = walked(header("b.wav", 1 << 40) + b"x" * 512 + member("c.wav", b"x") + END)
    assert named(lie) == ["<size>", "c.wav"]


@pytest.mark.parametrize("at", [0, 30, 124, 150, 256, 400])
def test_a_damaged_header_costs_its_member(at: int) -> None:
    pieces = [member(f"{name}.wav", name.encode() * 700) for name in "abcd"]
    damaged = bytearray(pieces[1])
    damaged[at] ^= 0x10
    found = walked(pieces[0] + bytes(damaged) + pieces[2] + pieces[3] + END)
    assert named(found) == ["a.wav", "<tar>", "c.wav", "d.wav"]
    assert (found[1].start, found[1].end) == (len(pieces[0]), len(pieces[0]) + len(pieces[1]))


@pytest.mark.parametrize("kind", ["gnu", "pax"])
def test_damage_before_a_member_costs_what_it_describes_and_never_gives_another_name(kind: str) -> None:
    long = "x" * 200
    data = bytearray(tar([("a.wav", b"1"), (f"{long}.wav", b"2"), ("c.wav", b"3")], FORMATS[kind]))
    assert named(walked(bytes(data))) == ["a.wav", f"{long}.wav", "c.wav"]
    data[1024 + 5] ^= 1
    assert named(walked(bytes(data))) == ["a.wav", "<tar>", "c.wav"]


def test_where_a_tar_ends() -> None:
    one = member("a.wav", b"x")
    assert named(walked(one + END)) == ["a.wav"]
    assert named(walked(one + END + bytes(10_000))) == ["a.wav"]
    assert named(walked(one)) == ["a.wav", "<no_end>"]
    assert named(walked(one[:-200])) == ["a.wav", "<no_end>"]  # cut in the padding
    assert named(walked(one[:512])) == ["<truncated>"]
    assert named(walked(one[:300])) == ["<truncated>"]
    assert named(walked(one + END + one + END)) == ["a.wav", "<after_end>"]
    assert named(walked(one + bytes(512) + one + END)) == ["a.wav", "<tar>", "a.wav"]  # one block of zeros is no end
    both = bytes(one + END + one + END)
    assert named(list(walk(lambda at, n: both[at : at + n], 0, len(both), several=True))) == ["a.wav", "a.wav"]


@pytest.mark.parametrize(
    "body", [b"8 path=a\n", b"99 path=a\n", b"0 =a\n", b"8 a=bc\n", b"path=a\n", b"6 =ab\n", b"8 path\na\n"]
)
def test_a_damaged_pax_record_is_damage(body: bytes) -> None:
    with pytest.raises(SampleError, match="pax"):
        pax_records(body)
    assert "a.wav" not in named(walked(member("h", body, b"x") + member("a.wav", b"1") + member("b", b"2") + END))


def test_pax_records_may_say_a_size_but_not_for_all_that_follow() -> None:
    def record(text: str) -> bytes:
        return b"%d %s\n" % (len(text) + 4, text.encode())

    big = member("h", record("size=000700"), b"x") + header("a.wav", 0) + b"1" * 700 + bytes(324)
    assert [(one.name, one.size) for one in walked(big + END)] == [("a.wav", 700)]
    for wrong in ("size=-00001", "size=1e2345", "size=9999999999999999999"):
        text = record(wrong) if len(wrong) < 20 else b"29 " + wrong.encode() + b"\n"
        assert named(walked(member("h", text, b"x") + member("a.wav", b"1") + member("b", b"") + END))[1:] == ["b"]
    assert pax_size({"size": str(MAX_MEMBER_BYTES)}) == MAX_MEMBER_BYTES
    with pytest.raises(SampleError, match="impossible"):
        pax_size({"size": str(MAX_MEMBER_BYTES + 1)})
    (sparse, _) = walked(member("h", record("GNU.sparse.major=1"), b"x") + member("a.wav", b"1"))
    assert isinstance(sparse, Member)
    assert (sparse.name, sparse.kind) == ("a.wav", "sparse")
    path = b"path=" + b"p" * (MAX_NAME_BYTES + 1)
    long = b"%d %s\n" % (len(path) + 6, path)
    assert named(walked(member("h", long, b"x") + member("a.wav", b"1") + member("b", b"") + END)) == ["<name>", "b"]
    for name in ("path=abc.wav", "size=000100", "GNU.sparse.major=1"):
        data = member("g", record(name), b"g") + member("a.wav", b"1") + END
        assert named(walked(data)) == ["<pax>", "a.wav"]
    assert named(walked(member("g", record("comment=abc"), b"g") + member("a.wav", b"1") + END)) == ["a.wav"]


def test_headers_without_end_are_refused() -> None:
    loop = member("l", b"name\0", b"L") * 40
    assert named(walked(loop + member("a.wav", b"1") + member("b.wav", b"1") + END))[-1] == "b.wav"
    assert "<name>" in named(walked(member("l", b"n" * 5000, b"L") + member("a.wav", b"1") + END))
    assert "<pax>" in named(walked(header("p", 2 << 20, b"x") + bytes(2 << 20) + member("a.wav", b"1") + END))
    sparse = bytearray(header("s", 10, b"S"))
    sparse[482] = 1
    extended = bytes(504) + b"\1" + bytes(7)
    assert "<tar>" in named(walked(with_checksum(bytes(sparse)) + extended * 5000 + member("a.wav", b"1") + END))


def test_a_tar_of_nothing_but_damage_is_read_a_few_times_at_most() -> None:
    data = b"".join(header(f"{number}.wav", 1 << 40) for number in range(2000))
    num_read = 0

    def read(offset: int, size: int) -> bytes:
        nonlocal num_read
        num_read += min(size, len(data) - offset)
        return data[offset : offset + size]

    assert len(list(walk(read, 0, len(data)))) == 2000
    assert num_read < 20 * len(data)


BASE = tar([*(("a.wav", b"x" * 600), ("a.json", b"{}")), ("n" * 120 + ".wav", b"y" * 100)], tarfile.PAX_FORMAT)


@settings(max_examples=300, deadline=None)
@example(changes=[(156, ord("x"))], cut=len(BASE))
@given(changes=st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=12),
       cut=st.integers(0, len(BASE)))  # fmt: skip
def test_no_bytes_break_the_walk(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(BASE)
    for at, value in changes:
        data[at] = value
    for block in range(0, len(data), 512):  # damage that a checksum does not show as well
        if changes and changes[0][1] % 2:
            data[block : block + 512] = with_checksum(bytes(data[block : block + 512]))
    for limited in (True, False):
        found = walked(bytes(data[:cut]), limited)
        starts = [entry.start for entry in found]
        assert starts == sorted(starts)
        assert len(found) <= cut // 512 + 2
