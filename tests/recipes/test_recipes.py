"""Recipes as data: the published sizes, settings by name, and what a mistake says."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import s3prl_stream as ss
from s3prl_stream.early_probe import ProbeSettings
from s3prl_stream.recipes import RECIPES, build_objective, find_recipe
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.run_folder import recipe_of
from s3prl_stream.recipes.run_settings import RunSettings, ValidSettings
from s3prl_stream.trainer.settings import TrainSettings

PUBLISHED = {
    "mockingjay": (21_450_240, 776_688, 22_226_928),
    "mockingjay_large": (85_118_208, 746_697, 85_864_905),
    "tera": (21_327_360, 653_648, 21_981_008),
    "tera_large_batch": (21_327_360, 653_648, 21_981_008),
    "tera_fbank": (21_450_240, 776_688, 22_226_928),
    "tera_slim": (14_238_336, 179_408, 14_417_744),
    "audio_albert": (7_151_616, 653_648, 7_805_264),
    "apc": (4_064_256, 41_040, 4_105_296),
    "vq_apc": (4_064_256, 524_800 + 41_040, 4_630_096),
    "npc": (3_543_040 + 15_730_688, 65_792 + 41_040, 19_380_560),
    "distilhubert": (23_491_200, 3_543_552, 27_034_752),
}
"""Parameters of encoder, head and both, counted in S3PRL's own networks at their published sizes."""


MASKED = {
    "lr": 2e-4, "schedule": "linear", "warmup_share": 0.07, "optimizer": "adamw", "clip_norm": 5.0, "dropout": 0.1,
}  # fmt: skip
GRU = {
    "lr": 1e-4, "schedule": "constant", "warmup_share": 0.0, "optimizer": "adam", "clip_norm": 5.0, "dropout": 0.1,
    "n_future": 5, "crop_seconds": 15.0, "max_batch_seconds": 480.0, "update_batches": 1, "published_steps": 878_900,
}  # fmt: skip
SETTINGS: dict[str, dict[str, Any]] = {
    "mockingjay": {**MASKED, "mask": "mockingjay", "crop_seconds": 15.0, "published_steps": 1_000_000},
    "tera": {**MASKED, "mask": "tera", "crop_seconds": 15.0, "published_steps": 1_000_000},
    "tera_large_batch": {**MASKED, "lr": 5e-4, "warmup_share": 0.08, "update_batches": 2, "published_steps": 400_000},
    "tera_fbank": {**MASKED, "mask": "tera", "crop_seconds": 15.0, "dropout": 0.3, "attention_dropout": 0.3},
    "tera_slim": {**MASKED, "mask": "tera", "crop_seconds": 150.0, "dropout": 0.3, "attention_dropout": 0.3,
                  "noise_prob": 0.15, "hidden_size": 384, "num_layers": 12, "num_heads": 8, "ffn_size": 768},
    "mockingjay_large": {**MASKED, "mask": "mockingjay", "crop_seconds": 5.0, "target": "linear201", "num_layers": 12},
    "audio_albert": {**MASKED, "mask": "audio_albert", "crop_seconds": 15.0, "share_layers": True},
    "apc": {**GRU, "codebook_sizes": ()},
    "vq_apc": {**GRU, "codebook_sizes": (512,), "temperature": 0.5},
    "npc": {**GRU, "lr": 1e-3, "n_future": None, "mask_size": 5, "codebook_sizes": (64,) * 4, "temperature": 1.0},
    "distilhubert": {**MASKED, "betas": (0.9, 0.98), "eps": 1e-6, "cosine_weight": 1.0, "conv_gradient": 0.1,
                     "crop_seconds": 15.625, "published_steps": 200_000},
}  # fmt: skip
"""Those of S3PRL's configurations."""
FRONT_ENDS = {
    **dict.fromkeys(("tera", "audio_albert"), FrontEnd("logmel80", target_db=-25.0)),
    "mockingjay": FrontEnd("fbank80_povey", deltas=2),
    **dict.fromkeys(("apc", "vq_apc", "npc"), FrontEnd("fbank80")),
    "distilhubert": None,
}


