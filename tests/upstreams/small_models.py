"""Small randomly initialised models of torchaudio and of Hugging Face, saved as real ones are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

KERNELS, STRIDES = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2)


def redrawn(make: Callable[[], nn.Module]) -> nn.Module:
    """Weights and biases at which mistakes show: the usual start has zero biases and unit norms, or small ones."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)  # of the biases: with some of them the sums of a batch are further from those alone
        model = make()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            spread = 0.3 if parameter.ndim < 2 else 1.0 / parameter[0].numel() ** 0.5
            start = parameter if parameter.ndim < 2 else torch.zeros_like(parameter)
            parameter.copy_(start + spread * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def torchaudio_params(kind: str) -> dict[str, Any]:
    params: dict[str, Any] = {
        "extractor_mode": "layer_norm" if kind == "large" else "group_norm",
        "extractor_conv_layer_config": [(8, kernel, stride) for kernel, stride in zip(KERNELS, STRIDES, strict=True)],
        "extractor_conv_bias": kind == "large", "encoder_embed_dim": 24, "encoder_projection_dropout": 0.1,
        "encoder_pos_conv_kernel": 16, "encoder_pos_conv_groups": 4, "encoder_num_layers": 3, "encoder_num_heads": 2,
        "encoder_attention_dropout": 0.1, "encoder_ff_interm_features": 32, "encoder_ff_interm_dropout": 0.1,
        "encoder_dropout": 0.1, "encoder_layer_norm_first": kind == "large", "encoder_layer_drop": 0.1,
        "aux_num_out": None,
    }  # fmt: skip
    return params | ({"encoder_num_buckets": 20, "encoder_max_distance": 40} if kind == "wavlm" else {})


def save_small_torchaudio(path: Path, kind: str = "base") -> nn.Module:
    """A model of wav2vec 2.0's base or large kind, or WavLM, and its file."""
    import torchaudio.models

    from s3prl_stream.upstreams.torchaudio_models import save_torchaudio

    factory = "wavlm_model" if kind == "wavlm" else "wav2vec2_model"
    params = torchaudio_params(kind)
    model: nn.Module = redrawn(lambda: getattr(torchaudio.models, factory)(**params))
    save_torchaudio(path, model, params, factory=factory, normalize=kind == "large")
    return model


def save_small_huggingface(folder: Path, kind: str = "hubert", **changed: Any) -> nn.Module:
    """A HubertModel, Wav2Vec2Model or WavLMModel and its directory."""
    import transformers

    name = {"hubert": "Hubert", "wav2vec2": "Wav2Vec2", "wavlm": "WavLM"}[kind]
    config = getattr(transformers, f"{name}Config")(
        **{
            "hidden_size": 24, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32,
            "conv_dim": (8,) * 7, "num_conv_pos_embeddings": 16, "num_conv_pos_embedding_groups": 4, **changed,
        }
    )  # fmt: skip
    model: nn.Module = redrawn(lambda: getattr(transformers, f"{name}Model")(config))
    model.save_pretrained(folder)  # type: ignore[operator]
    return model
