"""Names of sizes here and in the configurations of S3PRL's checkpoints; a table serves both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

TRANSFORMER = {
    "hidden_size": "hidden_size",
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "ffn_size": "intermediate_size",
    "dropout": "hidden_dropout_prob",
    "attention_dropout": "attention_probs_dropout_prob",
    "share_layers": "share_layer",
}
GRU = {"hidden_size": "hidden_size", "dropout": "dropout", "num_layers": "num_layers", "residual": "residual"}
NPC = {
    "hidden_size": "hidden_size",
    "dropout": "dropout",
    "num_blocks": "n_blocks",
    "kernel_size": "kernel_size",
    "mask_size": "mask_size",
}
HUBERT = {
    "hidden_size": "encoder_embed_dim",
    "num_layers": "encoder_layers",
    "num_heads": "encoder_attention_heads",
    "ffn_size": "encoder_ffn_embed_dim",
    "position_kernel": "conv_pos",
    "position_groups": "conv_pos_groups",
}
STUDENT = {
    **HUBERT,
    "dropout": "dropout",
    "attention_dropout": "attention_dropout",
    "activation_dropout": "activation_dropout",
    "conv_gradient": "feature_grad_mult",
    "target_layers": "pred_layer_id",
    "target_size": "final_dim",
    "cosine_weight": "cosine_loss",
}


def sizes_from(config: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Our names and their values; KeyError if one is missing."""
    return {our: config[their] for our, their in names.items()}


def sizes_for(model: Any, names: Mapping[str, str]) -> dict[str, Any]:
    """Their names and our values."""
    return {their: getattr(model, our) for our, their in names.items()}
