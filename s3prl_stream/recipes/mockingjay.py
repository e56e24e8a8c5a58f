"""Mockingjay (Liu et al., "Mockingjay: Unsupervised Speech Representation Learning with Deep Bidirectional Transformer
Encoders", ICASSP 2020).

Kaldi's log filter bank with first and second differences, normalised per utterance; masks of spans only.
"""

from __future__ import annotations

from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.masked import TransformerModel, masked_recipe

MOCKINGJAY = masked_recipe("mockingjay", TransformerModel(feat_dim=240), FrontEnd("fbank80_povey", deltas=2))
