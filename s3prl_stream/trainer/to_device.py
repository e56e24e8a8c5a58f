"""Batches on their way to the device."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from s3prl_stream.sample import Batch


class ToDevice:
    """Moves batches; on a GPU by a copy from pinned memory on a stream of its own, beside the work of the step before.

    Nobody waits for the copy but the kernels that use it. A tensor that is there already stays as it is.
    """

    def __init__(self, device: torch.device) -> None:
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", torch.cuda.current_device())
        self.device = device
        self._copying: Any = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    def __call__(self, batch: Batch) -> Batch:
        """The batch with its tensors on the device."""
        if self._copying is None:
            return {name: one.to(self.device) if isinstance(one, Tensor) else one for name, one in batch.items()}
        with torch.cuda.stream(self._copying):
            moved = {name: self._sent(one) if isinstance(one, Tensor) else one for name, one in batch.items()}
        working = torch.cuda.current_stream(self.device)
        working.wait_stream(self._copying)
        for name, one in moved.items():
            if isinstance(one, Tensor) and one is not batch[name]:
                one.record_stream(working)  # its memory is not to be used again before the step is done with it
        return moved

    def _sent(self, tensor: Tensor) -> Tensor:
        if tensor.device == self.device:
            return tensor
        pinned = tensor if tensor.is_pinned() else tensor.pin_memory()
        return pinned.to(self.device, non_blocking=True)
