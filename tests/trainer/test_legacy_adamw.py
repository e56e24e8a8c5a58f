"""S3PRL's optimizer in the training loop, against five steps of its own runner."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from s3prl_stream.recipes.s3prl_import import load_s3prl
from s3prl_stream.trainer.loop import add_gradients, update_weights
from s3prl_stream.trainer.optimizer import build_optimizer, learning_rate
from s3prl_stream.trainer.ranks import Ranks
from s3prl_stream.trainer.settings import TrainSettings


def test_five_steps_of_tera_are_those_of_s3prl(reference: Path) -> None:
    meta = json.loads((reference / "tera" / "meta.json").read_text())["train_trajectory"]
    given = np.load(reference / "tera" / "objective.npz")
    _, objective = load_s3prl(reference / "tera" / "weights_only.ckpt")  # evaluated: as S3PRL's with all dropout at 0
    settings = TrainSettings(num_steps=meta["total_steps"], optimizer="legacy")
    optimizer = build_optimizer(objective, settings)
    target = torch.from_numpy(given["target"])
    mask = torch.from_numpy(np.unpackbits(given["batch_label_bits"], axis=-1)[..., : target.shape[-1]].astype(bool))
    batch = {
        "key": ["a", "b"],
        "feat": target,
        "masked_feat": target * ~mask,
        "loss_mask": mask,
        "feat_len": torch.from_numpy(given["batch_attn_mask"]).sum(dim=1).long(),
    }
    for line in meta["steps"]:
        sums = torch.zeros(3, dtype=torch.float64)
        rate = learning_rate(line["step"], settings)
        assert rate == pytest.approx(line["lr_after_step"], abs=1e-9)
        add_gradients(objective, [batch], sums, settings, Ranks(), line["step"])
        loss, norm = update_weights(objective, optimizer, sums, settings, Ranks(), rate)[:2].tolist()
        assert loss == pytest.approx(line["loss"], abs=1e-5)
        assert norm == pytest.approx(line["grad_norm"], rel=1e-5)
    assert objective(batch).mean.item() == pytest.approx(meta["loss_after_last_step"], abs=1e-5)
