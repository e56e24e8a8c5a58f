"""Numbers kept in the repository: a tiny network of each recipe gives what it gave when S3PRL's numbers were met.

tests/recipes compares with S3PRL itself, where its numbers are at hand. `python tests/models/test_golden.py` writes the
file anew; that is a change of behaviour and needs a line in CHANGELOG.md.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "models_tiny.npz"
RECIPES = {
    "mockingjay": {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "ffn_size": 8},
    "audio_albert": {"hidden_size": 8, "num_layers": 2, "num_heads": 2, "ffn_size": 8},
    "apc": {"hidden_size": 8, "num_layers": 2},
    "vq_apc": {"hidden_size": 8, "num_layers": 2, "codebook_sizes": (4, 4)},
    "npc": {"hidden_size": 8, "num_blocks": 2, "kernel_size": 11, "codebook_sizes": (4, 4)},
    "distilhubert": {
        "conv_size": 4, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "ffn_size": 8, "position_kernel": 4,
        "position_groups": 2, "target_layers": (0, 1), "target_size": 8, "init_from_teacher": False,
    },
}  # fmt: skip


def objective_of(name: str) -> Any:
    from s3prl_stream.models.wave import WaveEncoder
    from s3prl_stream.recipes import build_objective, find_recipe
    from s3prl_stream.upstreams.waves import WaveUpstream

    torch.manual_seed(0)
    sizes = {"conv_size": 4, "num_heads": 2, "ffn_size": 8, "position_kernel": 4, "position_groups": 2}
    teacher = WaveUpstream(WaveEncoder(hidden_size=8, num_layers=1, **sizes))  # type: ignore[arg-type]
    recipe = find_recipe(name).having(RECIPES[name])
    return build_objective(recipe, teacher=teacher if recipe.has_teacher else None).eval()


def batch_of(name: str, given: Any) -> dict[str, Any]:
    lengths = torch.from_numpy(given["lengths"])
    if name == "distilhubert":
        return {"key": ["a", "b"], "wav": torch.from_numpy(given["wav"]), "wav_len": lengths * 400}
    feat = torch.from_numpy(given["feat240"] if name == "mockingjay" else given["feat80"])
    mask = (torch.arange(feat.shape[1])[:, None] % 3 == 0).expand_as(feat[0]) & (feat != 0)
    batch = {"key": ["a", "b"], "feat": feat, "feat_len": lengths, "masked_feat": feat * ~mask, "loss_mask": mask}
    return {**batch, "target_feat": feat.flip(1)} if "apc" in name else batch


def numbers(name: str, objective: Any, given: Any) -> dict[str, Any]:
    """Last hidden state, loss, and the norm of each parameter's gradient."""
    batch = batch_of(name, given)
    inputs = (batch["wav"], batch["wav_len"]) if "wav" in batch else (batch["masked_feat"], batch["feat_len"])
    hidden = objective.encoder(*inputs)[-1][0].detach().numpy()
    loss = objective(batch)
    loss.mean.backward()
    norms = [0.0 if one.grad is None else float(one.grad.norm()) for one in objective.parameters()]
    return {"hidden": hidden, "loss": np.float64(loss.mean.item()), "gradients": np.array(norms)}


@pytest.mark.parametrize("name", RECIPES)
def test_golden_file(name: str) -> None:
    given = np.load(GOLDEN)
    objective = objective_of(name)
    prefix = f"{name}/w/"
    weights = {key.removeprefix(prefix): torch.from_numpy(given[key]) for key in given.files if key.startswith(prefix)}
    teacher: list[nn.Module] = getattr(objective, "_teacher", [])
    for module in teacher:
        module.load_state_dict({key: weights.pop(f"teacher/{key}") for key in module.state_dict()})
    objective.load_state_dict(weights)
    found = numbers(name, objective, given)
    np.testing.assert_allclose(found["hidden"], given[f"{name}/hidden"], atol=1e-5, rtol=0)
    assert found["loss"] == pytest.approx(float(given[f"{name}/loss"]), abs=1e-6)
    np.testing.assert_allclose(found["gradients"], given[f"{name}/gradients"], atol=1e-6, rtol=1e-4)


def write() -> None:
    """Make the file."""
    generator = np.random.default_rng(0)
    given: dict[str, Any] = {"lengths": np.array([12, 7])}
    for key, width in (("feat80", 80), ("feat240", 240)):
        given[key] = generator.normal(size=(2, 12, width)).astype(np.float32)
        given[key][1, 7:] = 0.0
    given["wav"] = generator.normal(size=(2, 4800)).astype(np.float32)
    given["wav"][1, 2800:] = 0.0
    for name in RECIPES:
        objective = objective_of(name)
        with torch.no_grad():
            for parameter in objective.parameters():
                parameter.add_(torch.from_numpy(generator.normal(size=parameter.shape).astype(np.float32)) * 0.2)
        weights = dict(objective.state_dict())
        for module in getattr(objective, "_teacher", []):
            weights |= {f"teacher/{key}": tensor for key, tensor in module.state_dict().items()}
        given |= {f"{name}/w/{key}": tensor.numpy().copy() for key, tensor in weights.items()}
        given |= {f"{name}/{key}": value for key, value in numbers(name, objective, given).items()}
    np.savez_compressed(GOLDEN, **given)


if __name__ == "__main__":
    sys.exit(write())
