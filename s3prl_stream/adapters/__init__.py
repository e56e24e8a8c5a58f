"""The same stream, task and head under trainers of others, see docs/other_trainers.md.

Each file needs its trainer (`pip install "s3prl-stream[trainers]"`) and nothing of the other two.
"""

from __future__ import annotations

from s3prl_stream.adapters.updates import UpdateLoss, Updates, limit_gradients, rate_schedule

__all__ = ["UpdateLoss", "Updates", "limit_gradients", "rate_schedule"]
