"""Upstreams by name: whatever a string can mean, one `Upstream` comes out of it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.recipes.run_folder import SETTINGS, pick_device
from s3prl_stream.upstreams.baselines import BASELINE, BASELINES
from s3prl_stream.upstreams.runs import run_upstream
from s3prl_stream.upstreams.upstream import FeatureUpstream, Upstream

__all__ = ["BASELINE", "BASELINES", "FeatureUpstream", "Upstream", "upstream"]


def upstream(
    name: str | Path,
    *,
    trained: bool = True,
    seed: int = 0,
    encoder: nn.Module | None = None,
    device: str | None = "cpu",
) -> Upstream:
    """An upstream in evaluation mode.

    Args:
        name: one of

            - output folder of a pretraining run, or one of its `checkpoints/step-...`,
            - a baseline without a network: "logmel80", "fbank", "mfcc", "spectrogram" ... (`BASELINES`).
        trained: False: the same network with fresh weights.
        seed: of these fresh weights.
        encoder: a fresh instance, if the run was made with an encoder of one's own.
        device: where it computes; None: the GPU if there is one.

    Raises:
        UsageError: nothing of that name, or no checkpoint in it.
    """
    used_device = pick_device(device)
    if str(name) in BASELINES:
        return (
            FeatureUpstream(None, BASELINES[str(name)].front_end, norm=BASELINES[str(name)].norm).to(used_device).eval()
        )
    path = Path(name)
    if path.is_dir() or not path.exists():
        found: Upstream = run_upstream(path, trained=trained, seed=seed, encoder=encoder)
    else:
        raise UsageError(
            f"{path}: not an upstream; give the folder of a run ({SETTINGS}) or one of {', '.join(BASELINES)}"
        )
    return found.to(used_device).eval()
