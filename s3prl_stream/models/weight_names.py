"""Names of weights here and elsewhere: S3PRL's checkpoints of all recipes, and HuBERT as S3PRL, torchaudio and Hugging
Face have it.

A list of pairs serves both ways. Attention's three matrices are one here, so a name of ours may stand for three. S3PRL
repeats a layer that is shared, so a name of ours may stand in several pairs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TypeAlias

import torch
from torch import Tensor

Names: TypeAlias = list[tuple[str, tuple[str, ...]]]
"""(our name, one name or three of theirs), without the ending `.weight` or `.bias` where `both` is applied."""

TRANSFORMER_LAYER = {
    "query_key_value": ("attention.self.query", "attention.self.key", "attention.self.value"),
    "attention_out": ("attention.output.dense",),
    "attention_norm": ("attention.output.LayerNorm",),
    "ffn_in": ("intermediate.dense",),
    "ffn_out": ("output.dense",),
    "ffn_norm": ("output.LayerNorm",),
}
FAIRSEQ_LAYER = {
    "query_key_value": ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"),
    "attention_out": ("self_attn.out_proj",),
    "attention_norm": ("self_attn_layer_norm",),
    "ffn_in": ("fc1",),
    "ffn_out": ("fc2",),
    "ffn_norm": ("final_layer_norm",),
}
HUGGINGFACE_LAYER = {
    "query_key_value": ("attention.q_proj", "attention.k_proj", "attention.v_proj"),
    "attention_out": ("attention.out_proj",),
    "attention_norm": ("layer_norm",),
    "ffn_in": ("feed_forward.intermediate_dense",),
    "ffn_out": ("feed_forward.output_dense",),
    "ffn_norm": ("final_layer_norm",),
}
NUM_CONVS = 7
POSITION = ("bias", "parametrizations.weight.original0", "parametrizations.weight.original1")


def s3prl_transformer(num_layers: int, *, share_layers: bool = False) -> Names:
    """Mockingjay, TERA and Audio ALBERT: ours (`encoder.`, no prefix there) and S3PRL's "Transformer"."""
    names: Names = [
        ("project", ("input_representations.spec_transform",)),
        ("norm", ("input_representations.LayerNorm",)),
    ]
    for layer in range(num_layers):
        ours = f"layers.{0 if share_layers else layer}"
        names += _layer(ours, f"encoder.layer.{layer}", TRANSFORMER_LAYER)
    return both(names)


def s3prl_transformer_head() -> Names:
    """The head of the same, S3PRL's "SpecHead"."""
    return both([("dense", ("dense",)), ("norm", ("LayerNorm",)), ("output", ("output",))])


def s3prl_apc(num_layers: int, num_groups: int) -> Names:
    """APC and VQ-APC: encoder and head, and S3PRL's "model"."""
    kinds = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
    grus: Names = [
        (f"encoder.grus.{layer}.{kind}", (f"rnn_layers.{layer}.{kind}",))
        for layer in range(num_layers)
        for kind in kinds
    ]
    return grus + _postnet(num_groups)


def s3prl_npc(num_blocks: int, num_groups: int) -> Names:
    """NPC: encoder and head, and S3PRL's "model"."""
    names: Names = []
    for block in range(num_blocks):
        ours, theirs = f"encoder.blocks.{block}", f"blocks.{block}"
        for our_norm, their_norm in (("conv_norm", "bn1"), ("pointwise_norm", "bn2")):
            for kind in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked"):
                names.append((f"{ours}.{our_norm}.{kind}", (f"{theirs}.{their_norm}.{kind}",)))
        pairs: Names = [
            (f"{ours}.conv", (f"{theirs}.conv",)),
            (f"{ours}.pointwise", (f"{theirs}.linear",)),
            (f"encoder.masked_convs.{block}.conv", (f"masked_convs.{block}.conv",)),
        ]
        names += both(pairs)
    return names + _postnet(num_groups)


def fairseq_wave(num_layers: int, *, feature_norm: bool) -> Names:
    """`WaveEncoder`, and HuBERT or DistilHuBERT in S3PRL, whose names are fairseq's."""
    pairs: Names = [("project", ("post_extract_proj",)), ("norm", ("encoder.layer_norm",))]
    pairs += [("feature_norm", ("layer_norm",))] if feature_norm else []
    for layer in range(num_layers):
        pairs += _layer(f"layers.{layer}", f"encoder.layers.{layer}", FAIRSEQ_LAYER)
    position = [f"encoder.pos_conv.0.{kind}" for kind in ("bias", "weight_g", "weight_v")]
    return _convolutions("0", "2", position) + both(pairs)


def library_wave(num_layers: int, *, library: str) -> Names:
    """`WaveEncoder`, and a model of torchaudio ("torchaudio") or transformers ("huggingface")."""
    feature, transformer = {
        "torchaudio": ("encoder.feature_projection", "encoder.transformer"),
        "huggingface": ("feature_projection", "encoder"),
    }[library]
    pairs: Names = [
        ("feature_norm", (f"{feature}.layer_norm",)),
        ("project", (f"{feature}.projection",)),
        ("norm", (f"{transformer}.layer_norm",)),
    ]
    for layer in range(num_layers):
        pairs += _layer(f"layers.{layer}", f"{transformer}.layers.{layer}", HUGGINGFACE_LAYER)
    position = [f"{transformer}.pos_conv_embed.conv.{kind}" for kind in POSITION]
    return _convolutions("conv", "layer_norm", position) + both(pairs)


def to_ours(weights: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Their weights under our names; KeyError if one is missing."""
    return {
        our: torch.cat([weights[their] for their in theirs]) if len(theirs) > 1 else weights[theirs[0]]
        for our, theirs in names
    }


def to_theirs(weights: Mapping[str, Tensor], names: Names) -> dict[str, Tensor]:
    """Our weights under their names; KeyError if one is missing."""
    theirs: dict[str, Tensor] = {}
    for our, their_names in names:
        parts: Iterable[Tensor] = weights[our].chunk(len(their_names)) if len(their_names) > 1 else [weights[our]]
        theirs.update({name: part.clone() for name, part in zip(their_names, parts, strict=True)})
    return theirs


def both(names: Names) -> Names:
    """Each name with `.weight` and with `.bias`."""
    return [
        (f"{our}.{kind}", tuple(f"{their}.{kind}" for their in theirs))
        for our, theirs in names
        for kind in ("weight", "bias")
    ]


def _convolutions(conv: str, norm: str, position: Iterable[str]) -> Names:
    """Those of a `WaveEncoder`, by what is called so in each layer and in the first, and those that code positions."""
    theirs = "feature_extractor.conv_layers"
    names: Names = [(f"convs.layers.{one}.weight", (f"{theirs}.{one}.{conv}.weight",)) for one in range(NUM_CONVS)]
    names += [(f"convs.norm_{kind}", (f"{theirs}.0.{norm}.{kind}",)) for kind in ("weight", "bias")]
    return names + [(f"position_conv.{our}", (name,)) for our, name in zip(POSITION, position, strict=True)]


def _layer(ours: str, theirs: str, parts: Mapping[str, tuple[str, ...]]) -> Names:
    return [(f"{ours}.{our}", tuple(f"{theirs}.{name}" for name in names)) for our, names in parts.items()]


def _postnet(num_groups: int) -> Names:
    names: Names = both([("head.output", ("postnet",))])
    for group in range(num_groups):
        names += both([(f"head.quantizer.logits.{group}", (f"vq_layers.{group}.vq_logits",))])
        names.append((f"head.quantizer.codebooks.{group}.weight", (f"vq_layers.{group}.codebook_CxE.weight",)))
    return names
