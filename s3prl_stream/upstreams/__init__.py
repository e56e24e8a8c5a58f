"""Upstreams by name: whatever a string can mean, one `Upstream` comes out of it."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from s3prl_stream.errors import UsageError
from s3prl_stream.recipes.own_encoder import own_encoder
from s3prl_stream.recipes.run_folder import SETTINGS, load_objective, pick_device, read_pretraining, recipe_of, run_of
from s3prl_stream.upstreams.baselines import BASELINE, BASELINES
from s3prl_stream.upstreams.files import checkpoint_upstream
from s3prl_stream.upstreams.huggingface import CONFIG, huggingface_upstream
from s3prl_stream.upstreams.runs import upstream_of
from s3prl_stream.upstreams.torchaudio_models import PREFIX, bundle_upstream
from s3prl_stream.upstreams.upstream import FeatureUpstream, Upstream

__all__ = ["BASELINE", "BASELINES", "FeatureUpstream", "Upstream", "is_run", "upstream"]


def upstream(
    name: str | Path,
    *,
    trained: bool = True,
    seed: int = 0,
    encoder: nn.Module | str | None = None,
    legacy: bool = False,
    device: str | None = "cpu",
) -> Upstream:
    """An upstream in evaluation mode.

    Args:
        name: one of

            - output folder of a pretraining run, or one of its `checkpoints/step-...`,
            - a baseline without a network: "logmel80", "fbank", "mfcc", "spectrogram" ... (`BASELINES`),
            - a file: a checkpoint of S3PRL's recipes or of its converted HuBERT, or one of `save_torchaudio`,
            - "torchaudio:HUBERT_BASE", any bundle of wav2vec 2.0's kind; with weights from a file
              "torchaudio:HUBERT_BASE:FILE",
            - a directory of Hugging Face's with a Wav2Vec2Model, HubertModel, WavLMModel ...
        trained: False: the same network of a run with fresh weights.
        seed: of these fresh weights.
        encoder: a fresh instance, or "my.module:Net", if the run was made with an encoder of one's own.
        legacy: of a checkpoint of S3PRL, its numbers where they depend on what else is in the batch.
        device: where it computes; None: the GPU if there is one.

    Raises:
        UsageError: nothing of that name, or nothing that can be loaded.
    """
    if isinstance(name, nn.Module):
        more = (
            "here upstreams are named, by a folder, a file or one of the names"
            if isinstance(name, Upstream)
            else "a network of your own derives from s3prl_stream.upstreams.Upstream, and is given as it is"
        )
        raise UsageError(f"upstream: a {type(name).__name__} is no name; {more}")
    used_device = pick_device(device)
    found = _find(str(name), trained=trained, seed=seed, encoder=own_encoder(encoder, seed=seed), legacy=legacy)
    return found.to(used_device).eval()


def is_run(name: str | Path) -> bool:
    """True of a run's folder and of a checkpoint in it: these can be had with fresh weights too."""
    return (run_of(name) / SETTINGS).is_file()


def _find(name: str, *, trained: bool, seed: int, encoder: nn.Module | None, legacy: bool) -> Upstream:
    path = Path(name)
    if is_run(path):
        objective = load_objective(path, encoder=encoder, trained=trained, seed=seed)
        return upstream_of(recipe_of(read_pretraining(path)), objective)
    if not trained or encoder is not None:
        raise UsageError(f"{name}: untrained weights and encoders of one's own are for runs; there is no {SETTINGS}")
    if name in BASELINES:
        front_end, norm = BASELINES[name]
        return FeatureUpstream(None, front_end, norm=norm)
    if name.startswith(PREFIX):
        return bundle_upstream(name)
    if (path / CONFIG).is_file():
        return huggingface_upstream(path)
    if path.is_file():
        return checkpoint_upstream(path, legacy=legacy)
    raise UsageError(
        f"upstream {name!r}: no {SETTINGS} there, no {CONFIG}, no file, and none of {', '.join(BASELINES)}. Give the "
        f"output folder of `s3prl-stream pretrain`, a checkpoint, or {PREFIX}BUNDLE"
    )
