"""Events for TensorBoard. Needs the package of that name (the extra `tensorboard`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from s3prl_stream.errors import UsageError


def open_events(folder: Path, last_step: int) -> Any:
    """A writer that goes on after `last_step`: what an earlier process wrote of later steps is hidden.

    Raises:
        UsageError: tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise UsageError("tensorboard=true needs tensorboard: pip install 's3prl-stream[tensorboard]'") from None
    return SummaryWriter(str(folder), purge_step=last_step + 1)
