"""Tars read once from front to back: the samples of the index, in order, and loud about all that is missing."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import threading
import tracemalloc
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from indexing.test_foreign_hostile import BASE
from tars import END, clip, encoded, header, member, tar, with_checksum
from torch.utils.data import DataLoader

import s3prl_stream as ss
from s3prl_stream.errors import ChainError, ShardError, StreamError, TooManyFailures, UsageError
from s3prl_stream.indexing.foreign import index_tars
from s3prl_stream.shards.sequential import ForeignSample, Lost, samples_in_order

MEMBERS = [one for number in range(12) for one in clip(f"d/k{number:02d}", 300 + 10 * number, text=f"t{number}")]


def sequential(tars: Any, **config: Any) -> ss.SequentialTars:
    with pytest.warns(UserWarning, match="without resume"):
        return ss.SequentialTars(tars, **config)


def pieces(data: bytes, size: int) -> Callable[[], bytes]:
    """A pipe that gives so many bytes at a time."""
    file = io.BytesIO(data)
    return lambda: file.read(size)


def found(data: bytes, size: int = 1 << 20, known: bool = False) -> list[str]:
    """Keys of samples, reasons of what is lost."""
    entries = samples_in_order(pieces(data, size), len(data) if known else None)
    return [one.key if isinstance(one, ForeignSample) else f"<{one.reason}>" for one in entries]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(3):
        (tmp_path / f"{number}.tar").write_bytes(tar(MEMBERS[8 * number : 8 * number + 8]))
    return tmp_path


def test_the_samples_are_those_of_the_index_with_the_same_draws(folder: Path) -> None:
    shards = ss.index_shards(folder, folder / "index", name="tars")
    planned = list(ss.ShardStream(shards, seed=3, epochs=1, shuffle=False).load_audio().add_noise(snr=10.0))
    in_order = list(sequential(folder, seed=3).load_audio().add_noise(snr=10.0))
    assert len(in_order) == 12
    for one, other in zip(in_order, sorted(planned, key=lambda sample: str(sample["key"])), strict=True):
        names = ("key", "set", "epoch", "identity", "text", "sample_rate")
        assert [one[name] for name in names] == [other[name] for name in names]
        np.testing.assert_array_equal(one["wav"].numpy(), other["wav"].numpy())


def test_it_is_loud_once_and_refuses_what_it_cannot_do(folder: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        stream = ss.SequentialTars(folder)
        list(stream)
        list(stream.load_audio())
    assert len(caught) == 1
    assert all(word in str(caught[0].message) for word in ("resume", "shuffling", "epochs", "s3prl-stream index"))
    for refused in (stream.state_dict, lambda: stream.load_state_dict({}), lambda: ss.Loader(stream.load_audio())):
        with pytest.raises(UsageError, match="SequentialTars"):
            refused()
    with pytest.raises(ChainError, match="no planned batches"):
        stream.load_audio().collate()
    with pytest.raises(TypeError, match="known when it has ended"):
        len(stream)
    with pytest.raises(UsageError, match="commands are not run"):
        ss.SequentialTars("pipe:cat x.tar")
    with pytest.raises(UsageError, match="no such file"):
        ss.SequentialTars(folder / "9.tar")


def test_a_second_iteration_is_a_second_epoch(folder: Path) -> None:
    stream = sequential(folder)
    assert [sample["epoch"] for sample in [*stream, *stream]] == [0] * 12 + [1] * 12


def test_standard_input_of_a_real_pipe(folder: Path) -> None:
    code = (
        "import s3prl_stream as ss, warnings; warnings.simplefilter('ignore')\n"
        "for sample in ss.SequentialTars('-').load_audio(): print(sample['key'], len(sample['wav']), sample['text'])\n"
    )
    command = f"cat '{folder}'/*.tar | '{sys.executable}' -c \"{code}\""
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True)
    assert done.stderr == ""
    assert done.stdout.splitlines() == [f"d+k{number:02d} {300 + 10 * number} t{number}" for number in range(12)]


def test_a_pipe_of_a_process_that_dies(folder: Path) -> None:
    with subprocess.Popen(["head", "-c", "3500", folder / "0.tar"], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        stream = sequential(process.stdout)
        assert [sample["key"] for sample in stream] == ["d+k00"]
    assert [(one["reason"], one["message"]) for one in stream.damaged] == [
        ("truncated", "'d/k01.wav': 428 of 664 bytes, then the tar ends")
    ]
    with pytest.raises(UsageError, match="was read already"):
        list(stream)
    with (
        subprocess.Popen(["false"], stdout=subprocess.PIPE) as process,
        pytest.raises(ShardError, match="not one sample"),
    ):
        list(sequential(process.stdout))


def test_a_named_pipe_is_a_path(folder: Path) -> None:
    os.mkfifo(folder / "fifo.tar")
    data = (folder / "1.tar").read_bytes()
    writer = threading.Thread(target=lambda: (folder / "fifo.tar").write_bytes(data))
    writer.start()
    assert [sample["text"] for sample in sequential(folder / "fifo.tar")] == ["t4", "t5", "t6", "t7"]
    writer.join()


@pytest.mark.parametrize("size", [1, 511, 1024, 1 << 20])
def test_pieces_of_any_size(size: int) -> None:
    assert found(tar(MEMBERS), size) == [f"d+k{number:02d}" for number in range(12)]


def test_every_place_to_cut() -> None:
    data = tar([*clip("a"), *clip("b"), *clip("c")])
    starts = [0, 3584, 7168]
    assert found(data) == ["a", "b", "c"]
    for cut in [*range(0, len(data) - 1024, 256), len(data) - 1500]:
        for known in (False, True):
            entries = found(data[:cut], known=known)
            whole = [key for key, start in zip("abc", starts, strict=True) if cut >= start + 3584 - 490]
            assert [one for one in entries if not one.startswith("<")] == whole or cut < 3584 + 490, (cut, entries)
            assert any(one.startswith("<") for one in entries), (cut, entries)


def test_damage_is_passed_by_and_told() -> None:
    first, second, third = (b"".join(member(*one) for key in keys for one in clip(key)) for keys in ("ab", "c", "d"))
    broken = bytearray(second)
    broken[3] ^= 1
    assert found(first + bytes(broken) + third + END) == ["a", "b", "<tar>", "<no_audio>", "d"]
    assert found(first + header("x.wav", 1 << 50) + second + END, known=True) == ["a", "b", "<size>", "c"]
    assert found(first + header("x.wav", 1 << 50) + second + END) == ["a", "b", "<too_large>", "<no_end>"]
    assert found(first + header("l.wav", 0, b"2") + member("/abs.wav", b"x") + second + END) == [
        "a", "<not_a_file>", "<path>", "b", "c"
    ]  # fmt: skip
    assert found(b"\x1f\x8b" + bytes(1000)) == ["<compressed>"]
    assert found(first + END + bytes(9 * 1024) + second + END) == ["a", "b", "c"]
    assert found(first + END + b"not a tar", known=False) == ["a", "b", "<after_end>"]
    assert found(b"") == found(b"short") == ["<not_a_tar>"]


def test_what_is_lost_is_listed_and_too_much_of_it_stops(tmp_path: Path) -> None:
    bad = [(f"b{number}.flac", b"fLaC no") for number in range(6)]
    (tmp_path / "x.tar").write_bytes(tar([*clip("a"), ("t.txt", b"no sound"), *bad, *clip("c")]))
    stream = sequential(tmp_path / "x.tar", max_consecutive_failures=6)
    chain = stream.load_audio()
    assert [sample["key"] for sample in chain] == ["a", "c"]
    assert [(one["key"], one["kind"], one["reason"]) for one in stream.damaged] == [
        ("t", "skipped", "no_audio"), *((f"b{number}", "damaged", "decode") for number in range(6))
    ]  # fmt: skip
    with pytest.raises(TooManyFailures):
        list(sequential(tmp_path / "x.tar", max_consecutive_failures=5).load_audio())


def test_silence_of_many_hours_in_a_few_bytes_is_not_decoded(tmp_path: Path) -> None:
    file = io.BytesIO()
    with soundfile.SoundFile(file, "w", 16_000, 1, format="FLAC") as sound:
        for _ in range(30):
            sound.write(np.zeros(16_000 * 60, np.int16))
    silence = file.getvalue()
    assert len(silence) < 200_000  # 58 MB as samples
    (tmp_path / "x.tar").write_bytes(tar([*clip("a"), ("b.flac", silence), ("c.flac", b""), *clip("d")]))
    stream = sequential(tmp_path / "x.tar", max_seconds=600.0)
    tracemalloc.start()
    assert [sample["key"] for sample in stream.load_audio()] == ["a", "d"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10 << 20
    assert [(one["key"], one["kind"], one["reason"]) for one in stream.damaged] == [
        ("b", "skipped", "too_long"), ("c", "damaged", "empty")
    ]  # fmt: skip


def test_memory_does_not_grow_with_the_pipe() -> None:
    """400 MB of film between the samples, and a member of 20 TB at the end."""
    sound = encoded("wav", 400)
    num_films = 0

    def more() -> bytes:
        nonlocal num_films
        num_films += 1
        if num_films == 1:
            return member("a.wav", sound) + header("a.mp4", 200 << 20)
        if num_films <= 201:
            return bytes(1 << 20)
        if num_films == 202:
            return member("b.wav", sound) + member("c.wav", sound) + header("c.wav.bin", 20 << 40)
        return bytes(1 << 20) if num_films <= 402 else b""

    tracemalloc.start()
    entries = [one.key if isinstance(one, ForeignSample) else one.reason for one in samples_in_order(more, None)]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert entries == ["a", "b", "no_end", "beside_damage"] or entries == ["a", "b", "beside_damage", "no_end"]
    assert peak < 100 << 20


def test_workers_take_whole_tars(folder: Path) -> None:
    for num_tars in (3, 2):
        stream = sequential([folder / f"{number}.tar" for number in range(num_tars)])
        keys = [sample["key"] for sample in DataLoader(stream, batch_size=None, num_workers=2)]
        assert sorted(keys) == [f"d+k{number:02d}" for number in range(4 * num_tars)]


@pytest.mark.slow  # torch waits 5 s for workers whose error it raises
def test_what_workers_cannot_share_is_refused(folder: Path) -> None:
    with pytest.raises(UsageError, match="1 tars for 2 workers"):
        list(DataLoader(sequential(folder / "0.tar"), batch_size=None, num_workers=2))
    with open(folder / "0.tar", "rb") as file, pytest.raises(UsageError, match="worker processes"):
        list(DataLoader(sequential(file), batch_size=None, num_workers=1))


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return os.mkdir, (str(tmp_path / "unpickled"),)

    data = tar([*clip("a"), ("a.pyd", pickle.dumps(Evil())), ("a.pkl", pickle.dumps(Evil()))])
    assert [sample["key"] for sample in sequential(io.BytesIO(data)).load_audio()] == ["a"]
    assert not (tmp_path / "unpickled").exists()


@settings(max_examples=150)
@given(
    changes=st.lists(st.tuples(st.integers(0, len(BASE) - 1), st.integers(0, 255)), max_size=20),
    make_right=st.booleans(),
    cut=st.integers(1, len(BASE)) | st.just(len(BASE)),
    size=st.integers(1, 5000),
)
def test_no_bytes_break_it(changes: list[tuple[int, int]], make_right: bool, cut: int, size: int) -> None:
    data = bytearray(BASE)
    for at, value in changes:
        data[at] = value
    if make_right:
        for block in {at // 512 * 512 for at, _ in changes}:
            data[block : block + 512] = with_checksum(bytes(data[block : block + 512]))
    for known in (True, False):
        for one in samples_in_order(pieces(bytes(data[:cut]), size), cut if known else None):
            assert isinstance(one, ForeignSample | Lost)


@settings(max_examples=40)
@given(at=st.integers(0, len(BASE) - 1), value=st.integers(0, 255), cut=st.integers(513, len(BASE)))
def test_where_the_size_is_known_it_finds_what_the_index_finds(
    at: int, value: int, cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    data = bytearray(BASE)
    data[at] = value
    path = tmp_path_factory.mktemp("same") / "x.tar"
    path.write_bytes(data[:cut])
    try:
        report = index_tars(path)
        keys = [row["key"] for row in ss.open_shards(report.url).table().to_pylist()]
    except StreamError:
        keys = []
    in_order = [key for key in found(bytes(data[:cut]), known=True) if not key.startswith("<")]
    assert [key for key in keys if key in in_order] == in_order
    assert len(keys) - len(in_order) <= 1  # beside damage, where only the samples behind tell that it is whole
