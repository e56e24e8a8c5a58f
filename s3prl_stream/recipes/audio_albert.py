"""Audio ALBERT (Chi et al., "Audio ALBERT: A Lite BERT for Self-supervised Learning of Audio Representation", SLT
2021).

TERA's features, masks of spans only, and one layer's weights for all layers.
"""

from __future__ import annotations

from s3prl_stream.recipes.masked import LOGMEL, MaskedStream, TransformerModel, masked_recipe

AUDIO_ALBERT = masked_recipe(
    "audio_albert", TransformerModel(share_layers=True), LOGMEL, MaskedStream(mask="audio_albert")
)
