"""Sets in the layouts of NeMo, Energon, Lhotse and WebDataset: indexed by their folder, streamed with all promises."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_elsewhere import WRITERS, Clip, some_clips, write_energon, write_lines, write_nemo, write_shar
from streams import delivered
from tars import unescaped

import s3prl_stream as ss
from s3prl_stream.errors import UsageError
from s3prl_stream.indexing.foreign import IndexReport, index_tars
from s3prl_stream.shards.lhotse_cuts import write_lhotse_cuts

KEYS = {"nemo": "_data_corpus_v1_0_{}", "energon": "{}", "shar": "v1.0-{}", "tars": "{}"}


@pytest.fixture(scope="module")
def clips(sample_set: Path) -> list[Clip]:
    return some_clips(sample_set)


@pytest.fixture
def made(request: pytest.FixtureRequest, clips: list[Clip], tmp_path: Path) -> tuple[str, Path]:
    WRITERS[request.param](tmp_path / request.param, clips)
    return request.param, tmp_path / request.param


def stream_of(shards: Any, epochs: int = 1) -> ss.ShardStream:
    return ss.ShardStream(shards, seed=3, epochs=epochs, max_batch_seconds=2.0, run=1)


def batches(shards: Any) -> ss.Loader:
    return ss.Loader(stream_of(shards).load_audio(dtype="int16"))


def noisy(shards: Any, **config: Any) -> ss.Loader:
    return ss.Loader(stream_of(shards, epochs=2).load_audio().add_noise(snr=10.0), **config)


@pytest.mark.parametrize("made", WRITERS, indirect=True)
def test_a_folder_is_a_set_with_all_promises(made: tuple[str, Path], clips: list[Clip]) -> None:
    kind, folder = made
    shards = ss.index_shards(folder)
    rows = {row["key"]: row for row in shards.table().to_pylist()}
    key_of = {clip.name: KEYS[kind].format(clip.name) for clip in clips}
    assert sorted(map(unescaped, rows)) == sorted(key_of.values())

    alone = list(batches(shards))
    found = {unescaped(key): (batch, row) for batch in alone for row, key in enumerate(batch["key"])}
    assert sum(len(batch["key"]) for batch in alone) == len(found) == len(clips)  # each once
    for clip in clips:
        batch, row = found[key_of[clip.name]]
        np.testing.assert_array_equal(batch["wav"][row, : batch["wav_len"][row]], clip.wav)
        told = rows[batch["key"][row]]
        assert (
            (batch["text"][row], batch["speaker"][row]) == (told["text"], told["speaker"]) == (clip.text, clip.speaker)
        )
        assert told["seconds"] == clip.seconds

    whole = [delivered(batch) for batch in noisy(shards)]
    for world in (2, 3):  # views of one stream
        ranks = [list(noisy(shards, rank=rank, world_size=world)) for rank in range(world)]
        assert len({len(some) for some in ranks}) == 1
        assert sorted(delivered(batch) for some in ranks for batch in some if batch["key"]) == sorted(whole)
    assert [delivered(batch) for batch in noisy(shards, num_workers=2)] == whole
    for stop in (1, len(whole) // 2 + 1):
        half = noisy(shards)
        begun = [delivered(batch) for _, batch in zip(range(stop), half, strict=False)]
        rest = []
        for rank in range(2):  # and of other ranks
            again = noisy(ss.open_shards(folder), rank=rank, world_size=2)
            again.load_state_dict(json.loads(json.dumps(half.state_dict())))
            rest += [delivered(batch) for batch in again if batch["key"]]
        assert begun + sorted(rest) == whole

    shard, lost = shards.members[0].shard_names[1], next(key for key, row in rows.items() if "1.tar" in row["shard"])
    content = bytearray((folder / shard).read_bytes())
    sound = content.index(b"RIFF" if kind == "nemo" else b"fLaC", rows[lost]["offset"])
    content[sound : sound + 64] = bytes(64)
    (folder / shard).write_bytes(content)  # damage costs its sample alone
    damaged = batches(folder)
    left = [key for batch in damaged for key in batch["key"]]
    assert sorted([*left, lost]) == sorted(rows)
    assert [(one["key"], one["shard"]) for one in damaged.damaged] == [(lost, shard)]


@pytest.mark.parametrize("made", WRITERS, indirect=True)
def test_what_beside_the_tars_is_used(made: tuple[str, Path]) -> None:
    kind, folder = made
    report = index_tars(folder)
    columns = set(ss.open_shards(folder).columns())
    tables = [] if report.layout is None else [Path(table).name for table in report.layout.tables]
    assert (report.manifest["indexed"]["layout"], tables, columns & {"lang", "language", "snr", "split"}) == {
        "nemo": ("NeMo", ["tarred_audio_manifest.json"], {"lang"}),
        "energon": ("Energon", [], {"split"}),
        "shar": ("Lhotse Shar", [f"cuts.{n:06d}.jsonl.gz" for n in range(3)], {"language", "snr"}),
        "tars": (None, [], {"snr"}),
    }[kind]
    if report.table is not None:
        assert (
            report.table["samples_without_row"] == report.table["rows_twice"] == report.table["durations_differ"] == 0
        )
    assert report.problems == []


def test_splits_of_energon_are_a_column(clips: list[Clip], tmp_path: Path) -> None:
    write_energon(tmp_path / "set", clips)
    shards = ss.index_shards(tmp_path / "set")
    splits = {(row["shard"], row["split"]) for row in shards.table().to_pylist()}
    assert splits == {("part-0.tar", "train"), ("part-1.tar", "train"), ("part-2.tar", "val")}
    held_out = list(ss.ShardStream(shards, epochs=1, where="split == 'val'"))
    assert len(held_out) == 8
    assert {sample["split"] for sample in held_out} == {"val"}


def index_with_split(folder: Path, text: str) -> IndexReport:
    (folder / ".nv-meta" / "split.yaml").write_text(text)
    return index_tars(folder)


def test_what_energon_excludes(clips: list[Clip], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_energon(tmp_path / "set", clips)
    index_with_split(tmp_path / "set", "split_parts:\n  train: ['part-{0..2}.tar']\nexclude: ['part-1.tar']\n")
    assert {row["shard"] for row in ss.open_shards(tmp_path / "set").table().to_pylist()} == {
        "part-0.tar",
        "part-2.tar",
    }
    with pytest.raises(UsageError, match=r"excludes part-1.tar/k, which is no tar"):
        index_with_split(tmp_path / "set", "split_parts: {}\nexclude: ['part-1.tar/k']\n")
    monkeypatch.setattr("s3prl_stream.indexing.known_layouts.MAX_NAMES", 100)
    for text, match in (
        ("[1]", "holds a list"),
        ("a: [", "not YAML"),
        ("split_parts: 3", "no mapping"),
        ("split_parts: {train: part-0.tar}", "expected lists of names"),
        ("split_parts: {train: ['{0..99}', '{0..99}']}", "more than 100 names"),
        ("!!python/object/apply:os.system ['true']", "not YAML"),
        ("a: 2001-99-99", "not YAML"),
        ("a: " + "[" * 3000, "not YAML"),
    ):
        with pytest.raises(UsageError, match=match):
            index_with_split(tmp_path / "set", text)


@pytest.mark.parametrize("name", ["../part-0.tar", "/part-0.tar", "a/../../part-0.tar", "..\\part-0.tar"])
def test_no_name_of_energon_leads_out_of_the_folder(name: str, clips: list[Clip], tmp_path: Path) -> None:
    write_energon(tmp_path / "set", clips[:3])
    (tmp_path / "part-0.tar").write_bytes((tmp_path / "set" / "part-0.tar").read_bytes())
    (tmp_path / "set" / ".nv-meta" / ".info.json").write_text(json.dumps({"shard_counts": {name: 1}}))
    with pytest.raises(UsageError, match="is no name of a tar in the folder"):
        index_tars(tmp_path / "set")
    (tmp_path / "set" / ".nv-meta" / ".info.json").write_text('{"shard_counts": ' + "[" * 9999)
    with pytest.raises(UsageError, match="not JSON"):
        index_tars(tmp_path / "set")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["part-0.tar", "set"]


def test_older_metadata_of_energon(clips: list[Clip], tmp_path: Path) -> None:
    write_energon(tmp_path / "set", clips[:3])
    meta = tmp_path / "set" / ".nv-meta"
    (meta / ".info.json").unlink()
    (meta / "split.yaml").unlink()
    (meta / ".info.yaml").write_text("shard_counts:\n  part-0.tar: 1\n  part-2.tar: 1\n")
    shards = ss.index_shards(tmp_path / "set")
    assert shards.members[0].shard_names == ["part-0.tar", "part-2.tar"]
    assert "split" not in shards.columns()
    (meta / ".info.yaml").write_text("energon_version: 7\n")
    with pytest.raises(UsageError, match="no shard_counts"):
        index_tars(tmp_path / "set")


def test_sharded_manifests_alone(clips: list[Clip], tmp_path: Path) -> None:
    write_nemo(tmp_path / "set", clips, one_manifest=False)
    report = index_tars(tmp_path / "set")
    assert report.layout is not None
    assert [Path(table).name for table in report.layout.tables] == [f"manifest_{n}.json" for n in range(3)]
    assert report.table is not None
    assert (report.table["rows"], report.table["samples_without_row"]) == (len(clips), 0)
    report = index_tars(f"{tmp_path}/set/audio__OP_0..2_CL_.tar")  # named one by one, nothing else is looked for
    assert (report.layout, report.table) == (None, None)


@pytest.mark.parametrize("column", ["offset", "start"])
def test_parts_of_recordings_are_refused(column: str, clips: list[Clip], tmp_path: Path) -> None:
    write_nemo(tmp_path / "set", clips[:3], num_shards=1)
    name = "_data_corpus_v1_0_x"
    row: dict[str, Any] = {"audio_filepath": f"{name}-sub1.wav", "duration": 1.0, "text": "b", "offset": 1.5}
    if column == "start":
        row = {"id": name, "start": 1.5, "duration": 1.0, "supervisions": [{"text": "b"}]}
    write_lines(tmp_path / "set" / "tarred_audio_manifest.json", [{**row, column: 0}, row])
    with pytest.raises(
        UsageError, match=rf"line 2: {column} is 1.5, so it is a part of a recording.*--slice_with_offset"
    ):
        index_tars(tmp_path / "set")


def test_features_of_lhotse_are_not_read_and_alone_refused(clips: list[Clip], tmp_path: Path) -> None:
    write_shar(tmp_path / "set", clips, suffix="original")
    report = index_tars(tmp_path / "set")
    assert report.layout is not None
    assert report.layout.not_read == [f"features.{number:06d}.tar" for number in range(3)]
    assert [one.reason for one in report.left_out] == ["no_audio"]  # the cut without a recording
    assert {row["codec"] for row in ss.open_shards(tmp_path / "set").table().to_pylist()} == {"flac"}
    for tar in (tmp_path / "set").glob("recording.*"):
        tar.unlink()
    with pytest.raises(UsageError, match=r"a Lhotse Shar of features, without recordings\. Only audio is streamed"):
        index_tars(tmp_path / "set")


def test_original_audio_that_is_none(clips: list[Clip], tmp_path: Path) -> None:
    write_shar(tmp_path / "set", [clip._replace(name="x") for clip in clips[:1]], num_shards=1, suffix="original")
    tar = tmp_path / "set" / "recording.000000.tar"
    tar.write_bytes(tar.read_bytes().replace(b"fLaC", b"NIST", 1))
    with pytest.raises(ss.ShardError, match="begins like none of flac, wav"):
        index_tars(tmp_path / "set")


def test_the_command_tells_the_layout(clips: list[Clip], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from s3prl_stream.cli import main

    write_shar(tmp_path / "set", clips)
    assert main(["index", str(tmp_path / "set"), "--workers", "0"]) == 0
    shown = capsys.readouterr().out.splitlines()
    assert shown[1] == (
        "layout: Lhotse Shar; tables: cuts.000000.jsonl.gz, cuts.000001.jsonl.gz, cuts.000002.jsonl.gz; "
        "not read: features.000000.tar, features.000001.tar, features.000002.tar"
    )


# ---- a packed set in the hands of others: see also `tools/bench interop` -------------------------


def test_cuts_of_a_packed_set(sample_set: Path, tmp_path: Path) -> None:
    shards = ss.open_shards(sample_set)
    fields = write_lhotse_cuts(shards, tmp_path)
    assert fields["recording"] == [f"{sample_set}/sample-{number:06d}.tar" for number in range(5)]
    cuts = [json.loads(line) for path in fields["cuts"] for line in Path(path).read_text("utf-8").splitlines()]
    for cut, row in zip(cuts, shards.table().to_pylist(), strict=True):
        (supervision,) = cut["supervisions"]
        assert (cut["id"], supervision["text"], supervision["speaker"]) == (row["key"], row["text"], row["speaker"])
        assert cut["duration"] == supervision["duration"] == row["seconds"]
        assert (cut["recording"]["num_samples"], cut["recording"]["sampling_rate"]) == (row["frames"], 16_000)
        assert (cut["custom"]["split"], cut["custom"]["accent"]) == (row["split"], row["accent"])
    made_elsewhere = ss.index_shards(str(sample_set / "*.tar"), tmp_path / "index")
    with pytest.raises(UsageError, match="one packed set"):
        write_lhotse_cuts(made_elsewhere, tmp_path)


def test_either_end_of_offsets_is_sound(sample_set: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(sample_set, tmp_path / "set"))
    path = folder / "sample-000000.tar.idx"
    numbers = np.fromfile(path, "<u8")
    size = path.with_suffix("").stat().st_size
    assert numbers[-1] == size - 1024  # as Energon wants it
    for end, is_sound in ((size, True), (size - 512, True), (size + 1, False), (size - 1025, False)):
        np.append(numbers[:-1], np.uint64(end)).tofile(path)
        assert ss.verify(folder).is_sound is is_sound
