"""TERA (Liu et al., "TERA: Self-Supervised Learning of Transformer Encoder Representation for Speech", TASLP 2021).

Log-mel of the waveform at -25 dB, normalised per utterance; spans of 7 frames and a band of bins are masked.
"""

from __future__ import annotations

from typing import Any

from s3prl_stream.pipes.stage import Stage
from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.masked import TransformerModel, masked_recipe

TERA = masked_recipe("tera", TransformerModel(), FrontEnd("logmel80", target_db=-25.0))


def tera_stream(shards: Any, **stream: Any) -> Stage:
    """The stream of TERA; settings by name, of the recipe and of `ShardStream`."""
    return TERA.stream(shards, **stream)
