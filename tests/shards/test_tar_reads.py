"""Tars on a bad disk, of which each byte is read that is there; and offsets beside them, which are but a hint."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
from damage import Row, bad_sectors

from s3prl_stream.errors import SampleError
from s3prl_stream.shards import tar_reads
from s3prl_stream.shards.tar_reads import FoundOffsets, HashedTar, Windows
from s3prl_stream.stores.store import open_store


def test_a_bad_sector_costs_what_lies_on_it_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = random.Random(0).randbytes(3000)
    (tmp_path / "a.tar").write_bytes(content)
    monkeypatch.setattr(tar_reads, "RANGE_BYTES", 1000)
    store = open_store(tmp_path)
    assert HashedTar(store, "a.tar", 3000).finish() == hashlib.sha256(content).hexdigest()
    tar = HashedTar(store, "a.tar", 3000)
    for offset in range(0, 3000, 100):
        tar.keep_from = offset
        assert tar.read(offset, 150) == content[offset : offset + 150]
        assert len(tar._kept) <= 2 * 1000  # not all of it is held
    skipped = HashedTar(store, "a.tar", 3000)
    skipped.keep_from = 2500
    assert skipped.read(2500, 100) == content[2500:2600]
    assert tar.finish() == hashlib.sha256(content).hexdigest()
    bad_sectors(monkeypatch, tmp_path, Row("key", "a.tar", 1500, 10))
    tar = HashedTar(store, "a.tar", 3000)
    for offset, size in ((0, 1000), (900, 200), (1000, 500), (1510, 490), (1900, 200), (2000, 1000)):
        assert tar.read(offset, size) == content[offset : offset + size]
    for offset, size in ((1400, 200), (1509, 1)):
        with pytest.raises(SampleError) as caught:
            tar.read(offset, size)
        assert caught.value.reason == "unreadable"
    assert tar.finish() is None


def test_offsets_are_believed_where_they_can_be_and_samples_begin_there(tmp_path: Path) -> None:
    store, starts = open_store(tmp_path), [0, 1000, 1024, 2048]
    for offsets, verdict in (
        ([0, 1024, 4096], "used"),
        ([0, 2048, 4000], "used"),  # up to the end of the last sample
        ([0, 512, 4096], "wrong"),
        ([0, 1000, 4096], "wrong"),
        ([0, 1024, 1024, 4096], "wrong"),
        ([0, 1024, 4097], "wrong"),
        ([4096], "wrong"),
    ):
        (tmp_path / "a.tar.idx").write_bytes(np.array(offsets, dtype="<u8").tobytes())
        assert FoundOffsets(store, "a.tar", 4096).verdict(starts) == verdict, offsets
    (tmp_path / "a.tar.idx").write_bytes(np.array([0, 1024, 4096], dtype="<u8").tobytes() + b"more")
    assert FoundOffsets(store, "a.tar", 4096).verdict(starts) == "wrong"
    assert FoundOffsets(store, "b.tar", 4096).verdict(starts) == "none"


def test_windows_are_pieces_of_the_file(tmp_path: Path) -> None:
    content = random.Random(0).randbytes(100_000)
    (tmp_path / "a.tar").write_bytes(content)
    windows = Windows(open_store(tmp_path), "a.tar", 90_000)
    for offset, size in (
        (0, 512),
        (512, 15_872),
        (512, 15_873),
        (89_000, 2000),
        (88_999, 1001),
        (90_000, 1),
        (3, 70_000),
    ):
        assert windows.read(offset, size) == content[offset : min(offset + size, 90_000)]
