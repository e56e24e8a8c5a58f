"""`compile=True`: the encoder compiled by torch trains as it does eagerly."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from small_recipes import pretrain_small

from s3prl_stream.trainer.losslog import read_losses

STEPS = 20


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # in torch's compiler
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile wants g++ for a CPU")
def test_losses_are_those_of_eager_training(sample_set: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "cache"))
    losses = {}
    for compiled in (False, True):
        # what compiled code drops is drawn otherwise
        settings = {"dropout": 0.0, "attention_dropout": 0.0, "compile": compiled, "seed": 3}
        pretrain_small("tera", sample_set, tmp_path / f"compiled-{compiled}", steps=STEPS, **settings)
        losses[compiled] = [line["loss"] for line in read_losses(tmp_path / f"compiled-{compiled}")]
    assert len(losses[True]) == STEPS
    assert losses[True] == pytest.approx(losses[False], rel=1e-4)
    assert any((tmp_path / "cache").rglob("*.so"))  # something was compiled
