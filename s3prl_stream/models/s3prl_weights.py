"""Weights from S3PRL's checkpoints of Mockingjay, TERA and Audio ALBERT.

Only tensors, dicts and numbers are read (`weights_only=True`). A checkpoint as S3PRL's runner writes it also holds its
arguments and its schedule as objects; these two classes alone are let through, as inert stand-ins.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from s3prl_stream.errors import UsageError
from s3prl_stream.models.transformer import ReconstructionHead, TransformerEncoder

_LAYER_NAMES = {
    "attention.output.dense": "attention_out",
    "attention.output.LayerNorm": "attention_norm",
    "intermediate.dense": "ffn_in",
    "output.dense": "ffn_out",
    "output.LayerNorm": "ffn_norm",
}


class _Inert:
    """Takes the place of an object that nothing here looks at."""


def load_s3prl_transformer(path: str | Path) -> tuple[TransformerEncoder, ReconstructionHead]:
    """An encoder and head with the weights of S3PRL's checkpoint, in evaluation mode.

    Raises:
        UsageError: not such a checkpoint, or a variant that is not built here (pre-norm, other activations).
    """
    inert: list[Any] = [(_Inert, "argparse.Namespace"), (_Inert, "optimizers.WarmupLinearSchedule")]
    try:
        with torch.serialization.safe_globals(inert):
            checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # torch raises whatever its reader trips over
        raise UsageError(
            f"{path}: not a checkpoint that can be loaded safely ({type(error).__name__}: {str(error).splitlines()[0]})"
        ) from error
    missing = [key for key in ("Transformer", "SpecHead", "Upstream_Config") if key not in checkpoint]
    if missing:
        raise UsageError(
            f"{path}: no {', '.join(missing)}; this is no checkpoint of S3PRL's Mockingjay, TERA or AALBERT"
        )
    sizes = checkpoint["Upstream_Config"]["transformer"]
    if sizes["pre_layer_norm"] or sizes["hidden_act"] != "gelu":
        raise UsageError(
            f"{path}: pre_layer_norm={sizes['pre_layer_norm']}, hidden_act={sizes['hidden_act']!r}; "
            "only post-norm encoders with GELU are built here"
        )
    encoder_weights = convert_encoder(checkpoint["Transformer"], share_layers=sizes["share_layer"])
    head_weights = convert_head(checkpoint["SpecHead"])
    encoder = TransformerEncoder(
        feat_dim=encoder_weights["project.weight"].shape[1],
        hidden_size=sizes["hidden_size"],
        num_layers=sizes["num_hidden_layers"],
        num_heads=sizes["num_attention_heads"],
        ffn_size=sizes["intermediate_size"],
        dropout=sizes["hidden_dropout_prob"],
        attention_dropout=sizes["attention_probs_dropout_prob"],
        share_layers=sizes["share_layer"],
    )
    head = ReconstructionHead(sizes["hidden_size"], len(head_weights["output.bias"]))
    encoder.load_state_dict(encoder_weights)
    head.load_state_dict(head_weights)
    return encoder.eval(), head.eval()


def convert_encoder(weights: dict[str, Tensor], *, share_layers: bool = False) -> dict[str, Tensor]:
    """S3PRL's names -> ours; the three attention matrices of a layer are stacked."""
    ours: dict[str, Tensor] = {}
    for kind in ("weight", "bias"):
        ours[f"project.{kind}"] = weights[f"input_representations.spec_transform.{kind}"]
        ours[f"norm.{kind}"] = weights[f"input_representations.LayerNorm.{kind}"]
    numbers = sorted({int(name.split(".")[2]) for name in weights if name.startswith("encoder.layer.")})
    for number in numbers[:1] if share_layers else numbers:
        theirs = f"encoder.layer.{number}"
        for kind in ("weight", "bias"):
            stacked = [weights[f"{theirs}.attention.self.{part}.{kind}"] for part in ("query", "key", "value")]
            ours[f"layers.{number}.query_key_value.{kind}"] = torch.cat(stacked)
            for their_name, our_name in _LAYER_NAMES.items():
                ours[f"layers.{number}.{our_name}.{kind}"] = weights[f"{theirs}.{their_name}.{kind}"]
    return ours


def convert_head(weights: dict[str, Any]) -> dict[str, Tensor]:
    """S3PRL's names -> ours."""
    return {name.replace("LayerNorm", "norm"): tensor for name, tensor in weights.items()}
