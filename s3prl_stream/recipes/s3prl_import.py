"""Checkpoints of S3PRL's seven recipes, read: what its `*_local` upstreams load, and what its runner writes.

Only tensors, dicts and numbers are read (`weights_only=True`). A checkpoint of the runner also holds its arguments and
its schedule as objects; these two classes alone are let through, as inert stand-ins.
"""

from __future__ import annotations

import ast
import dataclasses
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from s3prl_stream.errors import UsageError
from s3prl_stream.models import weight_names
from s3prl_stream.models.sizes import MOST_LAYERS, numbers_in
from s3prl_stream.models.wave import KERNELS, STRIDES, WaveEncoder
from s3prl_stream.recipes import build_objective, find_recipe
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.masked import LOGMEL
from s3prl_stream.recipes.recipe import Recipe
from s3prl_stream.recipes.s3prl_sizes import GRU, HUBERT, NPC, STUDENT, TRANSFORMER, sizes_from

_FREE_NUMBERS = 1 << 24
"""By which a network may be larger than twice its weights: 64 MB."""


class _Inert:
    """Takes the place of an object that nothing here looks at."""


def read_checkpoint(path: str | Path) -> dict[str, Any]:
    """What a checkpoint of S3PRL holds, as tensors, numbers, text, lists and dicts.

    Raises:
        UsageError: it cannot be read safely, or holds something else.
    """
    inert: list[Any] = [(_Inert, "argparse.Namespace"), (_Inert, "optimizers.WarmupLinearSchedule")]
    with Path(path).open("rb") as file, torch.serialization.safe_globals(inert):
        try:
            checkpoint = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises whatever its reader trips over, of a file that is cut an OSError
            # torch goes on with how to load it unsafely
            reason = f"{type(error).__name__}: {str(error).partition(chr(10))[0].partition('. ')[0]}"
            raise UsageError(f"{path}: not a checkpoint that can be loaded safely ({reason})") from error
    if not isinstance(checkpoint, dict):
        raise UsageError(f"{path}: holds a {type(checkpoint).__name__}, not the dict of a checkpoint")
    return checkpoint


def load_s3prl(path: str | Path, *, legacy: bool = False) -> tuple[Recipe, nn.Module]:
    """The recipe and the network with its objective of a checkpoint of S3PRL's seven recipes, in evaluation mode.

    Args:
        path: of the checkpoint.
        legacy: padding is treated as S3PRL treats it.

    Raises:
        UsageError: not such a checkpoint, or a variant that is not built here (pre-norm, other activations ...).
    """
    return from_s3prl(read_checkpoint(path), str(path), legacy=legacy)


def from_s3prl(checkpoint: Mapping[str, Any], path: str, *, legacy: bool = False) -> tuple[Recipe, nn.Module]:
    """As `load_s3prl`, of what `read_checkpoint` gave."""
    kinds = {"Transformer": _transformer, "Distiller": _distiller, "model": _model}
    key = next((key for key in kinds if key in checkpoint), None)
    if key is None:
        raise UsageError(f"{path}: no {', '.join(kinds)} in it; this is no checkpoint of S3PRL's recipes")
    try:
        recipe, weights = kinds[key](checkpoint, path)
        recipe = recipe.having({"legacy": legacy})
        check_sizes(lambda: build_objective(recipe), weights, path)
        objective = build_objective(recipe)
        objective.load_state_dict(weights)
    except UsageError:
        raise
    except (KeyError, RuntimeError, TypeError, AttributeError, IndexError, ValueError) as error:
        raise UsageError(
            f"{path}: holds {key} but not all that belongs to it, or of other sizes: {type(error).__name__} {error}"
        ) from error
    return recipe, objective.eval()


def check_sizes(build: Callable[[], nn.Module], weights: Mapping[str, Tensor], path: str) -> None:
    """See that a network is about as large as its weights before it takes any memory: a file may claim terabytes.

    Raises:
        UsageError: it is larger.
    """
    asked = numbers_in(build)
    given = sum(tensor.numel() for tensor in weights.values())
    if asked > 2 * given + _FREE_NUMBERS:
        raise UsageError(f"{path}: the configuration in it asks for {asked} numbers, it holds {given}")


def _layers(claimed: Any, path: str) -> int:
    """How many layers to build: their names alone, of millions, would fill the memory."""
    if not isinstance(claimed, int) or not 0 <= claimed <= MOST_LAYERS:
        raise UsageError(f"{path}: the configuration in it asks for {claimed!r:.40} layers, at most {MOST_LAYERS}")
    return claimed


