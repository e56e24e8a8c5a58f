"""Exported checkpoints in S3PRL's own hub code: the same hidden states.

python -m venv s3prl-env && s3prl-env/bin/pip install s3prl torch==2.11.* torchaudio==2.11.*
S3PRL_STREAM_TEST_S3PRL=s3prl-env/bin/python tools/test --all -k s3prl_hub
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import s3prl_stream as ss
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.s3prl_export import save_s3prl

TRANSFORMER = {"hidden_size": 16, "num_layers": 3, "num_heads": 2, "ffn_size": 32}
SIZES: dict[str, dict[str, Any]] = {
    "tera": TRANSFORMER,
    "mockingjay": TRANSFORMER,
    "audio_albert": TRANSFORMER,
    "apc": {"hidden_size": 16},
    "vq_apc": {"hidden_size": 16, "codebook_sizes": (8,)},
    "npc": {"hidden_size": 16, "num_blocks": 3, "codebook_sizes": (4, 4)},
    "distilhubert": {
        **TRANSFORMER, "num_layers": 2, "conv_size": 8, "position_kernel": 8, "position_groups": 2,
        "target_layers": (2, 4), "target_size": 16,
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with waveforms, exported checkpoints, and what S3PRL's hub makes of them."""
    python = os.environ.get("S3PRL_STREAM_TEST_S3PRL")
    if python is None:
        pytest.skip("S3PRL_STREAM_TEST_S3PRL names no Python with s3prl")
    folder = tmp_path_factory.mktemp("hub")
    generator = np.random.default_rng(0)
    np.savez(
        folder / "wavs.npz",
        *(generator.normal(size=length).astype(np.float32) * 0.1 for length in (24_000, 16_123, 9_600)),
    )
    for name, sizes in SIZES.items():
        recipe = find_recipe(name).having(sizes)
        save_s3prl(recipe, build_objective(recipe), folder / f"{name}.ckpt")
    subprocess.run([python, Path(__file__).with_name("s3prl_hub.py"), folder], check=True, capture_output=True)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_hidden_states_of_s3prls_hub(name: str, hub: Path) -> None:
    """From waveforms, in a batch: S3PRL normalises features in float32 and we in float64, hence 1e-4."""
    waves, theirs = np.load(hub / "wavs.npz"), np.load(hub / f"{name}.npz")
    wavs = [torch.from_numpy(waves[key]) for key in waves.files]
    up = ss.upstream(hub / f"{name}.ckpt", legacy=True)
    with torch.no_grad():
        ours = up(wavs)
    assert len(ours) == len(theirs.files)
    for row, frames in enumerate(up.num_frames([len(wav) for wav in wavs]).tolist()):
        for hidden, key in zip(ours, theirs.files, strict=True):
            expected = torch.from_numpy(theirs[key])[row, :frames]
            torch.testing.assert_close(hidden[row, :frames], expected, atol=1e-4, rtol=0)
