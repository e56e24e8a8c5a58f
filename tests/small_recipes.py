"""Each recipe with a network of some thousand weights, for tests that train.

As a program, `python small_recipes.py RECIPE SET OUT STEPS WORKERS`, for tests that kill it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch

from s3prl_stream.models.wave import WaveEncoder
from s3prl_stream.recipes.pretrain import pretrain
from s3prl_stream.trainer.loop import TrainResult
from s3prl_stream.upstreams.waves import WaveUpstream

TRANSFORMER = {"hidden_size": 16, "num_layers": 2, "num_heads": 2, "ffn_size": 32, "lr": 2e-3}
WAVE = {"conv_size": 8, "hidden_size": 16, "num_heads": 2, "ffn_size": 32, "position_kernel": 8, "position_groups": 2}
TINY: dict[str, Any] = {
    "hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 8, "crop_seconds": 3.0, "device": "cpu",
    "quiet": True,
}  # fmt: skip
"""Of `pretrain("tera", ...)`, where it is of no matter what is learnt."""
TINY_WORDS = "--hidden-size 8 --layers 1 --heads 2 --ffn-size 8 --batch-seconds 10 --crop-seconds 3 --device cpu"
"""The same on the command line."""
SMALL: dict[str, dict[str, Any]] = {
    **dict.fromkeys(("tera", "mockingjay", "audio_albert"), TRANSFORMER),
    "apc": {"hidden_size": 16, "lr": 2e-3},
    "vq_apc": {"hidden_size": 16, "codebook_sizes": (16,), "lr": 2e-3},
    "npc": {"hidden_size": 16, "num_blocks": 2, "codebook_sizes": (4, 4), "lr": 2e-3},
    "distilhubert": {**WAVE, "target_layers": (1, 3), "target_size": 16, "lr": 2e-3},
}
COMMON: dict[str, Any] = {
    "max_batch_seconds": 6.0, "crop_seconds": 1.0, "update_batches": 2, "device": "cpu", "quiet": True,
}  # fmt: skip


def small_teacher() -> WaveUpstream:
    """A HuBERT of three layers whose weights were never trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return WaveUpstream(WaveEncoder(num_layers=3, **WAVE))


def pretrain_small(recipe: str, data: Any, out: Path, *, steps: int, **changed: Any) -> TrainResult:
    """`pretrain` with these settings."""
    teacher = small_teacher() if recipe == "distilhubert" else None
    settings = {**COMMON, **SMALL[recipe], **changed}
    return pretrain(recipe, data, steps=steps, out=out, teacher=teacher, **settings)


if __name__ == "__main__":
    _, name, folder, out, steps, workers = sys.argv
    pretrain_small(name, folder, Path(out), steps=int(steps), num_workers=int(workers), checkpoint_every=5)
