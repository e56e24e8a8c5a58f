"""Upstreams without a network: the features themselves."""

from __future__ import annotations

from s3prl_stream.recipes.front_end import FrontEnd

BASELINE = "logmel80"

BASELINES = {
    # without normalisation over the utterance: its mean over the frames would be 0
    BASELINE: (FrontEnd("logmel80", target_db=-25.0), "none"),
    "fbank": (FrontEnd("fbank80_povey", deltas=2), "utterance"),
    "fbank80": (FrontEnd("fbank80_povey"), "none"),
    "mfcc": (FrontEnd("mfcc13", deltas=2), "utterance"),
    "spectrogram": (FrontEnd("linear201", target_db=-25.0), "none"),
}
"""Name -> features, and their normalisation.

"fbank" and "mfcc" are S3PRL's baselines: with two orders of deltas, normalised per utterance.
"""
