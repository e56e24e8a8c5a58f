"""TERA (Liu et al., "TERA: Self-Supervised Learning of Transformer Encoder Representation for Speech", TASLP 2021).

Log-mel of the waveform at -25 dB, normalised per utterance; spans of 7 frames and a band of bins are masked.
"""

from __future__ import annotations

from dataclasses import replace

from s3prl_stream.recipes.masked import FBANK, LOGMEL, MaskedStream, TransformerModel, masked_recipe
from s3prl_stream.recipes.recipe import TrainDefaults

STREAM = MaskedStream(mask="tera")

TERA = masked_recipe("tera", TransformerModel(), LOGMEL, STREAM)

TERA_LARGE_BATCH = replace(
    TERA,
    name="tera_large_batch",
    train=TrainDefaults(lr=5e-4, warmup_share=0.08, update_batches=2, published_steps=400_000),
)
"""S3PRL's second configuration of the runner: batches twice as large, and fewer."""

TERA_FBANK = masked_recipe(
    "tera_fbank",
    TransformerModel(feat_dim=240, target_dim=240, dropout=0.3, attention_dropout=0.3),
    FBANK,
    STREAM,
)
"""On Kaldi's filter banks with deltas (S3PRL's fbankBase-T-F)."""

TERA_SLIM = masked_recipe(
    "tera_slim",
    TransformerModel(hidden_size=384, num_layers=12, num_heads=8, ffn_size=768, dropout=0.3, attention_dropout=0.3),
    LOGMEL,
    replace(STREAM, noise_prob=0.15, crop_seconds=150.0),
)
"""Twelve narrow layers, noise on the input, and clips that are hardly ever cut (S3PRL's logMelSlim-T-F-M)."""
