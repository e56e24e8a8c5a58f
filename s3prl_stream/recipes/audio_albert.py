"""Audio ALBERT (Chi et al., "Audio ALBERT: A Lite BERT for Self-supervised Learning of Audio
Representation", SLT 2021).

TERA's features, masks of spans only, and one layer's weights for all layers.
"""

from __future__ import annotations

from s3prl_stream.recipes.front_end import FrontEnd
from s3prl_stream.recipes.masked import TransformerModel, masked_recipe

AUDIO_ALBERT = masked_recipe("audio_albert", TransformerModel(share_layers=True), FrontEnd("logmel80", target_db=-25.0))
