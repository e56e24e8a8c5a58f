"""`pretrain` with settings by name, what is held out, other weights to begin with, and a probe on the way."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from small_recipes import TINY, TINY_WORDS
from streams import clips

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes import pretrain as pretraining
from s3prl_stream.recipes.run_folder import SETTINGS, check_run, read_settings
from s3prl_stream.recipes.run_settings import RunSettings, ValidSettings
from s3prl_stream.recipes.run_streams import streams_of
from s3prl_stream.recipes.tera import TERA
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.trainer.checkpoint import (
    BEST,
    list_checkpoints,
    load_state,
    load_weights,
    newest_checkpoint,
    write_json,
)
from s3prl_stream.trainer.loop import train
from s3prl_stream.trainer.losslog import read_lines, read_losses
from s3prl_stream.trainer.settings import TrainSettings
from s3prl_stream.trainer.validate import mean_loss

SIZES = {**TINY, "max_batch_seconds": 20.0}


def keys_in(loader: ss.Loader) -> set[str]:
    return {key for batch in loader for key in batch["key"]}


def test_a_file_and_assignments_are_resolved_into_the_run(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "small.toml"
    config.write_text(
        "[model]\nhidden_size = 8\nnum_layers = 2\nnum_heads = 2\nffn_size = 8\n"
        "[stream]\nmax_batch_seconds = 20\ncrop_seconds = 3\n"
        '[run]\ndevice = "cpu"\nseed = 4\n[valid]\nshare = 0.2\nevery = 2\n'
        '[probe]\nlabel = "digit"\nevery = 5\nwhere = "digit < 3"\n'
    )
    words = ["pretrain", "tera", "--data", str(sample_set), "--out", str(tmp_path / "run"), "--steps", "3", "--json"]
    assert main([*words, "--config", str(config), "--set", "num_layers=1", "--set", "train.betas=[0.9, 0.98]"]) == 0
    shown = json.loads(capsys.readouterr().out)
    settings = read_settings(tmp_path / "run")
    assert (settings["encoder"]["num_layers"], settings["betas"], settings["seed"]) == (1, [0.9, 0.98], 4)
    assert load_state(newest_checkpoint(tmp_path / "run"))["settings"] == settings
    metrics = read_lines(tmp_path / "run" / "metrics.jsonl")
    assert {line["step"] for line in metrics if "valid_loss" in line} == {2, 3}
    assert all(0 <= line["probe_accuracy"] <= 1 for line in metrics if "probe_accuracy" in line)
    assert {line["step"] for line in metrics if "probe_accuracy" in line} == {3}
    assert shown["metrics"]["valid_loss"] == [line["valid_loss"] for line in metrics if "valid_loss" in line][-1]
    assert main([*words, "--set", "help"]) == 0
    assert "model.num_layers" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "train.lrr=1"], "no setting 'train.lrr'; did you mean train.lr?"),
        (["--set", "valid.share=2"], "valid.share is 2"),
        (["--valid-share", "0.1", "--valid-where", "take == 0"], "give one of where, share and data"),
        (["--set", "probe.label=colour"], "no column 'colour'"),
        (["--set", "probe.label=digit", "--set", "probe.holdout=speaker=nobody"], "speaker has no value nobody"),
        (["--set", "probe.label=digit", "--set", "probe.test_where=take > 99"], "leaves no test utterances"),
        (["--set", "probe.where=take == 0"], "probe.where is given, but no probe.label"),
        (["--init", "no/such/run"], "no/such/run: no checkpoint"),
        (["--config", "no.toml"], "no.toml: cannot be read"),
        (["--set", "lr=-1"], "lr is -1"),
        (["--set", "model.feat_dim=40"], "feat_dim is 40, but the features (logmel80) have 80 dimensions"),
        (["--set", "target_dim=201"], "target_dim is 201, but the features that are to come out have 80"),
        (["--dropout", "2"], "dropout is 2.0; it must be at least 0 and below 1"),
        (["--valid-share", "1e-9"], "valid: "),
        (["--valid-where", "seconds >= 0"], "what valid leaves to train on: where='not (seconds >= 0)' selects none"),
    ],
)
def test_slips_leave_nothing_behind(
    sample_set: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    command = ["pretrain", "tera", "--data", str(sample_set), "--out", str(tmp_path / "run"), "--steps", "1"]
    assert main([*command, *TINY_WORDS.split(), *words]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("valid", [{"share": 0.25}, {"where": "digit == 3"}])  # clips without a digit are trained on
def test_what_is_held_out_is_not_trained_on(sample_set: Path, valid: dict[str, Any]) -> None:
    shards, where = ss.open_shards(sample_set), "speaker != 'ada'"
    short = TERA.having({"crop_seconds": 0.3})
    everything = keys_in(ss.Loader(short.stream(shards, epochs=1, where=where)))
    trained, held_out = streams_of(short, shards, RunSettings(where=where), ValidSettings(**valid), None)
    validated = keys_in(ss.Loader(held_out))
    loader, seen = ss.Loader(trained), set()
    for batch in itertools.islice(loader, loader.batches_in_epoch(0)):
        seen.update(batch["key"])
    assert validated
    assert seen.isdisjoint(validated)
    assert seen | validated == everything


def test_a_subset_and_weights_are_those_of_the_training(sample_set: Path) -> None:
    shards, short = ss.open_shards(sample_set), TERA.having({"crop_seconds": 0.3})
    seconds = {row["key"]: row["seconds"] for row in shards.table().to_pylist()}
    own = RunSettings(subset="20s")
    for valid in ({}, {"share": 0.2}, {"where": "take == 0"}, {"data": str(sample_set)}):
        trained, held_out = streams_of(short, shards, own, ValidSettings(**valid, subset="5s" if valid else None), None)
        loader = ss.Loader(trained)
        batches = itertools.islice(loader, loader.batches_in_epoch(0))
        assert 15 < sum(seconds[key] for batch in batches for key in batch["key"]) < 30  # to a clip, of up to 12 s
        if valid:
            assert 0 < sum(seconds[key] for key in keys_in(ss.Loader(held_out))) < 14
    mixed = ShardSet([MemoryShards(clips([1.0] * 40), name) for name in "ab"], (0.9, 0.1))
    _, held_out = streams_of(short, mixed, RunSettings(), ValidSettings(share=0.25), None)
    found = [one for batch in ss.Loader(held_out) for one in zip(batch["set"], batch["key"], strict=True)]
    assert len(found) == len(set(found)) == len([key for key in found if key[0] == "a"]) * 2


def test_the_loss_on_held_out_clips_falls_and_its_best_weights_stay(sample_set: Path, tmp_path: Path) -> None:
    result = ss.pretrain(
        "tera", sample_set, steps=24, out=tmp_path, lr=0.02, valid={"share": 0.2, "subset": "20s", "every": 8}, **SIZES
    )
    losses = [line["valid_loss"] for line in read_lines(tmp_path / "metrics.jsonl")]
    assert losses[-1] < 0.98 * losses[0]
    assert result.metrics["valid_loss"] == losses[-1]
    (best,) = list_checkpoints(tmp_path, folder=BEST)
    assert load_state(best)["metrics"]["valid_loss"] == min(losses)
    assert ss.upstream(best).hidden_size == 8


def test_other_weights_to_begin_with(sample_set: Path, tmp_path: Path) -> None:
    ss.pretrain("tera", sample_set, steps=2, out=tmp_path / "one", **SIZES)
    weights = load_weights(newest_checkpoint(tmp_path / "one"))
    for number, init in enumerate((tmp_path / "one", newest_checkpoint(tmp_path / "one"))):
        run = tmp_path / f"two-{number}"
        ss.pretrain("tera", sample_set, steps=1, out=run, init=str(init), lr=1e-30, where="take == 0", **SIZES)
        after = load_weights(newest_checkpoint(run))
        assert all(torch.equal(after[name], weight) for name, weight in weights.items())
    with pytest.raises(ss.StateError, match="the weights do not fit this network"):
        ss.pretrain(
            "tera", sample_set, steps=1, out=tmp_path / "three", init=str(tmp_path / "one"), **{**SIZES, "ffn_size": 4}
        )


def test_slips_in_python_are_told(sample_set: Path, tmp_path: Path) -> None:
    for slip, said in (
        ({"num_worker": 1}, "no setting 'num_worker'; did you mean num_workers"),
        ({"valid": {"shar": 0.1}}, "valid: no setting 'shar'; did you mean share?"),
        ({"valid": {"share": 0.1, "every": 0}}, "valid.every is 0"),
        ({"valid": {"share": 1}}, "valid.share is 1"),
        ({"valid": {"subset": "5s"}}, "valid.subset is '5s', but nothing is held out"),
    ):
        with pytest.raises(ss.UsageError, match=said):
            ss.pretrain("tera", sample_set, steps=1, out=tmp_path / "run", **{**SIZES, **slip})
    assert not (tmp_path / "run").exists()


def test_settings_of_a_run_reach_what_they_are_for(
    sample_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained: list[tuple[TrainSettings, dict[str, torch.Tensor]]] = []
    validated: list[str] = []

    def noted_train(objective: Any, batches: Any, settings: TrainSettings, **more: Any) -> Any:
        trained.append((settings, {name: one.clone() for name, one in objective.state_dict().items()}))
        return train(objective, batches, settings, **more)

    def noted_loss(*arguments: Any, precision: str, **more: Any) -> float:
        validated.append(precision)
        return mean_loss(*arguments, precision=precision, **more)

    monkeypatch.setattr(pretraining, "train", noted_train)
    monkeypatch.setattr(pretraining, "mean_loss", noted_loss)
    own = {"seed": 3, "precision": "bf16", "checkpoint_every": 2, "keep_checkpoints": 3, "max_bad_steps": 4}
    ss.pretrain("tera", sample_set, steps=1, out=tmp_path, valid={"share": 0.1, "subset": "3s"}, **own, **SIZES)
    ((settings, weights),) = trained
    assert {name: getattr(settings, name) for name in own} == own
    assert (validated, read_settings(tmp_path)["on_device"]) == (["bf16"], False)
    recipe = find_recipe("tera").having(
        {name: SIZES[name] for name in ("hidden_size", "num_layers", "num_heads", "ffn_size")}
    )
    before = torch.random.get_rng_state()
    same, other = (build_objective(recipe, seed=seed).state_dict() for seed in (3, 4))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert all(torch.equal(same[name], weight) for name, weight in weights.items())
    assert not torch.equal(other["encoder.project.weight"], weights["encoder.project.weight"])


def test_a_run_may_go_on_with_other_values_of_what_changes_no_step(tmp_path: Path) -> None:
    free = {"num_workers", "device", "compile", "checkpoint_every", "keep_checkpoints", "max_bad_steps", "tensorboard"}
    free |= {"steps", "sets", "weights", "ranks", "valid_every", "valid_subset", "version"}
    of_run = [one.name for one in dataclasses.fields(RunSettings)]
    for name in free.union(of_run, (f"valid_{one.name}" for one in dataclasses.fields(ValidSettings))):
        run = tmp_path / name
        run.mkdir()
        write_json(run / SETTINGS, {name: 1})
        (run / "losses.jsonl").write_text('{"step": 1}\n')  # or nothing would be lost
        with contextlib.nullcontext() if name in free else pytest.raises(ss.StateError, match=f"{name} was 1, is 2"):
            check_run(run, {name: 2})


def test_a_place_that_may_hold_a_secret_is_not_written_down() -> None:
    for url, written in (
        ("s3://bucket/set", True),
        ("https://me:secret@host/set", False),
        ("https://host/set?key=s", False),
    ):
        member: Any = SimpleNamespace(store=SimpleNamespace(url=url))
        assert pretraining._place_of(member) == (url if written else None)


def test_bf16_and_a_compiled_encoder_are_named_in_the_run(sample_set: Path, tmp_path: Path) -> None:
    ss.pretrain("tera", sample_set, steps=2, out=tmp_path, precision="bf16", **SIZES)
    assert read_settings(tmp_path)["precision"] == "bf16"
    with pytest.raises(ss.StateError, match="precision was 'bf16', is 'fp32'"):
        ss.pretrain("tera", sample_set, steps=3, out=tmp_path, **SIZES)
    assert len(read_losses(tmp_path)) == 2
