"""Upstreams from single files: checkpoints of S3PRL, and models of torchaudio."""

from __future__ import annotations

from pathlib import Path

from s3prl_stream.errors import UsageError
from s3prl_stream.recipes.s3prl_import import from_s3prl, load_s3prl_hubert, read_checkpoint, upstream_config
from s3prl_stream.upstreams.runs import upstream_of
from s3prl_stream.upstreams.torchaudio_models import file_upstream
from s3prl_stream.upstreams.upstream import Upstream
from s3prl_stream.upstreams.waves import WaveUpstream


def checkpoint_upstream(path: Path, *, legacy: bool) -> Upstream:
    """An upstream of a checkpoint of S3PRL (its seven recipes, or its converted HuBERT) or of `save_torchaudio`.

    Raises:
        UsageError: it holds something else, or cannot be read safely.
    """
    checkpoint = read_checkpoint(path)
    try:
        if "factory" in checkpoint:
            return file_upstream(checkpoint, str(path))
        if "model_weight" in checkpoint:
            encoder = load_s3prl_hubert(checkpoint, str(path))
            encoder.legacy = legacy
            return WaveUpstream(encoder)
        recipe, objective = from_s3prl(checkpoint, str(path), legacy=legacy)
        cut = legacy and "Transformer" in checkpoint
        max_frames = int(upstream_config(checkpoint)["task"]["sequence_length"]) if cut else 0
        return upstream_of(recipe, objective, max_frames=max_frames or None)
    except KeyError as error:
        raise UsageError(f"{path}: no {error} in it; this is no checkpoint of an upstream") from error
    except (TypeError, AttributeError) as error:
        raise UsageError(f"{path}: is laid out otherwise than a checkpoint of an upstream ({error})") from error
