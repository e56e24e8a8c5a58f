"""What stands on an upstream: a weighted sum of its hidden states, and heads by name."""

from __future__ import annotations

from s3prl_stream.heads.build import KINDS, build_head
from s3prl_stream.heads.pooling import POOLINGS, build_pooling
from s3prl_stream.heads.weighted_sum import WeightedSum

__all__ = ["KINDS", "POOLINGS", "WeightedSum", "build_head", "build_pooling"]
