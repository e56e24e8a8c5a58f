"""Memory for the waveforms of a batch, used again when nobody holds the batch any more.

A fresh array of a batch's size costs page faults and zeroing that are a twentieth of the whole CPU of streaming,
because a thread's memory goes back to the system each time. Ours is kept until the batch's tensors are collected.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

MOST_KEPT = 8
"""Batches whose memory is kept: those that a loader has built ahead, the one being built, and the consumer's."""


class Row(NamedTuple):
    """The place of one waveform in the memory of its batch, for torch and for numpy: [length] each."""

    tensor: torch.Tensor
    array: np.ndarray[Any, Any]


class BatchMemory:
    """Gives rows for waveforms; safe from several threads. Pickles empty."""

    def __init__(self) -> None:
        self._free: deque[bytearray] = deque(maxlen=MOST_KEPT)
        self._in_use: set[int] = set()  # addresses

    def __reduce__(self) -> tuple[type[BatchMemory], tuple[()]]:
        return BatchMemory, ()

    def rows(self, lengths: Sequence[int], dtype: str) -> list[Row]:
        """Places for waveforms of these lengths: the beginnings of the rows of one array [len(lengths), longest].

        They hold whatever was there before, to be written; what follows them in their rows are zeros.
        """
        longest = max(lengths)
        memory = self._take(len(lengths) * longest * np.dtype(dtype).itemsize).view(dtype)
        arrays = []
        for row, length in zip(memory.reshape(len(lengths), longest), lengths, strict=True):
            row[length:] = 0
            arrays.append(row[:length])
        # all by one call: a tensor cut by itself for each clip costs the time of a small read
        sizes = [size for length in lengths for size in (length, longest - length)]
        return list(map(Row, torch.from_numpy(memory).split_with_sizes(sizes)[::2], arrays))

    def owns(self, tensor: torch.Tensor) -> bool:
        """True of a tensor in memory that this has given."""
        return tensor.untyped_storage().data_ptr() in self._in_use

    def _take(self, num_bytes: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
        try:
            memory = self._free.pop()  # the last one is the most likely to be in a cache
        except IndexError:
            memory = bytearray()
        if len(memory) < num_bytes:
            memory = bytearray(num_bytes + num_bytes // 8)  # batches are of nearly the same size: the next one fits
        array = np.frombuffer(memory, dtype=np.uint8)  # what all tensors and views will hold on to
        address = array.ctypes.data
        self._in_use.add(address)
        weakref.finalize(array, self._take_back, address, memory).atexit = False
        return array[:num_bytes]

    def _take_back(self, address: int, memory: bytearray) -> None:
        self._in_use.discard(address)
        self._free.append(memory)
