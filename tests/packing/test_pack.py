"""Packing: the same bytes from everything that should not matter, and every utterance accounted for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile

from s3prl_stream import MemoryShards, Utterance, index_shards, open_shards, pack
from s3prl_stream.audio.decode import decode
from s3prl_stream.corpora import librispeech
from s3prl_stream.errors import ShardError, UsageError
from s3prl_stream.packing import listing, packplan
from s3prl_stream.packing import pack as packing
from s3prl_stream.packing.pack import PackReport, pack_set
from s3prl_stream.packing.pack_shard import ShardTask, pack_shard
from s3prl_stream.packing.packplan import PackPlan
from s3prl_stream.packing.settings import PackSettings
from s3prl_stream.packing.workfolder import finished_shards, read_plan
from s3prl_stream.shards.claims import Claims, new_owner
from s3prl_stream.shards.layout import INDEX_COLUMNS, SHARDS_PER_PART
from s3prl_stream.shards.scratch import publish
from s3prl_stream.stores.local_store import LocalStore

RATE = 16_000


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 recordings of 0.2 to 1.4 s."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for number in range(60):
        wav = rng.integers(-3000, 3000, int(RATE * rng.uniform(0.2, 1.4)), dtype=np.int16)
        soundfile.write(folder / f"clip{number:02d}.{'flac' if number % 2 else 'wav'}", wav, RATE)
    return folder


def corpus(folder: Path, backwards: bool = False) -> Iterator[Utterance]:
    paths = sorted(path for path in folder.iterdir() if path.suffix in (".flac", ".wav"))
    for path in paths[::-1] if backwards else paths:
        yield Utterance(path.stem, path, speaker=path.stem[-1], take=int(path.stem[4:]), text=f"text of {path.stem}")


def shas(report: PackReport) -> list[str]:
    return [shard["sha256"] for shard in report.manifest["shards"]]


def read_index(folder: Path) -> list[dict[str, object]]:
    manifest = json.loads((folder / "manifest.json").read_bytes())
    return [row for part in manifest["parts"] for row in pq.read_table(folder / part).to_pylist()]


def read_webdataset(folder: Path) -> Iterator[dict[str, bytes]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import webdataset

        yield from webdataset.WebDataset([str(path) for path in sorted(folder.glob("*.tar"))], shardshuffle=False)


def assert_set_is_whole(folder: Path) -> None:
    """Manifest, index parts, row sidecars, offset sidecars and tars say the same of every byte."""
    manifest = json.loads((folder / "manifest.json").read_bytes())
    rows = iter(read_index(folder))
    for shard in manifest["shards"]:
        content = (folder / shard["name"]).read_bytes()
        assert hashlib.sha256(content).hexdigest() == shard["sha256"]
        own = pq.read_table(folder / f"{shard['name']}.parquet").to_pylist()
        assert own == [next(rows) for _ in range(shard["samples"])]
        offsets = np.fromfile(folder / f"{shard['name']}.idx", dtype="<u8").tolist()
        assert offsets == [*(row["offset"] for row in own), len(content) - 1024]
        assert sum(row["seconds"] for row in own) == pytest.approx(shard["seconds"])
        for row in own:
            sample = content[row["offset"] : row["offset"] + row["size"]]
            assert google_crc32c.value(sample) == row["crc32c"]
        with tarfile.open(folder / shard["name"]) as tar:
            names = [(one.name, one.mtime, one.uid, one.gid, one.mode, one.uname, one.gname, one.type) for one in tar]
        wanted = [f"{row['key']}.{suffix}" for row in own for suffix in (row["codec"], "json")]
        assert names == [(name, 0, 0, 0, 0o644, "", "", tarfile.REGTYPE) for name in wanted]
    assert next(rows, None) is None
    assert not list(folder.rglob("*.partial"))
    assert not list(folder.glob(".*"))


def test_bytes_do_not_depend_on_workers_listing_or_folder(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = PackSettings(shard_mb=0.4)
    one = pack_set(corpus(recordings), tmp_path / "a", settings, num_workers=0, name="set")
    two = pack_set(corpus(recordings, backwards=True), tmp_path / "b/c", settings, num_workers=2, name="set")
    assert len(shas(one)) > 2
    with monkeypatch.context() as patch:  # a corpus of many batches and buckets
        patch.setattr(listing, "ROWS_PER_BATCH", 7)
        patch.setattr(packplan, "_CLIPS_PER_BUCKET", 20)
        long = pack_set(corpus(recordings), tmp_path / "f", settings, name="set")
    assert shas(one) == shas(two) == shas(long)
    other_seed = pack_set(corpus(recordings), tmp_path / "e", PackSettings(shard_mb=0.4, seed=1), name="set")
    assert shas(other_seed) != shas(one)
    for name in ("index/part-00000.parquet", "set-000000.tar.parquet", "set-000000.tar.idx"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b/c" / name).read_bytes()


@pytest.mark.parametrize("codec", ["flac", "wav"])
def test_sets_are_whole_and_webdataset_reads_the_sources_back(recordings: Path, tmp_path: Path, codec: str) -> None:
    shards = pack(corpus(recordings), tmp_path / "set", codec=codec, shard_mb=0.05)
    assert len(shards) == 60
    assert shards.num_shards > SHARDS_PER_PART  # so that there are two parts
    assert len(list((tmp_path / "set/index").iterdir())) == -(-shards.num_shards // SHARDS_PER_PART)
    assert_set_is_whole(tmp_path / "set")
    assert shards.table().column_names[: len(INDEX_COLUMNS)] == list(INDEX_COLUMNS)
    seen = set()
    for sample in read_webdataset(tmp_path / "set"):
        key = sample["__key__"]
        (source,) = recordings.glob(f"{key}.*")
        wav, sample_rate = decode(sample[codec], codec)
        assert sample_rate == RATE
        np.testing.assert_array_equal(wav[:, 0], soundfile.read(source, dtype="int16")[0])
        assert json.loads(sample["json"]) == {"speaker": key[-1], "take": int(key[4:]), "text": f"text of {key}"}
        seen.add(key)
    assert seen == {utterance.key for utterance in corpus(recordings)}


def test_shards_are_near_their_size(recordings: Path, tmp_path: Path) -> None:
    report = pack_set(corpus(recordings), tmp_path / "set", PackSettings(shard_mb=0.5, codec="wav"))
    sizes = [shard["bytes"] for shard in report.manifest["shards"]]
    largest_clip = 1.4 * RATE * 2 + 4096
    assert max(sizes) < 0.5e6 + largest_clip
    assert min(sizes) > sum(sizes) / len(sizes) - largest_clip


def test_a_damaged_file_costs_itself(recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "ROWS_PER_BATCH", 2)
    wounded = tmp_path / "wounded"
    wounded.mkdir()
    for path in recordings.iterdir():
        (wounded / path.name).write_bytes(path.read_bytes())
    flac = (wounded / "clip01.flac").read_bytes()
    middle = len(flac) // 2
    (wounded / "clip01.flac").write_bytes(flac[:middle])
    (wounded / "clip03.flac").write_bytes(flac[:middle] + bytes([flac[middle] ^ 0x40]) + flac[middle + 1 :])
    (wounded / "clip00.wav").write_text("this is text")
    (wounded / "clip02.wav").write_bytes(b"")
    (wounded / "clip04.wav").write_bytes((wounded / "clip06.wav").read_bytes()[:2000])
    listed = [
        *corpus(wounded),
        Utterance("absent", wounded / "absent.flac"),
        Utterance("late", wounded / "clip05.flac", 9.0),
    ]
    report = pack_set(iter(listed), tmp_path / "set", PackSettings(), num_workers=2)
    assert {(one.key, one.kind, one.reason) for one in report.left_out} == {
        ("clip00", "damaged", "decode"),
        ("clip01", "damaged", "decode"),
        ("clip02", "damaged", "empty"),
        ("clip03", "damaged", "decode"),
        ("clip04", "damaged", "decode"),
        ("absent", "damaged", "missing"),
        ("late", "damaged", "range"),
    }
    assert report.manifest["counts"]["samples"] == 55
    assert report.manifest["counts"]["damaged"] == 7
    lines = [json.loads(line) for line in (tmp_path / "set/left_out.jsonl").read_bytes().splitlines()]
    assert [line["key"] for line in lines] == ["clip00", "clip01", "clip02", "clip03", "clip04", "absent", "late"]
    assert all(line["audio"].startswith(str(wounded)) and line["message"] for line in lines)
    assert_set_is_whole(tmp_path / "set")


def test_a_file_that_vanishes_between_header_and_reading_is_damaged(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_bytes((recordings / "clip00.wav").read_bytes())
    (tmp_path / "b.wav").write_bytes((recordings / "clip02.wav").read_bytes())

    def vanish(step: str, done: int, total: int | None) -> None:
        if step == "headers":
            (tmp_path / "a.wav").unlink()

    listed = [Utterance("a", tmp_path / "a.wav"), Utterance("b", tmp_path / "b.wav")]
    report = pack_set(listed, tmp_path / "set", PackSettings(), progress=vanish)
    assert [(one.key, one.reason) for one in report.damaged] == [("a", "missing")]
    assert report.manifest["counts"]["samples"] == 1


def test_when_nothing_can_be_packed_there_is_no_set(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "a.wav").write_text("text")
    flac = bytearray((recordings / "clip03.flac").read_bytes())
    flac[len(flac) // 2] ^= 0x40  # of which the header is sound
    (tmp_path / "b.flac").write_bytes(flac)
    for name in ("a.wav", "b.flac"):
        with pytest.raises(ShardError, match=rf"none of 1 utterances.*{name}"):
            pack([Utterance("a", tmp_path / name)], tmp_path / "set")
        assert not (tmp_path / "set").exists()


def test_lengths_out_of_range_are_counted_and_listed(recordings: Path, tmp_path: Path) -> None:
    settings = PackSettings(min_seconds=0.5, max_seconds=1.0)
    soundfile.write(tmp_path / "short.wav", np.ones(100, np.int16), RATE)
    short = Utterance("short", tmp_path / "short.wav", take="none", of="this alone")
    report = pack_set([*corpus(recordings), short], tmp_path / "set", settings)
    schema = pq.read_schema(tmp_path / "set/index/part-00000.parquet")
    assert (str(schema.field("take").type), "of" in schema.names) == ("int64", False)  # what is left out has no say
    lengths = {one.key: soundfile.info(one.audio).duration for one in (*corpus(recordings), short)}
    wanted = {
        "too_short": {k for k, s in lengths.items() if s < 0.5},
        "too_long": {k for k, s in lengths.items() if s > 1.0},
    }
    assert all(wanted.values())
    for reason, keys in wanted.items():
        assert {one.key for one in report.left_out if one.reason == reason} == keys
        assert report.manifest["counts"]["skipped"][reason] == len(keys)
    assert list(report.manifest["counts"]["skipped"]) == sorted(wanted)
    assert {row["key"] for row in read_index(tmp_path / "set")} == lengths.keys() - set.union(*wanted.values())
    assert not report.damaged


def test_long_recordings_are_split_without_loss(tmp_path: Path) -> None:
    wav = np.random.default_rng(0).integers(-3000, 3000, 10 * RATE + 7, dtype=np.int16)
    soundfile.write(tmp_path / "long.flac", wav, RATE)
    soundfile.write(tmp_path / "short.flac", wav[: 2 * RATE], RATE)
    segments = [{"start": 0.5, "end": 4.0, "label": "a"}, {"start": 9.0, "end": 9.5, "label": "b"}]
    listed = [
        Utterance("long", tmp_path / "long.flac", text="all of it", speaker="s", segments=segments),
        Utterance("short", tmp_path / "short.flac", text="this", speaker="s"),
        Utterance("part", tmp_path / "long.flac", 1.0, 7.0, words=["a"], segments=[
            {"start": 0, "end": 3, "label": "a"}, {"start": 3, "end": 3, "label": "b"}, {"start": 3, "end": 6}
        ]),
    ]  # fmt: skip
    pack_set(listed, tmp_path / "set", PackSettings(split_seconds=3.0))
    samples = {sample["__key__"]: sample for sample in read_webdataset(tmp_path / "set")}
    assert samples.keys() == {"long-0000", "long-0001", "long-0002", "long-0003", "short", "part-0000", "part-0001"}
    assert [json.loads(samples[f"part-{n:04d}"]["json"]) for n in range(2)] == [
        {"first_second": 0.0, "segments": [{"start": 0, "end": 3, "label": "a"}]},
        {"first_second": 3.0, "segments": [{"start": 0.0, "end": 3.0}]},
    ]
    pieces = [decode(samples[f"long-{n:04d}"]["flac"], "flac")[0][:, 0] for n in range(4)]
    np.testing.assert_array_equal(np.concatenate(pieces), wav)
    assert max(map(len, pieces)) - min(map(len, pieces)) <= 1
    told = [json.loads(samples[f"long-{n:04d}"]["json"]) for n in range(4)]
    assert all("text" not in one and one["speaker"] == "s" for one in told)
    starts = np.cumsum([0, *map(len, pieces)])[:4] / RATE
    assert [one["first_second"] for one in told] == pytest.approx(starts.tolist())
    absolute = [
        (one["first_second"] + s["start"], one["first_second"] + s["end"], s["label"])
        for one in told
        for s in one["segments"]
    ]
    assert [label for *_, label in absolute] == ["a", "a", "b"]
    assert [edge for *edges, _ in absolute for edge in edges] == pytest.approx(
        [0.5, starts[1], starts[1], 4.0, 9.0, 9.5]
    )
    assert json.loads(samples["short"]["json"])["text"] == "this"
    edge = [Utterance("edge", tmp_path / "long.flac", 0.0, (3 * RATE + 1) / RATE)]  # 12 us longer than a piece may be
    report = pack_set(edge, tmp_path / "edge", PackSettings(split_seconds=3.00005))
    assert report.manifest["counts"]["samples"] == 2


def test_stretches_channels_and_rates(tmp_path: Path) -> None:
    left = np.random.default_rng(0).integers(-3000, 3000, 4 * 8000, dtype=np.int16)
    soundfile.write(tmp_path / "a.wav", np.stack([left, -left], 1), 8000)
    listed = [Utterance("one", tmp_path / "a.wav", 1.0, 2.5), Utterance("two", tmp_path / "a.wav", 2.5)]
    exactly = PackSettings(sample_rate=8000, channel=1, min_seconds=1.5, max_seconds=1.5)
    pack_set(listed, tmp_path / "set", exactly)
    samples = {s["__key__"]: decode(s["flac"], "flac")[0][:, 0] for s in read_webdataset(tmp_path / "set")}
    np.testing.assert_array_equal(samples["one"], -left[8000:20_000])
    np.testing.assert_array_equal(samples["two"], -left[20_000:])
    report = pack_set(listed, tmp_path / "set16", PackSettings(channel="mean"))
    assert report.manifest["counts"]["seconds"] == 3.0
    assert [row["sample_rate"] for row in read_index(tmp_path / "set16")] == [16_000, 16_000]


def test_the_same_set_again_is_no_work_and_another_is_refused(recordings: Path, tmp_path: Path) -> None:
    folder = tmp_path / "set"
    settings = PackSettings()
    assert not pack_set(corpus(recordings), folder, settings).already_there
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    again = pack_set(corpus(recordings, backwards=True), folder, settings)
    assert again.already_there
    assert again.manifest["counts"]["samples"] == 60
    with pytest.raises(UsageError, match="codec='flac', not 'wav'"):
        pack_set(corpus(recordings), folder, PackSettings(codec="wav"))
    manifest = json.loads((folder / "manifest.json").read_bytes())
    older = {name: value for name, value in manifest["packing"].items() if name not in ("split", "refuse", "decode")}
    (folder / "manifest.json").write_text(json.dumps({**manifest, "packing": older}))  # from before there were these
    assert pack_set(corpus(recordings), folder, settings).already_there
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
    one, *others = corpus(recordings)
    (tmp_path / "longer.wav").write_bytes(Path(one.audio).read_bytes() + b"LIST\4\0\0\0INFO")
    for changed in (
        [],
        [one, Utterance("absent", tmp_path / "absent.wav")],
        [Utterance(one.key, one.audio, **{**one.metadata, "text": "another"})],
        [Utterance(one.key, one.audio, 0.05, **one.metadata)],
        [Utterance(one.key, tmp_path / "longer.wav", **one.metadata)],
    ):
        with pytest.raises(UsageError, match="other utterances"):
            pack_set([*changed, *others], folder, settings)
    with pytest.raises(UsageError, match="its name is 'set'"):
        pack_set(corpus(recordings), folder, settings, name="other")
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("*")} == before
    (folder / "left_out.jsonl").write_text('{"key": 1')
    with pytest.raises(ShardError, match=r"left_out\.jsonl: line 1 is damaged \(.*\)\. `s3prl-stream repair` writes"):
        pack_set(corpus(recordings), folder, settings)
    for lost in ("set-000000.tar.idx", "index/part-00000.parquet"):
        (folder / lost).unlink()
        with pytest.raises(
            ShardError, match=rf"{lost}: not there, though the set was finished\. `s3prl-stream repair`"
        ):
            pack_set(corpus(recordings), folder, settings)
    (folder / "set-000000.tar").write_bytes(b"")
    with pytest.raises(ShardError, match=r"000000\.tar: 0 bytes, \d+ bytes were packed\. `s3prl-stream repair` writes"):
        pack_set(corpus(recordings), folder, settings)
    for damage in ({"shards": [{}]}, {"parts": 5}):
        (folder / "manifest.json").write_text(json.dumps({**manifest, **damage}))
        with pytest.raises(
            ShardError, match=r"manifest\.json: not a readable manifest \(.*\)\. `s3prl-stream repair` ma"
        ):
            pack_set(corpus(recordings), folder, settings)


def test_other_peoples_folders_are_left_alone(recordings: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UsageError, match=r"thesis\.tex"):
        pack_set(corpus(recordings), tmp_path, PackSettings())
    with pytest.raises(UsageError, match="is a file"):
        pack_set(corpus(recordings), tmp_path / "thesis.tex", PackSettings())
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]


@pytest.fixture(scope="module")
def unfinished(recordings: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a pack into shards of 0.2 MB has left that was killed after 40 clips."""
    folder = tmp_path_factory.mktemp("unfinished") / "set"
    program = (
        "import os, sys, pathlib, signal\n"
        "from s3prl_stream.corpora import folder\n"
        "from s3prl_stream.packing.pack import pack_set\n"
        "from s3prl_stream.packing.settings import PackSettings\n"
        "def die(step, done, total):\n"
        "    if (step, done) == ('packing', 40): os.kill(os.getpid(), signal.SIGKILL)\n"
        "pack_set(folder(sys.argv[1]), sys.argv[2], PackSettings(shard_mb=0.2), progress=die)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, recordings, folder], check=False)
    assert done.returncode == -signal.SIGKILL
    assert list(folder.glob("*.tar")), "killed too early to mean anything"
    assert not (folder / "manifest.json").exists()
    return folder


def test_a_pack_goes_on_after_a_kill_and_leaves_finished_shards_alone(
    recordings: Path, unfinished: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(unfinished, folder)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.glob("*.tar")}
    cut = tmp_path / "cut/set"
    shutil.copytree(unfinished, cut)
    tar = next(cut.glob("*.tar"))
    os.truncate(tar, 512)
    with pytest.raises(ShardError, match=rf"{tar.name}: 512 bytes, \d+ were written. Remove it, and the same command"):
        pack_set(listed(recordings), cut, PackSettings(shard_mb=0.2))
    tar.unlink()
    pack_set(listed(recordings), cut, PackSettings(shard_mb=0.2))
    assert_set_is_whole(cut)
    report = pack_set(listed(recordings), folder, PackSettings(shard_mb=0.2))
    assert_set_is_whole(folder)
    assert all((path.stat().st_ino, path.stat().st_mtime_ns) == then for path, then in before.items())
    assert not list(folder.glob(".*"))
    assert shas(report) == shas(pack_set(listed(recordings), tmp_path / "again/set", PackSettings(shard_mb=0.2)))


def test_an_unfinished_pack_of_another_set_is_kept_unless_asked(
    recordings: Path, unfinished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(unfinished, folder)
    (folder / "notes.txt").write_text("the user's own")
    (folder / "index").mkdir()
    (folder / "index/part-00009.parquet").touch()  # of a pack that was killed at its end
    before = sorted(folder.rglob("*"))
    for settings, complaint in (
        ({"settings": PackSettings(shard_mb=1)}, r"it was packed with shard_mb=0\.2, not 1"),
        ({"settings": PackSettings(shard_mb=0.2), "name": "other"}, "its name is 'set', not 'other'"),
    ):
        with pytest.raises(UsageError, match=rf"unfinished pack of another set: {complaint}.*--restart"):
            pack_set(listed(recordings), folder, **settings)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="other utterances"):
        pack_set(list(listed(recordings))[:-1], folder, PackSettings(shard_mb=0.2))
    one, *others = listed(recordings)
    with pytest.raises(UsageError, match="other utterances"):
        pack_set([Utterance(one.key, one.audio, text="new"), *others], folder, PackSettings(shard_mb=0.2))
    plan = folder / ".packing/plan.json"
    other = PackPlan.from_json(plan.read_bytes(), "plan.json")
    plan.write_bytes(other._replace(libraries={**other.libraries, "numpy": "1.0"}).to_json())
    with pytest.raises(UsageError, match=r"another set: it was packed with numpy 1\.0, not .*--restart"):
        pack_set(listed(recordings), folder, PackSettings(shard_mb=0.2))
    monkeypatch.setattr("s3prl_stream.packing.pack.LEASE_SECONDS", 0)
    monkeypatch.setattr("s3prl_stream.packing.pack.BEAT_SECONDS", 0)
    with Claims(folder, new_owner()), pytest.raises(UsageError, match="another pack is working there"):
        pack_set(listed(recordings), folder, PackSettings(shard_mb=1), restart=True)
    assert sorted(path for path in folder.rglob("*") if path.is_file()) == [path for path in before if path.is_file()]
    report = pack_set(listed(recordings), folder, PackSettings(shard_mb=1), restart=True)
    assert_set_is_whole(folder)
    assert (folder / "notes.txt").exists()
    assert [path.name for path in (folder / "index").iterdir()] == ["part-00000.parquet"]
    assert {path.name for path in folder.glob("*.tar")} == {shard["name"] for shard in report.manifest["shards"]}


def test_of_packs_of_two_plans_that_begin_at_once_one_is_refused(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other has written its plan, and a shard, when the first has made its own."""
    make_plan = packing.make_plan

    def begin_another(*args: Any) -> PackPlan:
        plan = make_plan(*args)
        monkeypatch.setattr(packing, "make_plan", make_plan)
        with monkeypatch.context() as patch:
            patch.setattr(packing, "finish", die)
            with pytest.raises(ShardError, match="the end"):
                pack_set(listed(recordings), tmp_path / "set", PackSettings(seed=1))
        return plan

    monkeypatch.setattr(packing, "make_plan", begin_another)
    with pytest.raises(
        UsageError, match=r"unfinished pack of another set: it was packed with seed=1, not 0.*--restart"
    ):
        pack_set(listed(recordings), tmp_path / "set", PackSettings(seed=0))
    assert pack_set(listed(recordings), tmp_path / "set", PackSettings(seed=1)).manifest["packing"]["seed"] == 1
    assert_set_is_whole(tmp_path / "set")


def die(*args: Any) -> None:
    """As a kill would."""
    raise OSError("the end")


def test_what_another_pack_has_finished_meanwhile_is_not_touched(
    recordings: Path, unfinished: Path, tmp_path: Path
) -> None:
    """A shard, as one finds it whose claim was given away while it slept; and the whole set."""
    folder = tmp_path / "set"
    shutil.copytree(unfinished, folder)
    before = {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in folder.rglob("*.[tp]ar*")}
    plan = read_plan(LocalStore(folder))
    assert plan is not None
    (number, *_) = finished_shards(LocalStore(folder), plan)
    settings = PackSettings(shard_mb=0.2)
    task = ShardTask(LocalStore(folder), "set", plan.digest, number, settings, plan.columns, None, None)
    assert pack_shard(task, lambda: None) == plan.clips[number]
    with pytest.raises(ShardError, match="another pack has begun anew here"):  # of a plan that was replaced
        pack_shard(task._replace(plan="00ff00ff00ff00ff"), lambda: None)
    assert {path: (path.stat().st_ino, path.stat().st_mtime_ns) for path in before} == before
    others: list[PackReport] = []

    def finish_first(step: str, done: int, total: int | None) -> None:
        if step == "packing" and not others:
            others.append(pack_set(listed(recordings), folder, PackSettings(shard_mb=0.2)))
            assert len(list((folder / ".packing/alive").iterdir())) == 1  # this pack's sign of life

    report = pack_set(listed(recordings), folder, PackSettings(shard_mb=0.2), progress=finish_first)
    assert (report.already_there, report.manifest) == (False, others[0].manifest)
    assert_set_is_whole(folder)


def test_what_is_lost_of_the_work_folder_is_made_anew(recordings: Path, unfinished: Path, tmp_path: Path) -> None:
    """The rows of a shard whose tar is there, the plan; what is damaged is named, and goes on when it is removed."""
    folder = tmp_path / "set"
    shutil.copytree(unfinished, folder)
    tars = {path: path.read_bytes() for path in folder.glob("*.tar")}
    one, other, *_ = sorted((folder / ".packing/shards").rglob("*.parquet"))
    one.unlink()
    for half_written in ("claims/000001.00ff.partial", "alive/owner.partial"):
        (folder / ".packing" / half_written).touch()
    clips = folder / ".packing/plan.arrow"
    whole_plan = clips.read_bytes()
    for left in (whole_plan[: len(whole_plan) // 2], whole_plan.replace(b"clip0", b"clip8"), None):
        clips.unlink() if left is None else clips.write_bytes(left)
        with pytest.raises(ShardError, match=r"plan\.arrow: .*\. Remove .*the same command makes"):
            pack_set(listed(recordings), folder, PackSettings(shard_mb=0.2))
    clips.write_bytes(whole_plan)
    for damaged, removed in (
        (other, other),
        (folder / ".packing/plan.jsonl", None),
        (folder / ".packing/plan.json",) * 2,
    ):
        content = damaged.read_bytes()
        damaged.write_bytes(content[:40] + b"{1" + content[42:])  # of rows a value, which Parquet would not tell
        with pytest.raises(ShardError, match=rf"{damaged.name}: .*\. Remove .*the same command makes"):
            pack_set(listed(recordings), folder, PackSettings(shard_mb=0.2))
        if removed is not None:
            removed.unlink()
    pack_set(listed(recordings), folder, PackSettings(shard_mb=0.2))
    assert_set_is_whole(folder)
    assert {path: path.read_bytes() for path in tars} == tars
    assert not list(folder.glob(".*"))


def test_a_plan_that_is_not_as_it_was_written_is_told() -> None:
    """Of another type, or a number that is another one: neither may become a traceback, or other shards."""
    plan = PackPlan("set", {"seed": 0}, "00ff", {"numpy": "2"}, "0f", 3, 0, [], {"text": "string"}, [2, 1])
    assert PackPlan.from_json(plan.to_json(), "plan.json") == plan
    values = json.loads(plan.to_json())
    for field in PackPlan._fields:
        for other in (None, 7, "x", [1], {"a": 1}):
            with pytest.raises(ShardError, match=r"plan\.json: not a readable plan\. Remove \.packing/plan\.json, and"):
                PackPlan.from_json(json.dumps({**values, field: other}).encode(), "plan.json")


def test_a_lost_line_of_what_the_plan_left_out_is_missed(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips = [*map(Utterance, ("one", "two"), sorted(recordings.iterdir())), Utterance("gone", tmp_path / "gone.flac")]
    with monkeypatch.context() as patch:
        patch.setattr(packing, "finish", die)
        with pytest.raises(ShardError, match="the end"):
            pack_set(clips, tmp_path / "set", PackSettings())
    work = tmp_path / "set/.packing"
    (work / "plan.jsonl").write_bytes(b"")
    with pytest.raises(ShardError, match=r"plan\.jsonl: damaged \(0 lines, 1 were written\)\. Remove \.packing/plan"):
        pack_set(clips, tmp_path / "set", PackSettings())
    (work / "plan.json").unlink()
    assert [one.key for one in pack_set(clips, tmp_path / "set", PackSettings()).left_out] == ["gone"]


def test_what_a_killed_restart_leaves_of_the_old_plan_is_no_part_of_the_new_set(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of a shard of the old plan nothing was left: that must not pass for the shard of its number in the new one."""
    sound = sorted(recordings.iterdir())[:4]
    damaged = tmp_path / "damaged.flac"
    soundfile.write(damaged, np.random.default_rng(0).integers(-999, 999, 9000, dtype=np.int16), 16_000)
    os.truncate(damaged, 5000)
    clips = [Utterance(path.stem, path) for path in [*sound, damaged]]

    def pack_again(seed: int) -> PackReport:
        return pack_set(clips, tmp_path / "set", PackSettings(shard_mb=0.001, seed=seed), restart=True)

    def die_behind_the_plan(store: LocalStore, name: str) -> None:
        die() if name.endswith("plan.jsonl") else delete(store, name)

    delete = LocalStore.delete
    for seed, where, dies in ((0, packing, ("finish", die)), (2, LocalStore, ("delete", die_behind_the_plan))):
        with monkeypatch.context() as patch:
            patch.setattr(where, *dies)
            with pytest.raises(ShardError, match="the end"):
                pack_again(seed)
    assert not (tmp_path / "set/.packing/plan.json").exists()
    assert list((tmp_path / "set/.packing/shards").rglob("*.nothing.parquet"))
    report = pack_again(2)
    assert [one.key for one in report.damaged] == ["damaged"]
    assert_set_is_whole(tmp_path / "set")
    assert {row["key"] for row in read_index(tmp_path / "set")} == {path.stem for path in sound}


@pytest.mark.parametrize("moment", ["before", "behind"])
def test_a_pack_that_ends_at_the_tar_of_a_shard_goes_on_there(
    recordings: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    def publish_and_fail(*args: Any) -> None:
        if moment == "behind":
            publish(*args)
        raise OSError("the end")

    with monkeypatch.context() as patch:
        patch.setattr("s3prl_stream.packing.pack_shard.publish", publish_and_fail)
        with pytest.raises(ShardError, match="the end"):
            pack_set(listed(recordings), tmp_path / "set", PackSettings())
    before = [(path, path.stat().st_ino) for path in (tmp_path / "set").glob("*.tar")]
    assert len(before) == (moment == "behind")
    pack_set(listed(recordings), tmp_path / "set", PackSettings())
    assert_set_is_whole(tmp_path / "set")
    assert [(path, path.stat().st_ino) for path, _ in before] == before


def listed(folder: Path) -> Iterator[Utterance]:
    """As `corpora.folder` lists it."""
    return (Utterance(path.stem, path) for path in sorted(folder.iterdir()))


def test_workers_end_with_a_pack_that_is_killed(recordings: Path, tmp_path: Path) -> None:
    program = (
        "import os, sys, signal, multiprocessing\n"
        "from s3prl_stream.corpora import folder\n"
        "from s3prl_stream.packing.pack import pack_set\n"
        "from s3prl_stream.packing.settings import PackSettings\n"
        "def die(step, done, total):\n"
        "    if step == 'packing' and done >= 10:\n"
        "        print(*(child.pid for child in multiprocessing.active_children()), flush=True)\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "if __name__ == '__main__':\n"
        "    pack_set(folder(sys.argv[1]), sys.argv[2], PackSettings(shard_mb=0.2), num_workers=2, progress=die)\n"
    )
    script = tmp_path / "script.py"
    script.write_text(program)
    # The workers hold the pipe of standard output open: reading it to its end waits for them.
    done = subprocess.run([sys.executable, script, recordings, tmp_path / "set"], capture_output=True, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert len(done.stdout.split()) == 2


@pytest.mark.parametrize(
    ("listed", "complaint"),
    [
        ([], "nothing to pack"),
        ([Utterance("a", "1.wav"), Utterance("a", "2.wav")], r"1\.wav \(number 1 of the list\) and 2\.wav \(n"),
        ([Utterance("a", "1.wav", frames=3)], "'frames'"),
        ([Utterance("a", "1.wav", level=np.int64(1))], "JSON.*Give Python's own numbers"),
        ([{"key": "a", "audio": "1.wav"}], "expected an Utterance whose key is a str"),
        (None, "None is no corpus: give an iterable of Utterance"),
        (Utterance("a", "1.wav"), "is no corpus"),
        (librispeech, "is no corpus.* Call it"),
    ],
)
def test_corpora_that_cannot_be_packed(tmp_path: Path, listed: Any, complaint: str) -> None:
    with pytest.raises(UsageError, match=complaint):
        pack(listed, tmp_path / "set")
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "wrong",
    [{"codec": "mp3"}, {"sample_rate": 0}, {"sample_rate": 16e3}, {"channel": "left"}, {"channel": -1}, {"shard_mb": 0},
     {"min_seconds": 3, "max_seconds": 2}, {"split_seconds": 0}, {"num_workers": -1}, {"name": "a/b"}, {"name": ""},
     {"shard_mb": "512"}, {"min_seconds": "1"}, {"seed": None}, {"seed": "a"}, {"thresholds": ["clipped"]},
     {"num_workers": "2"}, {"num_workers": 1.5}, {"name": 3}, {"corpus_name": Path("a")}, {"licence": 4},
     {"refuse": 3}],
)  # fmt: skip
def test_settings_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=next(iter(wrong))):
        pack([Utterance("a", "1.wav")], tmp_path / "set", **wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("audio", [None, b"RIFF", np.zeros(3)])
def test_audio_that_is_no_path_is_refused(audio: Any) -> None:
    with pytest.raises(UsageError, match=r"Utterance 'a': audio is of type .*, expected the path"):
        Utterance("a", audio)


@pytest.mark.parametrize("wrong", [None, 3, b"set", [None], [("set", 0.5)], {MemoryShards([{}]): 1.0}])
def test_what_is_no_path_is_refused(tmp_path: Path, wrong: Any) -> None:
    calls = [open_shards, index_shards]
    if not isinstance(wrong, dict):
        calls += [lambda out: pack([Utterance("a", "1.wav")], out), lambda out: index_shards(tmp_path, out=out)]
    for call in calls if wrong is not None else calls[:3]:
        with pytest.raises(UsageError, match="is no path and no URL"):
            call(wrong)


def test_memory_does_not_hold_a_shard(tmp_path: Path) -> None:
    """50 minutes in one shard of 96 MB raise the peak by less than 20 MB over 4 minutes."""
    wav = np.random.default_rng(0).integers(-30_000, 30_000, 60 * RATE, dtype=np.int16)
    for number in range(2):
        soundfile.write(tmp_path / f"{number}.wav", wav, RATE)
    program = (
        "import sys\n"
        "from s3prl_stream import Utterance\n"
        "from s3prl_stream.packing.pack import pack_set\n"
        "from s3prl_stream.packing.settings import PackSettings\n"
        "import pyarrow.parquet, soundfile, google_crc32c\n"
        "peak = lambda: int(open('/proc/self/status').read().partition('VmHWM:')[2].split()[0])\n"  # of it alone
        "listed = lambda n: [Utterance(f'{i}', f'{sys.argv[1]}/{i % 2}.wav') for i in range(n)]\n"
        "pack_set(listed(4), sys.argv[2] + '/few', PackSettings(codec='wav'))\n"
        "few = peak()\n"
        "pack_set(listed(50), sys.argv[2] + '/many', PackSettings(codec='wav'))\n"
        "print((peak() - few) * 1024)\n"
    )
    out = subprocess.run(
        [sys.executable, "-c", program, tmp_path, tmp_path], check=True, capture_output=True, text=True
    )
    assert os.path.getsize(tmp_path / "many/many-000000.tar") > 95e6
    assert int(out.stdout) < 20e6


def test_workers_do_not_run_the_calling_script_again(recordings: Path, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\nimport s3prl_stream as ss\n"
        "print(len(ss.pack(ss.corpora.folder(sys.argv[1]), sys.argv[2], num_workers=2)))\n"
    )
    command = [sys.executable, str(script), str(recordings), str(tmp_path / "set")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.stderr, len(done.stdout.split())) == ("", 1)
