"""Memory for the waveforms of a batch, used again when nobody holds the batch any more.

A fresh array of a batch's size costs page faults and zeroing that are a twentieth of the whole CPU of streaming,
because a thread's memory goes back to the system each time. Ours is kept until the batch's tensors are collected.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

MOST_KEPT = 8
"""Batches whose memory is kept: those that a loader has built ahead, the one being built, and the consumer's."""


class BatchMemory:
    """Gives rows for waveforms; safe from several threads. Pickles empty."""

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque(maxlen=MOST_KEPT)

    def __reduce__(self) -> tuple[type[BatchMemory], tuple[()]]:
        return BatchMemory, ()

    def rows(self, lengths: Sequence[int], dtype: str) -> tuple[torch.Tensor, ...]:
        """Neighbouring rows [longest] of one array for waveforms of these lengths.

        Of each row the first `length` values are whatever was there before, to be written; the rest are zeros.
        """
        longest = max(lengths)
        memory = self._take(len(lengths) * longest * np.dtype(dtype).itemsize)
        rows = memory.view(dtype).reshape(len(lengths), longest)
        for row, length in zip(rows, lengths, strict=True):
            row[length:] = 0
        return torch.from_numpy(rows).unbind()

    def _take(self, num_bytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        try:
            memory = self._free.popleft()
        except IndexError:
            memory = bytearray()
        if len(memory) < num_bytes:
            memory = bytearray(num_bytes + num_bytes // 8)  # batches are of nearly the same size: the next one fits
        array = np.frombuffer(memory, dtype=np.uint8)  # what all tensors and views will hold on to
        weakref.finalize(array, self._free.append, memory).atexit = False
        return array[:num_bytes]
