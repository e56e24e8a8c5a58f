"""Tars made elsewhere, indexed where they lie: every sample is found, and the stream keeps its promises on them."""

from __future__ import annotations

import json
import multiprocessing
import os
import pickle
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import webdataset
from full_disk import files_of_at_most
from streams import delivered
from tars import FORMATS, RATE, clip, encoded, files_below, header, noise, offsets, tar, unescaped

import s3prl_stream as ss
from s3prl_stream.audio.decode import decode
from s3prl_stream.cli import main
from s3prl_stream.errors import ShardError, StateError, UsageError
from s3prl_stream.indexing.foreign import IndexReport, index_tars
from s3prl_stream.sample import Batch
from s3prl_stream.shards.rows import IndexRow, rows_hash
from s3prl_stream.shards.shardset import ShardSet

LISTS = ("key", "set", "text", "speaker")


def manifest_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "manifest.json").read_text("utf-8")))


def left_out(folder: Path) -> list[tuple[str, str, str]]:
    """(key, kind, reason) of each line of the list."""
    lines = (json.loads(line) for line in (folder / "left_out.jsonl").read_text("utf-8").splitlines())
    return [(line["key"], line["kind"], line["reason"]) for line in lines]


def write_tars(folder: Path, num_tars: int = 3, num_clips: int = 20, **config: Any) -> Path:
    """Tars by webdataset's own writer; every clip has another length and other metadata."""
    folder.mkdir(parents=True, exist_ok=True)
    for shard in range(num_tars):
        with webdataset.TarWriter(str(folder / f"train-{shard:06d}.tar"), **config) as out:
            for number in range(num_clips):
                at = shard * num_clips + number
                metadata = {"text": f"text {at}", "speaker": f"s{number % 5}", "lists": [at, {"deep": at}]}
                out.write({"__key__": f"part/utt{at:04d}", "wav": encoded("wav", 300 + 7 * at, at), "json": metadata})
    return folder


@pytest.fixture(scope="module")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    return ss.index_shards(write_tars(tmp_path_factory.mktemp("foreign") / "set"))


def loader(shards: Any) -> ss.Loader:
    stream = ss.ShardStream(shards, seed=5, epochs=1, max_batch_seconds=0.3, run=2, block_samples=16)
    return ss.Loader(stream.load_audio(dtype="int16"))


def wavs(batches: Iterable[Batch]) -> dict[str, np.ndarray[Any, Any]]:
    found: dict[str, np.ndarray[Any, Any]] = {}
    for batch in batches:
        for key, wav, length in zip(batch["key"], batch["wav"], batch["wav_len"].tolist(), strict=True):
            assert key not in found
            found[key] = wav[:length].numpy()
    return found


# ---- what is found ----------------------------------------------------------------------------


def test_every_sample_of_webdatasets_writer_is_delivered_with_its_sound_and_metadata(indexed: ShardSet) -> None:
    assert (len(indexed), indexed.num_shards, indexed.name) == (60, 3, "set")
    assert indexed.hours == pytest.approx(sum(300 + 7 * at for at in range(60)) / RATE / 3600)
    batches = list(loader(indexed))
    found = wavs(batches)
    assert sorted(found) == [f"part+utt{at:04d}" for at in range(60)]
    for at in range(60):
        np.testing.assert_array_equal(found[f"part+utt{at:04d}"], noise(300 + 7 * at, at))
    for batch in batches:
        numbers = [int(key[-4:]) for key in batch["key"]]
        assert batch["text"] == [f"text {at}" for at in numbers]
        assert batch["lists"] == [[at, {"deep": at}] for at in numbers]  # from the tar: no index column holds it
    assert "lists" not in indexed.columns()


