"""Upstreams without a network: the features themselves."""

from __future__ import annotations

from dataclasses import dataclass

from s3prl_stream.recipes.front_end import FrontEnd

BASELINE = "logmel80"


@dataclass(frozen=True)
class Baseline:
    """Features and their normalisation."""

    front_end: FrontEnd
    norm: str


BASELINES = {
    # without normalisation over the utterance: its mean over the frames would be 0
    BASELINE: Baseline(FrontEnd("logmel80", target_db=-25.0), "none"),
    "fbank": Baseline(FrontEnd("fbank80_povey", deltas=2), "utterance"),
    "fbank80": Baseline(FrontEnd("fbank80_povey"), "none"),
    "mfcc": Baseline(FrontEnd("mfcc13", deltas=2), "utterance"),
    "spectrogram": Baseline(FrontEnd("linear201", target_db=-25.0), "none"),
}
"""By name. "fbank" and "mfcc" are S3PRL's baselines: with two orders of deltas, normalised per utterance."""
