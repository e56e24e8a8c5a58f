"""What is written a megabyte at a time is the tar that was asked for, byte for byte, and what is said of it."""

from __future__ import annotations

import errno
import hashlib
import os
import tarfile
from pathlib import Path

import pytest

from s3prl_stream.errors import ShardError
from s3prl_stream.shards import writer
from s3prl_stream.shards.layout import rows_name
from s3prl_stream.shards.rows import index_table
from s3prl_stream.shards.tar import END_OF_TAR, member
from s3prl_stream.shards.workers import Workers
from s3prl_stream.shards.write_index import described, publish_shard, write_parts
from s3prl_stream.stores.local_store import LocalStore


@pytest.mark.parametrize("sizes", [[], [1], [700] * 1500, [3_000_000, 0, 511, 512, 513, 1_500_000]])
@pytest.mark.parametrize("writing", ["whole", "a piece at a time", "without a reserve"])
def test_a_shard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sizes: list[int], writing: str) -> None:
    if writing == "a piece at a time":  # as the system may
        monkeypatch.setattr(writer.os, "writev", lambda file, pieces: os.write(file, bytes(pieces[0][:1000])))
    if writing == "without a reserve":
        monkeypatch.setattr(writer, "RESERVE_BYTES", 1 << 60)  # no disk has it
    audio = [bytes([number % 251]) * size for number, size in enumerate(sizes)]
    with writer.ShardWriter(tmp_path, "a.tar") as shard:
        for number, content in enumerate(audio):
            shard.add(f"k{number}", content, "flac", b'{"n":1}', frames=16_000, sample_rate=16_000, cells={})
        sha256 = shard.finish()
    expected = b"".join(member(f"k{n}.flac", one) + member(f"k{n}.json", b'{"n":1}') for n, one in enumerate(audio))
    found = (tmp_path / "a.tar").read_bytes()
    assert found == expected + END_OF_TAR
    assert sha256 == hashlib.sha256(found).hexdigest()
    if sizes:
        said = described("a.tar", index_table(shard.rows, {}), sha256)
        assert (said["samples"], said["seconds"], said["bytes"]) == (len(sizes), float(len(sizes)), len(found))
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert [one.size for one in tar.getmembers()[::2]] == sizes
    assert [row.offset + row.size for row in shard.rows] == [row.offset for row in shard.rows[1:]] + [
        len(expected)
    ] * bool(sizes)


@pytest.mark.parametrize("links", [True, False])
def test_a_finished_shard_gets_its_name_on_any_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    """As a link, or a copy where there are none; rows that were written beside it and cannot be read are told."""
    if not links:  # as on exFAT, or of another disk

        def refuse(path: Path, target: Path) -> None:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tmp_path / "scratch").mkdir()
    with writer.ShardWriter(tmp_path / "scratch", "a.tar") as shard:
        shard.add("k", b"audio", "flac", b"{}", frames=16_000, sample_rate=16_000, cells={})
        sha256 = shard.finish()
    out = LocalStore(tmp_path / "out")
    tar, published = tmp_path / "scratch/a.tar", tmp_path / "out/a.tar"
    publish_shard(tar, sha256, index_table(shard.rows, {}), out, "a.tar")
    assert published.read_bytes() == tar.read_bytes()
    assert published.samefile(tar) == links
    assert len(write_parts(out, ["a.tar"], Workers(0))) == 1
    (tmp_path / "out" / rows_name("a.tar")).write_bytes(b"no rows")
    with pytest.raises(ShardError, match="was written, cannot be read"):
        write_parts(out, ["a.tar"], Workers(0))