def count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.fixture
def on_meta() -> Any:
    """Parameters without memory or numbers: they are only counted."""
    with torch.device("meta"):
        yield


@pytest.mark.parametrize("name", SETTINGS)
def test_published_settings(name: str) -> None:
    recipe = find_recipe(name)
    known = {setting: value for part in recipe.settings().values() for setting, value in part.items()}
    assert {setting: known.get(setting) for setting in SETTINGS[name]} == SETTINGS[name]
    assert recipe.front_end == FRONT_ENDS.get(name, recipe.front_end)


@pytest.mark.usefixtures("on_meta")
@pytest.mark.parametrize("name", RECIPES)
def test_published_parameter_counts(name: str) -> None:
    objective: Any = build_objective(name)
    assert (count(objective.encoder), count(objective.head), count(objective)) == PUBLISHED[name]
    assert count(ss.build_encoder(name)) == PUBLISHED[name][0]


@pytest.mark.usefixtures("on_meta")
def test_distilhubert_as_in_s3prls_repository() -> None:
    objective: Any = build_objective(find_recipe("distilhubert").having({"target_layers": (4, 12)}))
    assert (count(objective.head), count(objective)) == (2_362_368, 25_853_568)


@pytest.mark.parametrize("name", RECIPES)
def test_every_setting_has_one_name(name: str) -> None:
    parts = find_recipe(name).settings()
    names = [setting for part in parts.values() for setting in part]
    assert len(names) == len(set(names))


def test_settings_are_changed_by_name() -> None:
    changed = find_recipe("apc").having({"hidden_size": 64, "n_future": 3, "lr": 1e-3, "codebook_sizes": [8, 8]})
    assert (changed.model.hidden_size, changed.model.codebook_sizes) == (64, (8, 8))
    assert changed.settings()["stream"]["n_future"] == 3
    assert changed.train.lr == 1e-3
    assert find_recipe("apc").model.hidden_size == 512
    assert changed.model.num_layers == 3


