"""Checkpoints in S3PRL's formats, written by `ss.export_s3prl`.

S3PRL's `tera_local`, `mockingjay_local`, `audio_albert_local`, `apc_local`, `npc_local` and `distiller_local` load
them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.models import weight_names
from s3prl_stream.pipes.log_mel import NUM_FREQUENCIES
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.masked import FBANK, LOGMEL
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.recipes.run_folder import load_objective, read_pretraining, recipe_of
from s3prl_stream.recipes.s3prl_sizes import GRU, NPC, STUDENT, TRANSFORMER, sizes_for
from s3prl_stream.trainer.checkpoint import at_once, save_tensors

SEQUENCE_LENGTH = 1500
"""What S3PRL's configurations say of the longest input (frames); its upstreams cut longer ones."""


def to_s3prl(recipe: Recipe, objective: nn.Module) -> dict[str, Any]:
    """What S3PRL's `*_local` upstreams load: weights under their names with the configuration they ask for.

    Raises:
        UsageError: a network or features that S3PRL does not have.
    """
    model, weights = recipe.model, objective.state_dict()
    export = _EXPORTS.get(type(model).__name__)
    if export is None:
        raise UsageError(f"recipe {recipe.name}: S3PRL has no such network")
    if recipe.front_end is not None and recipe.stream_settings.norm != "utterance":
        raise UsageError(f"recipe {recipe.name}: norm {recipe.stream_settings.norm!r}; S3PRL has only 'utterance'")
    try:
        return export(recipe, weights)
    except KeyError as error:
        raise UsageError(
            f"recipe {recipe.name}: an encoder of one's own has no {error} and no place in S3PRL"
        ) from None


def save_s3prl(recipe: Recipe, objective: nn.Module, path: str | Path) -> None:
    """Write `to_s3prl` to a file at once, tensors on the CPU; its folder is made if there is none."""
    if Path(path).is_dir():
        raise UsageError(f"{path}: is a folder; give the file to be written, such as {Path(path) / 'tera.ckpt'}")
    content = to_s3prl(recipe, objective.cpu())
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    with at_once(Path(path)) as unfinished:
        save_tensors(content, unfinished)


def export_s3prl(run: str | Path, path: str | Path) -> None:
    """Write the network of a run of `pretrain`, or of one of its checkpoints, for S3PRL's `*_local` upstreams.

    Raises:
        UsageError: no run there, a network or features that S3PRL does not have, or `path` is a folder.
        StreamError: the file cannot be written.
    """
    save_s3prl(recipe_of(read_pretraining(run)), load_objective(run), path)