@pytest.mark.parametrize("kind", ["ustar", "gnu", "pax"])
@pytest.mark.parametrize("codec", FORMATS)
def test_formats_of_tars_and_codecs(kind: str, codec: str, tmp_path: Path) -> None:
    formats = {"ustar": tarfile.USTAR_FORMAT, "gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}
    deep = "d" if kind == "ustar" else "folder/" * 30
    frames = [4000 + 100 * number for number in range(4)]
    members = [
        one
        for number, n in enumerate(frames)
        for one in [
            (f"{deep}/Ä b{number}.TXT", f"text {number}\n".encode()),
            (f"{deep}/Ä b{number}.{codec.upper()}", encoded(codec, n, number)),
            (f"{deep}/Ä b{number}.cls", b"%d" % number),
        ]
    ]
    (tmp_path / "x.tar").write_bytes(tar(members, formats[kind]))
    shards = ss.index_shards(tmp_path / "x.tar")
    table = shards.table().to_pylist()
    assert [unescaped(row["key"]) for row in table] == [f"{deep}/Ä b{number}" for number in range(4)]
    assert [(row["text"], row["label"], row["codec"]) for row in table] == [(f"text {n}", n, codec) for n in range(4)]
    found = wavs(loader(shards))
    for number, (row, n) in enumerate(zip(table, frames, strict=True)):
        wav, rate = decode(encoded(codec, n, number), codec)
        assert (row["frames"], row["sample_rate"]) == (len(wav), rate)
        if rate == RATE:
            np.testing.assert_array_equal(found[row["key"]], wav[:, 0])


def test_which_files_make_a_sample(tmp_path: Path) -> None:
    wav = encoded("wav", 800)
    members = [
        ("a.wav", wav),  # nothing but sound
        ("b.mono.wav", wav), ("b.seg.json", b"{}"), ("b.jpg", b"?"),  # the one file that ends in a codec
        ("c.flac", encoded("flac", 800)), ("c.near.wav", wav),  # the one that is nothing but a codec
        ("d.l.wav", wav), ("d.r.wav", wav),  # which one?
        ("e.jpg", b"?"), ("e.json", b"{}"),
        ("f.wav", wav), ("f.json", b'{"key": 1, "key_": 2, "audio": "x", "speaker": null, "ok": true}'),
        (".hidden.wav", wav), ("__meta__/x.wav", wav), ("nodot", wav), ("g.WAV", wav), ("g.Txt", b" hi \r\n"),
        ("h.wav", wav), ("h.cls", b" seven \n"),
        ("i.wav", wav), ("i.json", b'{"text": "of the JSON", "label": 7}'), ("i.txt", b"of the file"), ("i.cls", b"8"),
    ]  # fmt: skip
    (tmp_path / "x.tar").write_bytes(tar(members))
    for wrong, said in (
        ({"corpus_name": Path("a")}, "expected text"), ({"licence": 4}, "expected text"),
        ({"durations": 3}, "3 is no path"), ({"full": b"x"}, "full: b'x' is not"), ({"prefix_keys": 2}, "keys: 2 is"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            ss.index_shards(tmp_path / "x.tar", name="mine", **wrong)  # type: ignore[arg-type]
    shards = ss.index_shards(tmp_path / "x.tar", name="mine", corpus_name="theirs", licence="CC0")
    assert [manifest_of(tmp_path)[name] for name in ("name", "corpus", "licence")] == ["mine", "theirs", "CC0"]
    rows = {row["key"]: row for row in shards.table().to_pylist()}
    assert sorted(rows) == ["a", "b", "c", "f", "g", "h", "i"]
    assert (rows["b"]["codec"], rows["c"]["codec"]) == ("wav", "flac")
    assert (rows["f"]["key__"], rows["f"]["key_"], rows["f"]["audio_"], rows["f"]["ok"]) == (1, 2, "x", True)
    assert (rows["g"]["text"], rows["h"]["label"]) == (" hi ", "seven")
    assert (rows["i"]["text"], rows["i"]["label"]) == ("of the JSON", "7")
    assert left_out(tmp_path) == [("d", "refused", "several_audio"), ("e", "skipped", "no_audio")]
    assert manifest_of(tmp_path)["counts"] == {
        "samples": 7, "seconds": pytest.approx(0.35), "damaged": 0, "skipped": {"no_audio": 1, "several_audio": 1}
    }  # fmt: skip
    (sample,) = ss.ShardStream(shards, epochs=1, where="key == 'f'")
    assert (sample["key"], sample["key__"], sample["audio_"]) == ("f", 1, "x")


def test_beside_damage_a_sample_stays_if_it_has_all_that_others_have(tmp_path: Path) -> None:
    """Most lack their JSON, by damage. A later sample of a key whose first one is left out is no duplicate."""
    keys = ["a", "b", "c", "d", "f", "e", "b"]
    data = bytearray(tar(one for key in keys for one in clip(key, 300, text=key)))
    for key in "bcdf":
        data[data.index(f"{key}.json".encode()) + 150] ^= 1  # in the checksum of its header
    (tmp_path / "x.tar").write_bytes(data)
    assert ss.index_shards(tmp_path / "x.tar").table().column("text").to_pylist() == ["a", "e", "b"]
    reasons = [(key, reason) for key, _, reason in left_out(tmp_path)]
    assert sorted(reasons) == [("", "tar")] * 4 + [(key, "beside_damage") for key in "bcdf"]


def test_damage_that_is_known_to_be_of_another_sample_costs_no_neighbour(tmp_path: Path) -> None:
    whole = tar([*clip("a", 300, text="a"), *clip("b", 300, text="b"), clip("lone", 300)[0]])[:-1024]
    for name, behind, kept in (
        ("another", header("other.json", 1 << 30), True),
        ("its own", header("lone.json", 1 << 30), False),
        ("junk", bytes(1024) + b"junk" * 128, True),
    ):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.tar").write_bytes(whole + behind)
        keys = ss.index_shards(tmp_path / name / "x.tar").table().column("key").to_pylist()
        assert (name, keys) == (name, ["a", "b", *["lone"] * kept])


def test_a_tar_without_a_sample_is_no_shard(tmp_path: Path) -> None:
    for name, members in (("a", clip("a", 300)), ("b", [("b.txt", b"no sound")]), ("c", clip("c", 300))):
        (tmp_path / f"{name}.tar").write_bytes(tar(members))
    shards = ss.index_shards(tmp_path)
    assert shards.table().column("shard").to_pylist() == ["a.tar", "c.tar"]
    assert [one["name"] for one in manifest_of(tmp_path)["shards"]] == ["a.tar", "c.tar"]
    assert ss.verify(tmp_path, full=True).is_sound


def test_the_hash_of_rows_is_of_all_that_a_plan_and_a_reader_take_from_them() -> None:
    row = IndexRow("k", "s.tar", 0, 1024, 5, "wav", 8000, 100, {})
    others = [{"key": "l"}, {"offset": 512}, {"size": 512}, {"crc32c": 6}, {"sample_rate": 16_000}, {"frames": 50}]
    assert len({rows_hash([row._replace(**change)]) for change in [{}, *others]}) == 7


def test_metadata_may_stand_before_and_behind_the_sound(tmp_path: Path) -> None:
    for name, order in (("before", [1, 0]), ("behind", [0, 1])):
        folder = tmp_path / name
        folder.mkdir()
        pieces = [clip(f"k{number}", 300, text=f"t{number}") for number in range(3)]
        (folder / "x.tar").write_bytes(tar(piece[at] for piece in pieces for at in order))
        shards = ss.index_shards(folder)
        assert [row["text"] for row in shards.table().to_pylist()] == ["t0", "t1", "t2"]
        assert len(wavs(loader(shards))) == 3


def test_a_name_that_stands_twice_is_a_sample_once(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(tar([*clip("k", 300), *clip("l", 310), *clip("k", 320)]))
    (tmp_path / "b.tar").write_bytes(tar([*clip("l", 330), *clip("m", 340)]))
    shards = ss.index_shards([tmp_path / "a.tar", tmp_path / "b.tar"])
    assert [(row["key"], row["frames"]) for row in shards.table().to_pylist()] == [("k", 300), ("l", 310), ("m", 340)]
    assert left_out(tmp_path) == [("k", "refused", "duplicate_key"), ("l", "refused", "duplicate_key")]
    shards = ss.index_shards([tmp_path / "a.tar", tmp_path / "b.tar"], prefix_keys=True)
    keys = [row["key"] for row in shards.table().to_pylist()]
    assert keys == ["a+k", "a+l", "b+l", "b+m"]
    assert left_out(tmp_path) == [("k", "refused", "duplicate_key")]
    assert sorted(wavs(loader(shards))) == keys  # the reader knows where the prefix comes from


def test_tars_that_count_from_nought_each_are_told_what_to_do(tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.tar").write_bytes(tar(one for number in range(5) for one in clip(f"{number:06d}")))
    with pytest.raises(UsageError, match=r"10 of 15 samples have a key that another one has.*--prefix-keys"):
        ss.index_shards(tmp_path)
    assert len(ss.index_shards(tmp_path, prefix_keys=True)) == 15


def test_a_key_cut_at_its_first_dot_is_told(tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(tar([*clip("a.1-x"), *clip("a.2-x"), *clip("b")]))
    report = index_tars(tmp_path / "x.tar")
    assert [one.reason for one in report.left_out] == ["several_audio"]
    assert "WebDataset cuts names at the first dot" in report.left_out[0].message


def test_odd_recordings(real_data: Path, tmp_path: Path) -> None:
    files = sorted((real_data / "odd").iterdir())
    (tmp_path / "x.tar").write_bytes(tar((f"odd/{path.name}", path.read_bytes()) for path in files))
    shards = ss.index_shards(tmp_path)
    assert left_out(tmp_path) == [
        ("odd+dots", "refused", "several_audio"), ("odd+no_frames", "damaged", "empty"),
        ("odd+text_not_audio", "damaged", "decode"), ("odd+zero_bytes", "damaged", "empty"),
    ]  # fmt: skip
    stream = ss.ShardStream(shards, epochs=1).load_audio(sample_rate=None)
    lengths = {str(sample["key"]): len(sample["wav"]) for sample in stream}
    planned = {str(row["key"]): int(row["frames"]) for row in shards.table().to_pylist()}
    assert planned.keys() - lengths.keys() == {"odd+cut_in_half"}  # only decoding tells
    assert lengths == {key: frames for key, frames in planned.items() if key in lengths}


# ---- where it goes ----------------------------------------------------------------------------


def test_files_with_another_recording_behind_the_first_are_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The first alone is read. Of what has to be read anyway it is seen; of all, where all is read."""
    pairs = [(f"{codec}.{codec}", encoded(codec, 800, 1) + encoded(codec, 4000, 2)) for codec in FORMATS]
    (tmp_path / "a.tar").write_bytes(tar([*pairs, *clip("one")]))
    for options, count in (([], 2), (["--full"], 5)):
        words = ["index", str(tmp_path / "a.tar"), "--out", str(tmp_path / "set"), "--workers", "0", *options]
        assert main(words) == 0
        assert f"\n{count} files have others glued behind the first" in capsys.readouterr().out
        glued = manifest_of(tmp_path / "set")["indexed"]["glued"]
        assert (glued["samples"], set(glued["first_keys"]) >= {"wav", "mp3"}) == (count, True)
        assert ss.open_shards(tmp_path / "set").table()["frames"].to_pylist() == [800] * 6


def test_beside_or_elsewhere_and_again(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "a/tars", 2, 4)
    before = files_below(folder)
    elsewhere = ss.index_shards(str(folder / "train-{000000..000001}.tar"), tmp_path / "index", name="s")
    assert files_below(folder) == before
    beside = ss.index_shards(folder, name="s")
    assert {name: content for name, content in files_below(folder).items() if name in before} == before
    assert list(map(delivered, loader(elsewhere))) == list(map(delivered, loader(beside)))
    assert beside.fingerprint == elsewhere.fingerprint
    first = files_below(folder)
    ss.index_shards(folder, name="s", num_workers=2)
    assert files_below(folder) == first  # the same bytes, whatever the number of workers
    assert not [name for name in first if name.startswith(".")]


def test_a_set_may_hold_tars_of_several_folders(tmp_path: Path) -> None:
    for name in ("x", "y/z"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "0.tar").write_bytes(tar(clip(f"{name[-1]}0", 300)))
    shards = ss.index_shards([tmp_path / "x/0.tar", tmp_path / "y/z/0.tar"], tmp_path / "out")
    assert shards.members[0].shard_names == ["x/0.tar", "y/z/0.tar"]
    assert len(wavs(loader(tmp_path / "out"))) == 2


def test_what_is_in_the_way_stays(tmp_path: Path, sample_set: Path) -> None:
    folder = write_tars(tmp_path / "tars", 1, 2)
    (folder / "train-000000.tar.parquet").write_bytes(b"somebody's")
    with pytest.raises(UsageError, match=r"parquet is in the way"):
        ss.index_shards(folder)
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/manifest.json").write_bytes((sample_set / "manifest.json").read_bytes())
    with pytest.raises(UsageError, match=r"manifest\.json there is of no index"):
        ss.index_shards(folder, tmp_path / "packed")
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(UsageError, match="is a file"):
        ss.index_shards(folder, tmp_path / "file")
    assert (folder / "train-000000.tar.parquet").read_bytes() == b"somebody's"


def test_a_failed_index_leaves_the_earlier_one(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "tars", 1, 2)
    ss.index_shards(folder)
    before = files_below(folder)
    with pytest.raises(UsageError, match="no such file"):
        ss.index_shards(folder / "train-000007.tar")
    (tmp_path / "table.csv").write_text("nothing,here\n1,2\n")
    with pytest.raises(UsageError, match="no column names the sample"):
        ss.index_shards(folder, durations=tmp_path / "table.csv")
    assert files_below(folder) == before


def test_an_index_that_was_killed_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_tars(tmp_path / "tars", 2, 4)
    ss.index_shards(folder)
    complete = files_below(folder)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("s3prl_stream.shards.write_index._parquet_bytes", killed)
        with pytest.raises(KeyboardInterrupt):
            ss.index_shards(folder)
    with pytest.raises(UsageError, match=r"no shard set here .*begun and never finished"):
        ss.open_shards(folder)
    with pytest.raises(UsageError, match="never finished"):  # no set without a manifest, which repair would make up
        ss.verify(folder)

    def again(*_: object) -> None:
        with pytest.raises(ss.StateError, match=f"^{folder}: process {os.getpid()} of .* works in this folder"):
            ss.index_shards(folder)
        assert (folder / ".indexing").is_dir()  # of the one at work

    index_tars(folder, progress=again)
    assert files_below(folder) == complete


def test_a_full_disk_is_told_and_the_same_command_goes_on(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "tars", 1, 4)
    with files_of_at_most(100), pytest.raises(ShardError, match=r"cannot be written: .*give the same command again"):
        ss.index_shards(folder)
    assert {path.suffix for path in folder.iterdir()} == {".tar"}
    assert len(ss.index_shards(folder)) == 4


def test_what_cannot_be_opened_says_what_to_do(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "tars", 2, 2)
    for name in (folder / "train-000000.tar", f"{folder}/train-{{000000..000001}}.tar", "s3://b/{a,b}.tar", folder):
        with pytest.raises(UsageError, match="s3prl-stream index"):
            ss.open_shards(name)
    ss.index_shards(folder)
    ss.index_shards(folder, tmp_path / "other", name="other")
    assert [member.name for member in ss.open_shards(f"{tmp_path}/{{tars,other}}").members] == ["tars", "other"]


def test_a_name_of_a_tar_that_cannot_be_written_down(tmp_path: Path) -> None:
    for name in (os.fsdecode(b"caf\xe9.tar"), "two\nlines.tar"):
        (tmp_path / name).write_bytes(tar(clip("a")))
        with pytest.raises(UsageError, match="Rename it"):
            ss.index_shards(tmp_path / name, tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("magic", [b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd", b"PK\x03\x04"])
def test_compressed_tars_are_refused(magic: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.tar").write_bytes(magic + bytes(5000))
    with pytest.raises(UsageError, match="Unpack it"):
        ss.index_shards(tmp_path / "x.tar")
    (tmp_path / "x.tar.gz").write_bytes(b"whatever")
    with pytest.raises(UsageError, match="Unpack it"):
        ss.index_shards(tmp_path / "x.tar.gz")


def test_one_file_that_is_no_tar_is_listed_and_all_of_them_are_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.tar").write_bytes(np.random.default_rng(0).bytes(50_000))
    (tmp_path / "b.tar").write_bytes(b"")
    with pytest.raises(ShardError, match=r"none of 2 tars can be indexed.*a\.tar: not a tar"):
        ss.index_shards(tmp_path)
    (tmp_path / "c.tar").write_bytes(tar(clip("k")))
    report = index_tars(f"{tmp_path}/{{a,b,c,d}}.tar")
    assert [(one.audio, one.reason) for one in report.problems] == [
        ("a.tar", "not_a_tar"), ("b.tar", "not_a_tar"), ("d.tar", "missing")
    ]  # fmt: skip
    (tmp_path / "c.tar").write_bytes(tar([("readme.txt", b"x")]))
    with pytest.raises(ShardError, match="not one of 4 tars holds a sample"):
        index_tars(f"{tmp_path}/{{a,b,c,d}}.tar")


# ---- the offsets that others left -------------------------------------------------------------


def starts_of(path: Path) -> list[int]:
    """Where each sample's first file begins; all have two."""
    with tarfile.open(path) as file:
        return [info.offset for info in file][::2]


@pytest.mark.parametrize("sentinel", ["file size", "end of the last sample", "wrong", "no numbers", "backwards"])
def test_offsets_that_lie_there_are_compared_and_kept(sentinel: str, tmp_path: Path) -> None:
    members = [one for number in range(5) for one in clip(f"k{number}", 300 + number)]
    path = tmp_path / "x.tar"
    path.write_bytes(tar(members))
    starts, size = starts_of(path), path.stat().st_size
    end = {"file size": size, "end of the last sample": size - 1024}.get(sentinel, size)
    offsets(path, [*starts[:2], starts[2] + 512 * (sentinel == "wrong"), *starts[3:]], end)
    if sentinel == "backwards":
        offsets(path, starts[::-1], end)
    if sentinel == "no numbers":
        path.with_name("x.tar.idx").write_bytes(b"hello")
    before = path.with_name("x.tar.idx").read_bytes()
    report = index_tars(path)
    is_wrong = sentinel in ("wrong", "no numbers", "backwards")
    assert report.manifest["indexed"]["wrong_offsets"] == (["x.tar"] if is_wrong else [])
    assert report.manifest["shards"][0]["offsets"] == "found"
    assert path.with_name("x.tar.idx").read_bytes() == before  # another tool's file
    assert [row["offset"] for row in ss.open_shards(tmp_path).table().to_pylist()] == starts
    ss.index_shards(path)
    assert path.with_name("x.tar.idx").read_bytes() == before


def test_offsets_of_our_own_have_the_layout_that_others_read(tmp_path: Path) -> None:
    path = write_tars(tmp_path, 1, 4) / "train-000000.tar"
    ss.index_shards(tmp_path)
    with tarfile.open(path) as file:
        file.getmembers()
        end = file.offset
    assert np.fromfile(f"{path}.idx", "<u8").tolist() == [*starts_of(path), end]


# ---- the promises -----------------------------------------------------------------------------


def test_which_says_where_a_clip_lies(indexed: ShardSet, tmp_path: Path) -> None:
    half = loader(indexed)
    batch = next(iter(half))
    for key, at in zip(batch["key"], half.which(batch["batch_index"]), strict=True):
        path = Path(indexed.members[0].tars.url) / at["shard"]
        found = path.read_bytes()[at["offset"] : at["offset"] + at["size"]]
        (tmp_path / "piece.tar").write_bytes(found + bytes(1024))
        with tarfile.open(tmp_path / "piece.tar") as piece:
            assert {unescaped(key)} == {name.partition(".")[0] for name in piece.getnames()}
        assert key == at["key"]


def test_damage_costs_its_sample_alone(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "tars", 1, 12, mtime=0)
    shards = ss.index_shards(folder, full=True)
    whole = wavs(loader(shards))
    rows = shards.table().to_pylist()
    path = folder / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[rows[4]["offset"] + 700] ^= 1  # in the first file of it
    data[rows[7]["offset"] + 3] ^= 1  # its first header
    path.write_bytes(data)
    hurt = loader(ss.open_shards(folder))
    found = wavs(hurt)
    lost = [rows[at]["key"] for at in (4, 7)]
    assert sorted(whole.keys() - found.keys()) == lost
    assert all(np.array_equal(found[key], whole[key]) for key in found)
    assert sorted((one["key"], one["reason"], one["offset"]) for one in hurt.damaged) == [
        (rows[at]["key"], "crc", rows[at]["offset"]) for at in (4, 7)
    ]


def test_damage_without_checksums_is_found_by_headers(tmp_path: Path) -> None:
    folder = write_tars(tmp_path / "tars", 1, 12, mtime=0)
    shards = ss.index_shards(folder)
    rows = shards.table().to_pylist()
    path = folder / "train-000000.tar"
    data = bytearray(path.read_bytes())
    data[rows[7]["offset"] + 3] ^= 1
    path.write_bytes(data[: rows[10]["offset"] + 600])
    hurt = loader(ss.open_shards(folder))
    assert len(wavs(hurt)) == 9
    assert {one["key"]: one["reason"] for one in hurt.damaged} == {
        rows[7]["key"]: "tar", rows[10]["key"]: "truncated", rows[11]["key"]: "truncated"
    }  # fmt: skip


def test_a_tar_that_was_made_anew_gives_no_sample_under_another_ones_key(tmp_path: Path) -> None:
    folder = tmp_path
    (folder / "x.tar").write_bytes(tar([*clip("a", 300), *clip("b", 310), *clip("c", 320)]))
    shards = ss.index_shards(folder)
    (folder / "x.tar").write_bytes(tar([*clip("a", 300), *clip("z", 310), *clip("c", 320)]))
    again = loader(ss.open_shards(folder))
    assert sorted(wavs(again)) == ["a", "c"]
    assert [(one["key"], one["reason"]) for one in again.damaged] == [("b", "key")]
    assert "not the one that was indexed" in again.damaged[0]["message"]
    assert len(shards) == 3


# ---- run --------------------------------------------------------------------------------------


def run_of(tmp_path: Path, frames: list[int], speakers: list[str], in_names: bool = False) -> int:
    pairs = list(enumerate(zip(frames, speakers, strict=True)))
    if in_names:
        members = [one for at, (n, who) in pairs for one in clip(f"{who}-{at}", n)]
    else:
        members = [one for at, (n, who) in pairs for one in clip(f"{at}", n, speaker=who)]
    (tmp_path / "x.tar").write_bytes(tar(members))
    return int(index_tars(tmp_path / "x.tar").manifest["run"])


@pytest.mark.parametrize("in_names", [False, True])
def test_the_run_is_long_where_neighbours_are_a_random_draw(in_names: bool, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    speakers = [f"s{number // 8}" for number in range(200)]
    alike = [200 + int(n) for n in rng.integers(0, 20, 200)]
    assert run_of(tmp_path, alike, speakers, in_names) == 1  # one speaker after the other
    assert run_of(tmp_path, alike, [speakers[at] for at in rng.permutation(200)], in_names) == 4
    unlike = [100 * 3 ** int(n) for n in rng.integers(0, 5, 200)]
    assert run_of(tmp_path, unlike, [speakers[at] for at in rng.permutation(200)], in_names) == 1


# ---- tables -----------------------------------------------------------------------------------


def report_with(tmp_path: Path, table: str, name: str = "table", **config: Any) -> IndexReport:
    members = [one for number in range(4) for one in clip(f"d/k{number}", 1600, text=f"old {number}")]
    (tmp_path / "x.tar").write_bytes(tar(members))
    (tmp_path / name).write_text(table, "utf-8")
    return index_tars(tmp_path / "x.tar", durations=tmp_path / name, **config)


def nemo_row(number: int, **values: Any) -> str:
    return json.dumps({"audio_filepath": f"d/k{number}.wav", "duration": 0.1, "text": f"nemo {number}", **values})


def cut(number: int, **values: Any) -> str:
    supervision = {"id": "s", "start": 0, "duration": 0.1, "text": f"cut {number}", "speaker": f"sp{number}"}
    recording = {"id": f"d/k{number}", "sources": [], "sampling_rate": 16000, "num_samples": 1600, "duration": 0.1}
    return json.dumps({"id": f"d/k{number}", "start": 0, "duration": 0.1, "channel": 0, "recording": recording,
                       "supervisions": [supervision], "type": "MonoCut", **values})  # fmt: skip


NO_LENGTHS = {"lengths_believed": 0, "lengths_measured": 0, "tars_that_differ": [], "first_wrong_length": None}
"""Of WAV, whose first bytes tell the length."""

TABLES = {
    "nemo": ("\n".join(nemo_row(n, shard_id=0, lang="de") for n in range(4)), {"text": "nemo {}", "lang": "de"}),
    "lhotse": ("\n".join(cut(n) for n in range(4)) + "\n", {"text": "cut {}", "speaker": "sp{}"}),
    "csv": ("key,seconds,text\n" + "\n".join(f'd/k{n},0.1,"csv, {n}"' for n in range(4)), {"text": "csv, {}"}),
    "tsv": ("path\tduration\ttext\n" + "\n".join(f'k{n}.wav\t0.1\ttsv "{n}' for n in range(4)), {"text": 'tsv "{}'}),
    "jsonl": ("\n".join(json.dumps({"id": f"k{n}", "text": f"j {n}", "x": [1]}) for n in range(4)), {"text": "j {}"}),
}  # fmt: skip


@pytest.mark.parametrize("kind", TABLES)
def test_a_table_gives_metadata_before_that_of_the_tar(kind: str, tmp_path: Path) -> None:
    text, expected = TABLES[kind]
    report = report_with(tmp_path, text)
    assert report.table == {"rows": 4, "samples_without_row": 0, "rows_without_sample": 0, "rows_twice": 0,
                            "durations_differ": 0, "first_difference": None, **NO_LENGTHS}  # fmt: skip
    shards = ss.open_shards(tmp_path)
    rows = shards.table().to_pylist()
    for name, pattern in expected.items():
        assert [row[name] for row in rows] == [pattern.format(number) for number in range(4)]
    delivered_samples = sorted(ss.ShardStream(shards, epochs=1), key=lambda sample: str(sample["key"]))
    for name, pattern in expected.items():
        assert [sample[name] for sample in delivered_samples] == [pattern.format(number) for number in range(4)]


def test_how_a_table_fits_is_told_and_the_audio_is_right(tmp_path: Path) -> None:
    near = nemo_row(2, duration=0.12)  # tables round and trim
    rows = [nemo_row(0, duration=3.0), nemo_row(1), nemo_row(1, duration=0.05), nemo_row(8), near]
    report = report_with(tmp_path, "\n".join(rows))
    assert report.table == {
        "rows": 5, "samples_without_row": 2, "rows_without_sample": 2, "rows_twice": 1, "durations_differ": 1,
        "first_difference": "'d/k0': 3.0 s, the audio has 0.100 s", **NO_LENGTHS,
    }  # fmt: skip
    rows = ss.open_shards(tmp_path).table().to_pylist()
    assert [row["text"] for row in rows] == ["nemo 0", "old 1", "nemo 2", "old 3"]
    assert {row["seconds"] for row in rows} == {0.1}


def test_a_set_goes_to_other_processes_with_its_table(tmp_path: Path) -> None:
    report_with(tmp_path, "\n".join(nemo_row(n, lang="de") for n in range(3)), prefix_keys=True)
    stream = ss.ShardStream(tmp_path, epochs=1, shuffle=False)
    again = pickle.loads(pickle.dumps(stream.shards))
    for planned in stream.planned():
        for item in planned.items:
            one, other = stream.shards.read(item), again.read(item)
            assert bytes(one.pop("audio")) == bytes(other.pop("audio"))
            assert one == other
            number = int(item.key[-1])
            assert (one["text"], one.get("lang")) == ((f"nemo {number}", "de") if number < 3 else ("old 3", None))


def test_a_state_is_refused_where_the_table_says_something_else_now(tmp_path: Path) -> None:
    """The tars are the same to the last byte, and the samples are not."""
    write_tars(tmp_path / "set", num_tars=2, num_clips=2)

    def loader(text: str) -> ss.Loader:
        rows = [{"key": f"part/utt{at:04d}", "text": f"{text} {at}"} for at in range(4)]
        (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        shards = ss.index_shards(tmp_path / "set", tmp_path / "index", durations=tmp_path / "table.jsonl")
        return ss.Loader(ss.ShardStream(shards, max_batch_size=1).load_audio())

    before = loader("old")
    assert next(iter(before))["text"][0].startswith("old")
    loader("old").load_state_dict(before.state_dict())
    with pytest.raises(StateError, match=r"data\.index was"):
        loader("new").load_state_dict(before.state_dict())


# ---- the command ------------------------------------------------------------------------------


def test_a_worker_forked_while_another_loader_reads_the_index(tmp_path: Path) -> None:
    """Locks that a thread of this process holds at that moment are not for the child, which has no such thread."""
    write_tars(tmp_path / "set", num_tars=1, num_clips=2)
    rows = [{"key": f"part/utt{at:04d}", "text": f"table {at}"} for at in range(2)]
    (tmp_path / "table.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    shards = ss.index_shards(tmp_path / "set", durations=tmp_path / "table.jsonl")
    folder: Any = shards.members[0]
    (item, _) = next(ss.ShardStream(shards, shuffle=False).planned()).items
    context = multiprocessing.get_context("fork")
    told = context.SimpleQueue()
    with folder._parts._lock, folder._indexed._kept._lock:
        child = context.Process(target=lambda: told.put(shards.read(item)["text"]), daemon=True)
        child.start()
        child.join(30)
    assert child.exitcode == 0, "it waits for ever"
    assert told.get() == shards.read(item)["text"]


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_tars(tmp_path / "tars", 2, 3)
    words = ["index", f"{folder}/train-{{000000..000001}}.tar", "--workers", "0"]
    assert main([*words, "--out", str(tmp_path / "out"), "--name", "mine", "--full"]) == 0
    assert capsys.readouterr().out.startswith(f"{tmp_path}/out: 6 samples, 0.0 min in 2 shards")
    assert ss.open_shards(tmp_path / "out").name == "mine"
    assert None not in ss.open_shards(tmp_path / "out").table().column("crc32c").to_pylist()
    (folder / "bad.tar").write_bytes(tar([*clip("x.1"), *clip("x.2"), *clip("y")]))
    assert main(["index", str(folder), "--workers", "0", "--json"]) == 1
    facts = json.loads(capsys.readouterr().out)
    assert (facts["samples"], facts["shards"], [one["reason"] for one in facts["left_out"]]) == (
        7,
        3,
        ["several_audio"],
    )
    (folder / "bad.tar").write_bytes(tar([*clip("x.1"), *clip("x.2"), *clip("y"), ("z.txt", b"no audio")]))
    assert main(["index", str(folder / "bad.tar"), "--out", str(tmp_path / "bad"), "--workers", "0"]) == 1
    shown = capsys.readouterr().out
    assert "\nskipped for holding no audio: 1\ndamaged or refused: 1\n" in shown
    assert "several_audio" in shown
    for wrong in (["index", str(tmp_path / "none.tar")], ["index", "pipe:cat x.tar"], ["index", str(tmp_path)]):
        assert main(wrong) == 2
        shown = capsys.readouterr()
        assert (shown.out, len([one for one in shown.err.splitlines() if not one.startswith("indexing:")])) == ("", 1)