def test_legacy_brings_s3prls_optimizer_and_masks_with_it(sample_set: Path) -> None:
    for legacy in (True, False):
        assert find_recipe("tera").having({"legacy": legacy}).stream(sample_set).stage("mask").legacy is legacy
    for name, optimizer in (("tera", "legacy"), ("distilhubert", "legacy"), ("apc", "adam")):
        assert find_recipe(name).having({"legacy": True}).train.optimizer == optimizer
    assert find_recipe("distilhubert").having({"legacy": True}).train.decay_norms
    assert not find_recipe("tera").having({"legacy": True}).train.decay_norms
    assert find_recipe("tera").having({"legacy": True, "optimizer": "adamw"}).train.optimizer == "adamw"
    assert find_recipe("tera").having({"legacy": True, "decay_norms": True}).train.decay_norms
    assert recipe_of({"recipe": "tera", "encoder": {}, "legacy": True}).legacy  # of a run


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: find_recipe("tera2"), "there are tera, mockingjay"),
        (lambda: find_recipe("apc").having({"hiden_size": 3}), "did you mean hidden_size"),
        (lambda: find_recipe("apc").having({"num_heads": 3}), "no setting 'num_heads'"),
        (lambda: ss.build_encoder("npc", num_heads=3), r"build_encoder\('npc'\): no setting 'num_heads'"),
        (lambda: ss.build_encoder("tera2"), "tera, mockingjay, audio_albert"),
        (lambda: ss.build_encoder("tera", hidden_size=100), "not a multiple of num_heads 12"),
        (lambda: ss.build_encoder("npc", num_blocks=5), "mask_size"),
        (lambda: ss.build_encoder("apc", num_layers=0), "at least 1"),
        (lambda: ss.build_encoder("tera", dropout=1.0), "dropout is 1.0; it must be at least 0 and below 1"),
        (lambda: ss.build_encoder("distilhubert", attention_dropout=-0.1), "attention_dropout is -0.1"),
        (lambda: ss.build_encoder("distilhubert", num_heads=0), "num_heads is 0; it must be at least 1"),
        (lambda: ss.build_encoder("npc", hidden_size=0), "hidden_size is 0"),
        (lambda: find_recipe("tera").having({"legacy": 3}), "recipe tera: legacy: 3 is not true or false"),
        (lambda: ProbeSettings(label="x", every="often"), "probe: every: 'often' is not a whole number"),  # type: ignore[arg-type]
        (lambda: ss.build_encoder("apc", hidden_size=10**20), "it must be at least 1 and at most 1000000"),
        (lambda: ss.build_encoder("tera", hidden_size=960_000), "recipe tera: these sizes make 44308 GB of weights"),
        (lambda: build_objective(find_recipe("npc").having({"codebook_sizes": (0,)})), "codebook_sizes"),
        (lambda: ss.build_encoder("distilhubert", num_heads=7), "multiple of num_heads"),
        (lambda: build_objective(find_recipe("npc").having({"hidden_size": 63})), "not a multiple of 4"),
        (lambda: build_objective("tera", teacher=nn.Linear(1, 1)), "has no teacher"),
        (lambda: find_recipe(["tera"]), "there are tera, mockingjay"),  # type: ignore[arg-type]
        (lambda: ss.build_encoder("tera", num_layers="3"), "num_layers: '3' is not a whole number"),
        (lambda: find_recipe("tera").having({"dropout": "x"}), "recipe tera: dropout: 'x' is not a number"),
        (lambda: find_recipe("tera").having({"crop_seconds": "a"}), "crop_seconds: 'a' is not a number or none"),
        (lambda: TrainSettings(num_steps="3"), "num_steps: '3' is not a whole number"),  # type: ignore[arg-type]
        (lambda: TrainSettings(num_steps=3, lr="fast"), "lr: 'fast' is not a number"),  # type: ignore[arg-type]
        (lambda: RunSettings(seed=None), "seed: None is not a whole number"),  # type: ignore[arg-type]
        (lambda: RunSettings(compile="x"), "compile: 'x' is not true or false"),  # type: ignore[arg-type]
        (lambda: ValidSettings(share="x"), "share: 'x' is not a number"),  # type: ignore[arg-type]
        (lambda: ss.pretrain("tera", [{}], steps=1, out="x", valid=0.1), "valid: 0.1 is no dict"),
        (lambda: ss.pretrain("tera", [{}], steps=1, out=3), "3 is no path and no URL"),
    ],
)
def test_mistakes_are_told(call: Any, said: str) -> None:
    with pytest.raises(ss.UsageError, match=said):
        call()


def test_a_path_is_text_and_numbers_of_numpy_are_numbers() -> None:
    """As all that goes into run.json, which is JSON."""
    own = RunSettings(init=Path("runs/tera"), seed=np.int64(3))  # type: ignore[arg-type]
    assert (own.init, own.seed, type(own.seed)) == ("runs/tera", 3, int)


def test_noise_is_a_setting_and_the_slim_tera_has_it(sample_set: Path) -> None:
    """S3PRL's noise_proportion of 0.15: what is not masked is no longer what is to come out, in so many utterances."""
    assert find_recipe("tera").settings()["stream"]["noise_prob"] == 0.0
    assert find_recipe("tera_slim").settings()["stream"]["noise_prob"] == 0.15
    stream = find_recipe("tera").stream(sample_set, noise_prob=0.5, epochs=1, max_batch_seconds=20.0)
    deviations = [
        float((sample["masked_feat"] - sample["feat"])[~sample["loss_mask"]].std())
        for sample in itertools.islice(stream, 40)
    ]
    noisy = [deviation for deviation in deviations if deviation > 0]
    assert 8 < len(noisy) < 32
    assert noisy == pytest.approx([0.2] * len(noisy), rel=0.05)


@pytest.mark.parametrize("name", ["tera_fbank", "tera_slim", "tera_large_batch", "mockingjay_large"])
def test_variants_train(name: str, sample_set: Path, tmp_path: Path) -> None:
    """The seven by their own names do in tests/integration."""
    sizes = {"hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 8, "max_batch_seconds": 6.0}
    result = ss.pretrain(name, sample_set, steps=2, out=tmp_path, device="cpu", quiet=True, crop_seconds=1.0, **sizes)
    assert result.loss is not None
    assert ss.upstream(tmp_path).hidden_size == 8
