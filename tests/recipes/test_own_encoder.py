"""Another network in any recipe, in one line, of Python or of the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from recipes.my_networks import Net
from torch import nn

import s3prl_stream as ss
from s3prl_stream.cli import main
from s3prl_stream.recipes.own_encoder import own_encoder
from s3prl_stream.recipes.run_folder import read_settings
from s3prl_stream.trainer.checkpoint import load_weights, newest_checkpoint

NAME = "recipes.my_networks:Net"
FEW: dict[str, Any] = {"steps": 2, "max_batch_seconds": 10.0, "crop_seconds": 2.0, "device": "cpu", "quiet": True}


@pytest.mark.parametrize("recipe", ["tera", "audio_albert", "apc", "vq_apc", "npc"])
def test_the_network_is_changed_in_one_line(recipe: str, sample_set: Path, tmp_path: Path) -> None:
    changed = {"codebook_sizes": (4, 4)} if recipe in ("vq_apc", "npc") else {}
    own = Net()
    before = own.layer.weight.detach().clone()
    ss.pretrain(recipe, sample_set, encoder=own, out=tmp_path, **FEW, **changed)
    assert not torch.equal(own.layer.weight, before)
    with pytest.raises(ss.UsageError, match="pass encoder="):
        ss.upstream(tmp_path)
    for encoder in (Net(), NAME):
        up: Any = ss.upstream(tmp_path, encoder=encoder)
        (hidden,) = up([torch.zeros(16_000)])
        assert hidden.shape[-1] == up.hidden_size == 12
        assert torch.equal(up.encoder.layer.weight, own.layer.weight)


def test_by_its_dotted_name_on_the_command_line(sample_set: Path, tmp_path: Path) -> None:
    words = ["pretrain", "tera", "--data", str(sample_set), "--out", str(tmp_path), "--steps", "1", "--encoder", NAME]
    words += ["--seed", "3", "--lr", "1e-30"]
    assert main([*words, "--batch-seconds", "10", "--crop-seconds", "2", "--device", "cpu"]) == 0
    assert read_settings(tmp_path)["encoder"].startswith("recipes.my_networks.Net ")
    fresh = [ss.upstream(tmp_path, trained=False, seed=seed, encoder=NAME).state_dict() for seed in (0, 1)]
    assert not torch.equal(*(one["encoder.layer.weight"] for one in fresh))
    begun: Any = own_encoder(NAME, seed=3)
    assert torch.equal(load_weights(newest_checkpoint(tmp_path))["encoder.layer.weight"], begun.layer.weight)


def test_its_weights_follow_from_the_seed() -> None:
    one, again, other = (own_encoder(NAME, seed=seed) for seed in (0, 0, 1))
    assert isinstance(one, Net)
    assert isinstance(again, Net)
    assert isinstance(other, Net)
    assert torch.equal(one.layer.weight, again.layer.weight)
    assert not torch.equal(one.layer.weight, other.layer.weight)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("recipes.my_networks", "my.module:Net"),
        ("recipes.my_networks:Missing", "Missing"),
        ("no_such_module:Net", "no_such_module"),
        ("recipes.my_networks:Sized", "without arguments"),
        ("recipes.my_networks:not_a_network", r"not a torch\.nn\.Module"),
        ("os:system('true')", "my.module:Net"),
    ],
)
def test_what_is_no_network_is_refused(name: str, said: str) -> None:
    with pytest.raises(ss.UsageError, match=said):
        own_encoder(name)


def test_a_class_is_not_taken_for_its_instance() -> None:
    with pytest.raises(ss.UsageError, match=r"Linear'>: give a torch\.nn\.Module, not its class"):
        own_encoder(nn.Linear)  # type: ignore[arg-type]