def _transformer(checkpoint: Mapping[str, Any], path: str) -> tuple[Recipe, dict[str, Tensor]]:
    config = upstream_config(checkpoint)
    sizes = config["transformer"]
    if sizes["pre_layer_norm"] or sizes["hidden_act"] != "gelu":
        raise UsageError(
            f"{path}: pre_layer_norm={sizes['pre_layer_norm']}, hidden_act={sizes['hidden_act']!r}; "
            "only post-norm encoders with GELU are built here"
        )
    share = bool(sizes["share_layer"])
    encoder = weight_names.to_ours(
        checkpoint["Transformer"],
        weight_names.s3prl_transformer(_layers(sizes["num_hidden_layers"], path), share_layers=share),
    )
    head = weight_names.to_ours(checkpoint["SpecHead"], weight_names.s3prl_transformer_head())
    front_end = _front_end(config["audio"], path)
    feat_dim, target_dim = encoder["project.weight"].shape[1], len(head["output.bias"])
    plain = "mockingjay_large" if target_dim == 201 else "audio_albert" if share else "tera"
    named = find_recipe(plain if front_end == LOGMEL else "mockingjay")
    ours = {**sizes_from(sizes, TRANSFORMER), "share_layers": share}
    recipe = dataclasses.replace(named, front_end=front_end).having(
        {"feat_dim": feat_dim, "target_dim": target_dim, **ours}
    )
    if feat_dim != front_end.feat_dim:
        raise UsageError(f"{path}: a network on {feat_dim} dimensions, features of {front_end.feat_dim}")
    return recipe, _prefixed(encoder=encoder, head=head)


def upstream_config(checkpoint: Mapping[str, Any]) -> Mapping[str, Any]:
    """The configuration of a transformer's checkpoint; older ones have it under another name."""
    config: Mapping[str, Any] = checkpoint["Upstream_Config" if "Upstream_Config" in checkpoint else "Config"]
    return config


def _front_end(audio: Mapping[str, Any], path: str) -> FrontEnd:
    """The features of a transformer's checkpoint.

    Raises:
        UsageError: features that are not built here.
    """
    if "kaldi" in audio:
        kaldi = audio["kaldi"]
        plain = kaldi["feat_type"] == "fbank" and kaldi["fbank"]["num_mel_bins"] == 80 and audio["cmvn"]["use_cmvn"]
        front_end = FrontEnd("fbank80_povey", deltas=int(audio["delta"]["order"]))
    else:
        mel = audio["input"]
        plain = mel["feat_type"] == "mel" and mel["log"] and mel["cmvn"] and audio["n_mels"] == 80
        plain = plain and audio["n_freq"] == 201 and audio["target_level"] == -25
        front_end = FrontEnd("logmel80", target_db=-25.0, deltas=int(mel["delta"]))
    if not plain:
        raise UsageError(
            f"{path}: features {audio}; built here are 80 bins of log-mel at -25 dB or of Kaldi's, with CMVN"
        )
    return front_end


def _model(checkpoint: Mapping[str, Any], path: str) -> tuple[Recipe, dict[str, Tensor]]:
    config = checkpoint["config"]
    paras, audio = config["model"]["paras"], config["data"]["audio"]
    if audio["feat_type"] != "fbank" or not audio["cmvn"] or audio["feat_dim"] != 80:
        raise UsageError(f"{path}: features {audio}; APC and NPC are built here on 80 filter banks with CMVN")
    vq = paras.get("vq") or {}
    groups = tuple(vq.get("codebook_size", ()))
    if len(set(vq.get("code_dim", ()))) > 1:
        raise UsageError(f"{path}: code_dim {vq['code_dim']}; the groups of a quantizer are of one size here")
    settings: dict[str, Any] = {
        "codebook_sizes": groups,
        **({"temperature": vq["gumbel_temperature"]} if groups else {}),
    }
    if "kernel_size" in paras:
        plain = paras["batch_norm"] and paras["activate"] == "relu" and paras["residual"]
        if not plain or paras["disable_cross_layer"] or paras.get("dim_bottleneck"):
            raise UsageError(
                f"{path}: {paras}; NPC is built here with batch norm, ReLU, residuals and all masked layers"
            )
        settings |= sizes_from(paras, NPC)
        names = weight_names.s3prl_npc(_layers(paras["n_blocks"], path), len(groups))
        return find_recipe("npc").having(settings), weight_names.to_ours(checkpoint["model"], names)
    settings |= {**sizes_from(paras, GRU), "n_future": config["task"]["n_future"]}
    names = weight_names.s3prl_apc(_layers(paras["num_layers"], path), len(groups))
    recipe = find_recipe("vq_apc" if groups else "apc").having(settings)
    return recipe, weight_names.to_ours(checkpoint["model"], names)