def _export_transformer(recipe: Recipe, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    model = recipe.model
    front_end = recipe.front_end
    assert front_end is not None
    names = weight_names.s3prl_transformer(model.num_layers, share_layers=model.share_layers)
    audio: dict[str, Any]
    if replace(front_end, deltas=0) == LOGMEL:
        channel = {"feat_type": "mel", "channel": 0, "log": True, "delta": front_end.deltas, "cmvn": True}
        audio = {"target_level": -25, "win_ms": 25, "hop_ms": 10, "n_freq": 201, "n_mels": 80, "n_mfcc": 13}
        linear = {**channel, "feat_type": "linear", "channel": 1}
        audio |= {"input": channel, "target": linear if model.target_dim == NUM_FREQUENCIES else channel}
    elif replace(front_end, deltas=0) == replace(FBANK, deltas=0):
        window = {"frame_length": 25.0, "frame_shift": 10.0}
        audio = {
            "kaldi": {"feat_type": "fbank", "fbank": {"num_mel_bins": 80, **window, "use_log_fbank": True}},
            "delta": {"order": front_end.deltas, "win_length": 5},
            "cmvn": {"use_cmvn": True},
        }
    else:
        raise _other_features(recipe)
    transformer = {
        "input_dim": -1, **sizes_for(model, TRANSFORMER), "hidden_act": "gelu", "initializer_range": 0.02,
        "layer_norm_eps": 1e-12, "pre_layer_norm": False,
    }  # fmt: skip
    task = {"loss": "L1", "sequence_length": SEQUENCE_LENGTH, "position_encoding_size": model.hidden_size}
    task |= {"mask_proportion": 0.15, "mask_consecutive_min": 7, "mask_consecutive_max": 7, "mask_allow_overlap": True}
    task |= {
        "mask_bucket_ratio": 1.5,
        "mask_frequency": 0.2 if recipe.name.startswith("tera") else 0.0,
        "noise_proportion": 0.0,
    }
    config = {"transformer": transformer, "task": task, "audio": audio}
    return {
        "Transformer": weight_names.to_theirs(_part(weights, "encoder"), names),
        "SpecHead": weight_names.to_theirs(_part(weights, "head"), weight_names.s3prl_transformer_head()),
        "Upstream_Config": config,
        "Config": {},
    }


def _export_gru(recipe: Recipe, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    model = recipe.model
    names = weight_names.s3prl_apc(model.num_layers, len(model.codebook_sizes))
    n_future = int(getattr(recipe.stream_settings, "n_future", 5))
    return _predictive(recipe, weight_names.to_theirs(weights, names), sizes_for(model, GRU), n_future)


def _export_npc(recipe: Recipe, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    model = recipe.model
    theirs = weight_names.to_theirs(weights, weight_names.s3prl_npc(model.num_blocks, len(model.codebook_sizes)))
    distance = (torch.arange(model.kernel_size) - model.kernel_size // 2).abs()
    for block in range(model.num_blocks):
        seen = (distance > (model.mask_size + 2 * (block + 1)) // 2).float()
        theirs[f"masked_convs.{block}.conv_mask"] = seen.expand_as(theirs[f"masked_convs.{block}.conv.weight"]).clone()
    fixed = {"residual": True, "batch_norm": True, "activate": "relu", "disable_cross_layer": False}
    return _predictive(recipe, theirs, {**sizes_for(model, NPC), **fixed}, 5)


def _predictive(recipe: Recipe, weights: dict[str, Tensor], paras: dict[str, Any], n_future: int) -> dict[str, Any]:
    """The frame that APC and NPC have in common."""
    model = recipe.model
    if recipe.front_end != FrontEnd("fbank80"):
        raise _other_features(recipe)
    if model.codebook_sizes:
        size = model.hidden_size // len(model.codebook_sizes)
        paras["vq"] = {
            "codebook_size": list(model.codebook_sizes),
            "code_dim": [size] * len(model.codebook_sizes),
            "gumbel_temperature": model.temperature,
        }
    audio = {
        "feat_type": "fbank", "feat_dim": 80, "frame_length": 25, "frame_shift": 10, "decode_wav": False, "cmvn": True,
    }  # fmt: skip
    config = {
        "model": {"paras": paras},
        "task": {"sequence_length": SEQUENCE_LENGTH, "n_future": n_future},
        "data": {"audio": audio},
    }
    return {"model": weights, "config": config, "Upstream_Config": config}


def _export_student(recipe: Recipe, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    model = recipe.model
    size, targets = model.conv_size, len(model.target_layers)
    names = weight_names.fairseq_wave(model.num_layers, feature_norm=False)
    theirs = weight_names.to_theirs(_part(weights, "encoder"), names)
    head = _part(weights, "head")
    theirs |= {f"output_layer.0.{kind}": head[f"dense.{kind}"] for kind in ("weight", "bias")}
    if targets > 1:
        theirs |= {"output_layer.2.weight": head["weight_NHD"], "output_layer.2.bias": head["bias_ND"][None, None]}
    else:
        theirs |= {
            "output_layer.2.layer.weight": head["weight_NHD"][0].T.contiguous(),
            "output_layer.2.layer.bias": head["bias_ND"][0],
        }
    config = {
        "extractor_mode": "default",
        "extractor_conv_feature_layers": f"[({size},10,5)] + [({size},3,2)] * 4 + [({size},2,2)] * 2",
        "extractor_dropout": 0.0, "activation_fn": "gelu", "layer_norm_first": False, "attention_type": "original",
        "encoder_layerdrop": 0.0, "out_layer_type": "expand-last", "n_tasks": targets, "task_emb_type": "expand-last",
        "loss_type": "l1", "feat_pen_loss": 0.0, **sizes_for(model, STUDENT),
        "pred_layer_id": list(model.target_layers), "init_teacher_conv_layers": model.init_from_teacher,
        "init_teacher_encoder_layers": model.init_from_teacher,
    }  # fmt: skip
    task = {"sequence_length": 250_000}
    return {"Distiller": theirs, "Config": {"distiller": config, "task": task, "audio": {"target_level": "None"}}}


_EXPORTS: dict[str, Callable[[Recipe, Mapping[str, Tensor]], dict[str, Any]]] = {
    "TransformerModel": _export_transformer,
    "GruModel": _export_gru,
    "NpcModel": _export_npc,
    "StudentModel": _export_student,
}


def _other_features(recipe: Recipe) -> UsageError:
    return UsageError(f"recipe {recipe.name}: features {recipe.front_end}; S3PRL has none such for its network")


def _part(weights: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    return {key.removeprefix(f"{name}."): tensor for key, tensor in weights.items() if key.startswith(f"{name}.")}
