"""Mockingjay (Liu et al., "Mockingjay: Unsupervised Speech Representation Learning with Deep Bidirectional Transformer
Encoders", ICASSP 2020).

Kaldi's log filter bank with first and second differences, normalised per utterance; masks of spans only.
"""

from __future__ import annotations

from s3prl_stream.recipes.masked import FBANK, LOGMEL, MaskedStream, TransformerModel, masked_recipe

MOCKINGJAY = masked_recipe(
    "mockingjay", TransformerModel(feat_dim=240, target_dim=240), FBANK, MaskedStream(mask="mockingjay")
)

MOCKINGJAY_LARGE = masked_recipe(
    "mockingjay_large",
    TransformerModel(num_layers=12, target_dim=201),
    LOGMEL,
    MaskedStream(mask="mockingjay", target="linear201", crop_seconds=5.0, max_batch_seconds=160.0),
)
"""Twelve layers from log-mel to the log spectrogram, on crops of 5 s: the Mockingjay of SUPERB."""
