"""Hidden states as a set: what is in it, streamed, planned and verified like any other, and continued after a stop."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_folders import worked_in_by_another
from tars import files_below
from torch import nn

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.errors import SampleError
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.shards.layout import EXTRACT_FOLDER, EXTRACT_STATE
from s3prl_stream.shards.npy import decode_features, encode_features
from s3prl_stream.upstreams.runs import upstream_of
from s3prl_stream.upstreams.upstream import FeatureUpstream

FEW: dict[str, Any] = {"where": "seconds < 0.8", "max_batch_seconds": 8.0}


@pytest.fixture(scope="module")
def up() -> Any:
    recipe = find_recipe("tera").having({"hidden_size": 8, "num_layers": 2, "num_heads": 2, "ffn_size": 8})
    return upstream_of(recipe, build_objective(recipe)).eval()


def rows_of(out: Path, **load: Any) -> dict[str, Any]:
    stream = ss.ShardStream(ss.open_shards(out), epochs=1, max_batch_seconds=20.0).load_feat(**load)
    return {sample["key"]: sample for sample in stream}


def test_every_clip_has_its_hidden_states_labels_and_texts(sample_set: Path, tmp_path: Path, up: Any) -> None:
    report = ss.extract(sample_set, up, tmp_path / "set", shard_mb=0.05, **FEW)
    audio = {
        sample["key"]: sample
        for sample in ss.ShardStream(sample_set, epochs=1, where=FEW["where"]).load_audio(sample_rate=16_000)
    }
    found = rows_of(tmp_path / "set")
    assert (report.samples, report.layers, report.damaged) == (len(audio), (0, 1, 2), 0)
    assert found.keys() == audio.keys()
    shards = ss.open_shards(tmp_path / "set")
    assert shards.num_shards > 2
    seconds = sum(len(sample["wav"]) / 16_000 for sample in audio.values())
    assert shards.hours * 3600 == pytest.approx(seconds, rel=0.03)
    for key, sample in audio.items():
        assert (found[key]["text"], found[key]["speaker"]) == (sample["text"], sample["speaker"])
        with torch.no_grad():
            expected = torch.stack([layer[0] for layer in up([sample["wav"]])], dim=1)
        assert found[key]["feat"].dtype == torch.float32
        torch.testing.assert_close(found[key]["feat"], expected, atol=3e-3, rtol=1e-3)
    one = rows_of(tmp_path / "set", layer=1)[key]["feat"]
    assert torch.equal(one, rows_of(tmp_path / "set")[key]["feat"][:, 1])
    assert one.shape == (len(expected), 8)
    assert rows_of(tmp_path / "set", dtype="float16")[key]["feat"].dtype == torch.float16


def test_the_set_is_one_like_any_other(sample_set: Path, tmp_path: Path, up: Any) -> None:
    ss.extract(sample_set, up, tmp_path, layers=[2], dtype="float32", **FEW)
    assert ss.verify(tmp_path, full=True).is_sound
    assert main(["inspect", str(tmp_path)]) == 0
    assert main(["which", str(tmp_path), "--batch", "0", "--html", str(tmp_path / "page.html")]) == 0
    page = (tmp_path / "page.html").read_text()
    assert "read &gt; load_feat" in page
    assert "cannot be decoded" not in page
    for wrong in ({"layers": 2}, {"layers": "2"}, {"max_batch_seconds": "x"}):
        with pytest.raises(ss.UsageError, match=f"extract: {next(iter(wrong))}: .* is not"):
            ss.extract(sample_set, up, tmp_path / "x", **wrong)
    with pytest.raises(ss.UsageError, match="this set holds features"):
        ss.ShardStream(tmp_path).load_audio()
    chunks = ss.ShardStream(tmp_path, epochs=1, chunk_seconds=0.2, max_batch_seconds=5.0).load_feat()
    whole = rows_of(tmp_path)
    pieces: dict[str, list[Any]] = {}
    for sample in chunks:
        assert len(sample["feat"]) <= 20
        pieces.setdefault(sample["key"], []).append((sample["first_frame"], sample["feat"]))
    for key, sample in whole.items():
        assert sample["feat"].shape[1:] == (8,)
        joined = torch.cat([feat for _, feat in sorted(pieces[key], key=lambda piece: piece[0])])
        assert torch.equal(joined, sample["feat"])
    loader = ss.Loader(ss.ShardStream(tmp_path, max_batch_seconds=5.0).load_feat())
    batch = next(iter(loader))
    assert batch["feat"].shape[0] == len(batch["key"]) == len(batch["feat_len"])
    again = ss.Loader(ss.ShardStream(tmp_path, max_batch_seconds=5.0).load_feat())
    again.load_state_dict(loader.state_dict())


class Stops(nn.Module):
    """An encoder that stops the whole as a kill would, the third time it is asked."""

    hidden_size = 80
    num_layers = 0
    left = 10**6

    def forward(self, feat: torch.Tensor, feat_len: torch.Tensor) -> list[torch.Tensor]:
        Stops.left -= 1
        if Stops.left < 0:
            raise KeyboardInterrupt
        return [feat]


def test_a_stopped_extraction_goes_on_to_the_same_bytes(sample_set: Path, tmp_path: Path) -> None:
    up = FeatureUpstream(Stops(), FrontEnd("logmel80"), norm="none").eval()
    settings = {**FEW, "shard_mb": 0.2, "name": "feats"}
    ss.extract(sample_set, up, tmp_path / "whole", **settings)
    assert ss.open_shards(tmp_path / "whole").name == "feats"
    for left in (3, 0, 4):
        Stops.left = left
        with pytest.raises(KeyboardInterrupt):
            ss.extract(sample_set, up, tmp_path / "stopped", **settings)
    finished = json.loads((tmp_path / "stopped" / EXTRACT_STATE).read_text())["shards"]
    assert finished
    for look in (ss.open_shards, ss.verify, lambda half: ss.repair(half, tmp_path / "repaired")):
        with pytest.raises(ss.UsageError, match="never finished: give the command that makes it again"):
            look(tmp_path / "stopped")
    with pytest.raises(ss.StateError, match="dtype was 'float16', is 'float32'"):
        ss.extract(sample_set, up, tmp_path / "stopped", dtype="float32", **settings)
    Stops.left = 10**6
    report = ss.extract(sample_set, up, tmp_path / "stopped", **settings)
    assert report.first_sample == sum(shard["samples"] for shard in finished) > 0
    assert files_below(tmp_path / "stopped") == files_below(tmp_path / "whole")
    before = (tmp_path / "whole" / "manifest.json").stat().st_mtime_ns
    for folder in ("whole", "begun"):  # as a kill after the last file leaves it, and one before the first
        (tmp_path / folder / EXTRACT_FOLDER).mkdir(parents=True)
    assert ss.extract(sample_set, up, tmp_path / "begun", **settings).first_sample == 0
    again = ss.extract(sample_set, up, tmp_path / "whole", **settings)
    assert (again.first_sample, again.samples) == (report.samples, report.samples)
    assert (tmp_path / "whole" / "manifest.json").stat().st_mtime_ns == before
    assert not (tmp_path / "whole" / EXTRACT_FOLDER).exists()


def test_a_damaged_clip_costs_itself(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """And is told of once, also by a run that goes on behind it."""
    shutil.copytree(sample_set, tmp_path / "broken")
    table = ss.open_shards(sample_set).table().to_pylist()
    row = next(one for one in table if one["seconds"] < 0.8)
    path = tmp_path / "broken" / row["shard"]
    content = bytearray(path.read_bytes())
    content[row["offset"] + row["size"] // 2] ^= 0xFF
    path.write_bytes(content)
    up = FeatureUpstream(Stops(), FrontEnd("logmel80"), norm="none").eval()
    Stops.left = 2
    with pytest.raises(KeyboardInterrupt):
        ss.extract(tmp_path / "broken", up, tmp_path / "set", shard_mb=0.05, **FEW)
    Stops.left = 10**6
    report = ss.extract(tmp_path / "broken", up, tmp_path / "set", shard_mb=0.05, **FEW)
    assert report.first_sample > 0
    expected = {one["key"] for one in table if one["seconds"] < 0.8} - {row["key"]}
    assert (report.damaged, rows_of(tmp_path / "set").keys()) == (1, expected)
    line = json.loads((tmp_path / "set" / "left_out.jsonl").read_text())
    assert (line["key"], line["reason"], line["kind"]) == (row["key"], "crc", "damaged")
    words = ["extract", "--data", str(tmp_path / "broken"), "--upstream", "fbank80", "--device", "cpu"]
    both = [row["key"], next(iter(expected))]
    assert main([*words, "--where", f"key in {tuple(both)}", "--out", str(tmp_path / "two")]) == 1
    assert f"1 clips could not be read: {tmp_path}/two/left_out.jsonl\n" in capsys.readouterr().out


def test_of_every_kind_of_upstream_and_told_apart_by_settings(sample_set: Path, tmp_path: Path) -> None:
    """NPC has numbers of no dimension among its weights; features have no weights at all."""
    recipe = find_recipe("npc").having({"hidden_size": 8, "num_blocks": 1, "codebook_sizes": (4,)})
    npc = upstream_of(recipe, build_objective(recipe)).eval()
    assert ss.extract(sample_set, npc, tmp_path / "npc", **FEW).layers == (0, 1, 2)
    one, other = (FeatureUpstream(None, FrontEnd(kind), norm="none") for kind in ("logmel80", "fbank80"))
    Stops.left = 0  # of an extraction that came to nothing the folder is free for another
    with pytest.raises(KeyboardInterrupt):
        ss.extract(sample_set, FeatureUpstream(Stops(), FrontEnd("logmel80")).eval(), tmp_path / "set", **FEW)
    assert ss.extract(sample_set, one, tmp_path / "set", **FEW).first_sample == 0
    with pytest.raises(ss.StateError, match="holds another extraction: upstream was"):
        ss.extract(sample_set, other, tmp_path / "set", **FEW)


def test_a_folder_in_which_another_process_extracts_is_refused(sample_set: Path, tmp_path: Path) -> None:
    up = FeatureUpstream(Stops(), FrontEnd("logmel80"), norm="none").eval()
    Stops.left = 0
    with pytest.raises(KeyboardInterrupt):
        ss.extract(sample_set, up, tmp_path, name="feats", **FEW)
    Stops.left = 10**6
    with (
        worked_in_by_another(tmp_path / EXTRACT_FOLDER) as pid,
        pytest.raises(ss.StateError, match=f"process {pid} .* works in this folder"),
    ):
        ss.extract(sample_set, up, tmp_path, name="feats", **FEW)
    assert ss.extract(sample_set, up, tmp_path, name="feats", **FEW).samples


def test_on_the_command_line(sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["extract", "--data", str(sample_set), "--upstream", "fbank80", "--out", str(tmp_path / "set")]
    where = ["--where", "seconds < 0.7", "--batch-seconds", "0.4"]  # less than most have
    assert main([*words, *where, "--device", "cpu", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    written = ss.open_shards(tmp_path / "set")
    made = written.table().to_pylist()
    of_set = [row for row in ss.open_shards(sample_set).table().to_pylist() if row["seconds"] < 0.7]
    assert [row["key"] for row in made] == [row["key"] for row in of_set]  # in its order, and whole
    assert [row["seconds"] for row in made] == pytest.approx([row["seconds"] for row in of_set], abs=0.03)
    assert (shown["samples"], written.name) == (len(written), "set")
    assert main([*words[:-1], str(sample_set)]) == 2
    assert "holds a set that is no extraction" in capsys.readouterr().err
    assert main([*words, "--layers", "1", "--device", "cpu"]) == 2
    assert "layers (1,); there are 0 to 0" in capsys.readouterr().err
    for option, value, said in (
        ("--layers", "0,0", "name each once"), ("--batch-seconds", "0", "above 0"), ("--shard-mb", "-1", "above 0"),
    ):  # fmt: skip
        assert main([*words, option, value, "--device", "cpu"]) == 2
        assert said in capsys.readouterr().err


def test_a_set_with_a_name_of_two_words_is_known_again(tmp_path: Path) -> None:
    data = ss.MemoryShards({"a": {"wav": np.zeros(1600, dtype=np.int16), "sample_rate": 16_000}}, "two words")
    assert [ss.extract(data, "fbank80", tmp_path, device="cpu").first_sample for _ in range(2)] == [0, 1]
    assert not (tmp_path / EXTRACT_FOLDER).exists()
    other = ss.MemoryShards({"b": {"wav": np.ones(1600, dtype=np.int16), "sample_rate": 16_000}}, "two words")
    for given, where, said in (
        (other, None, "data was 'two words "),
        (data, "seconds > 0", "where was None, is 'seconds > 0'"),
    ):
        with pytest.raises(ss.StateError, match=said):
            ss.extract(given, "fbank80", tmp_path, where=where, device="cpu")


def test_mistakes(sample_set: Path, tmp_path: Path, up: Any) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("keep me")
    with pytest.raises(ss.UsageError, match="holds other files"):
        ss.extract(sample_set, up, tmp_path / "mine")
    with pytest.raises(ss.UsageError, match="there are float16"):
        ss.extract(sample_set, up, tmp_path / "x", dtype="int8")
    with pytest.raises(ss.UsageError, match="not features"):
        next(iter(ss.ShardStream(sample_set).load_feat()))
    ss.extract(sample_set, up, tmp_path / "feats", where="seconds < 0.5", layers=[0])
    with pytest.raises(ss.UsageError, match="'frames_per_second' is in feats, not in sample"):
        ss.ShardStream([sample_set, tmp_path / "feats"])
    loud = FeatureUpstream(None, FrontEnd("logmel80"), norm="none")
    quiet = loud.front_end
    loud.front_end = type("Loud", (), {"features": lambda self, wav, norm: torch.full_like(quiet.features(wav, norm=norm), 1e6), "num_frames": quiet.num_frames, "stride": 160})()  # type: ignore[assignment]  # fmt: skip  # noqa: E501
    with pytest.raises(ss.StreamError, match="not finite in float16"):
        ss.extract(sample_set, loud, tmp_path / "loud", **FEW)
    state = tmp_path / "loud" / EXTRACT_STATE
    other_dtype = state.read_text().replace("float16", "float32")
    for content, said in (
        ("{", "not JSON: .*"),
        ("{}", "not as it was written"),
        (other_dtype, "not as it was written"),
    ):
        state.write_text(content)
        with pytest.raises(
            ss.StateError, match=rf"cannot be read \({said}\)\. Remove .*loud, and the same call begins"
        ):
            ss.extract(sample_set, loud, tmp_path / "loud", **FEW)


@pytest.mark.parametrize("shape", [(5, 3), (4, 2, 3)])
def test_npy(shape: tuple[int, ...]) -> None:
    features = np.random.default_rng(0).normal(size=shape).astype(np.float16)
    data = encode_features(features)
    assert np.array_equal(decode_features(data), features)
    assert np.array_equal(decode_features(data, first_frame=1, num_frames=2), features[1:3])
    for damaged in (data[:-1], b"x" + data, data + b"x", data[:20], encode_features(features.astype(np.int8))):
        with pytest.raises(SampleError):
            decode_features(damaged)
    with pytest.raises(SampleError, match="the index says 9"):
        decode_features(data, clip_frames=9)
    with pytest.raises(SampleError, match="asked for"):
        decode_features(data, first_frame=1, num_frames=9)