def _distiller(checkpoint: Mapping[str, Any], path: str) -> tuple[Recipe, dict[str, Tensor]]:
    config, weights = checkpoint["Config"]["distiller"], dict(checkpoint["Distiller"])
    expected = {
        "extractor_mode": "default",
        "layer_norm_first": False,
        "activation_fn": "gelu",
        "attention_type": "original",
    }
    expected |= {"task_emb_type": "expand-last", "out_layer_type": "expand-last"}
    for name, value in expected.items():
        if config.get(name, value) != value:
            raise UsageError(f"{path}: {name} is {config[name]!r}; DistilHuBERT is built here with {value!r}")
    conv_size = conv_channels(config["extractor_conv_feature_layers"], path)
    targets = tuple(config["pred_layer_id"])
    ours = {**sizes_from(config, STUDENT), "target_layers": targets}
    recipe = find_recipe("distilhubert").having({"conv_size": conv_size, **ours})
    num_layers = _layers(config["encoder_layers"], path)
    encoder = weight_names.to_ours(weights, weight_names.fairseq_wave(num_layers, feature_norm=False))
    head = {f"dense.{kind}": weights[f"output_layer.0.{kind}"] for kind in ("weight", "bias")}
    if len(targets) > 1:
        head |= {"weight_NHD": weights["output_layer.2.weight"], "bias_ND": weights["output_layer.2.bias"][0, 0]}
    else:
        head |= {
            "weight_NHD": weights["output_layer.2.layer.weight"].T[None],
            "bias_ND": weights["output_layer.2.layer.bias"][None],
        }
    return recipe, _prefixed(encoder=encoder, head=head)


def load_s3prl_hubert(checkpoint: Mapping[str, Any], path: str) -> WaveEncoder:
    """HuBERT base, or one of its kind, from S3PRL's converted format, in evaluation mode.

    Raises:
        UsageError: a variant that is not built here.
    """
    config, weights = checkpoint["model_cfg"], checkpoint["model_weight"]
    if config.get("extractor_mode", "default") != "default" or config.get("layer_norm_first", False):
        raise UsageError(f"{path}: a large HuBERT (layer norm first); only models of the base kind are built here")
    if checkpoint["task_cfg"].get("normalize", False):
        raise UsageError(f"{path}: wants normalised waveforms; only models of the base kind are built here")
    default = "[(512,10,5)] + [(512,3,2)] * 4 + [(512,2,2)] * 2"
    sizes = {our: config[their] for our, their in HUBERT.items() if their in config}  # others are those of the base
    sizes |= {"num_layers": _layers(config.get("encoder_layers", 12), path)}
    conv_size = conv_channels(config.get("conv_feature_layers", default), path)
    build = partial(WaveEncoder, conv_size=conv_size, feature_norm=True, positions_first=True, **sizes)
    check_sizes(build, weights, path)
    encoder = build()
    names = weight_names.fairseq_wave(encoder.num_layers, feature_norm=True)
    try:
        encoder.load_state_dict(weight_names.to_ours(weights, names))
    except (KeyError, RuntimeError) as error:
        raise UsageError(f"{path}: the weights do not fit the configuration in it: {error}") from error
    return encoder.eval()


def conv_channels(text: str, path: str) -> int:
    """Channels of the seven convolutions, written as "[(512,10,5)] + [(512,3,2)] * 4 + ..."; nothing is evaluated.

    Raises:
        UsageError: other kernels or strides than wav2vec 2.0's, or channels that change.
    """
    layers: list[tuple[int, int, int]] = []
    try:
        for term in text.split("+"):
            listed, _, times = term.partition("*")
            layers += ast.literal_eval(listed.strip()) * min(int(times or 1), len(KERNELS) + 1)  # as written: terabytes
        channels, kernels, strides = zip(*layers, strict=True)
    except (SyntaxError, ValueError, TypeError, MemoryError, RecursionError) as error:
        raise UsageError(f"{path}: convolutions {text!r:.200} cannot be understood ({error!s:.200})") from error
    if kernels != KERNELS or strides != STRIDES or len(set(channels)) != 1:
        raise UsageError(f"{path}: convolutions {text!r:.200}; only those of wav2vec 2.0 are built here, of one size")
    return int(channels[0])


def _prefixed(**parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}.{key}": tensor for name, weights in parts.items() for key, tensor in weights.items()}
