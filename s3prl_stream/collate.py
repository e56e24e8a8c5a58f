"""Samples of one batch -> one dict of padded tensors. A pure function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch

from s3prl_stream.batch_memory import BatchMemory
from s3prl_stream.errors import UsageError
from s3prl_stream.sample import RESERVED_KEYS, Batch, Sample

DROPPED = frozenset({"identity", "slot", "batch_index", "audio", "decode_into"})
"""Of use only inside the chain."""

_INT64 = range(-(2**63), 2**63)
_PLAIN = {str, int, float, bool, type(None)}

_ALWAYS_INTEGERS = ("first_frame", "num_frames", "clip_frames", "sample_rate")

_SCALAR_TYPES = {"int": torch.int64, "float": torch.float32, "bool": torch.bool}


def collate(
    samples: Sequence[Sample],
    batch_index: int = 0,
    known_keys: Mapping[str, str] | None = None,
    memory: BatchMemory | None = None,
) -> Batch:
    """Pad and stack.

    Tensors and arrays [X, ...] become `name` [B, longest, ...] of the same type, zero-padded, on the CPU and without
    gradient, with `name_len` [B] int64. Integers, floats and booleans become [B] tensors (int64, float32, bool);
    everything else, integers beyond int64 too, becomes a list. A key that only some samples have becomes a list with
    None.

    Args:
        samples: of one batch; may be empty.
        batch_index: global number of the batch.
        known_keys: types of the keys, so that an empty batch has its (empty) tensors and lists too; metadata, whose
            types are not told, are lists there.
        memory: tensors that lie in it as they do in the batch need no copy; of any others, the batch holds copies.

    Returns:
        The batch, with `batch_index` (int) and `weight` (float: 1.0, or 0.0 for a batch without samples).

    Raises:
        UsageError: arrays of one key that differ in more than their first dimension.
    """
    batch: Batch = {"batch_index": batch_index, "weight": 1.0 if samples else 0.0}
    if not samples:
        return {**batch, **_empty(known_keys or {})}
    for name in dict.fromkeys(chain.from_iterable(samples)):
        if name in DROPPED:
            continue
        values = [sample.get(name) for sample in samples]
        if _PLAIN.issuperset(map(type, values)):
            batch[name] = _stack(values)
        elif all(isinstance(value, torch.Tensor | np.ndarray) and value.ndim for value in values):
            tensors = [value if isinstance(value, torch.Tensor) else torch.as_tensor(value) for value in values]
            batch[name], batch[f"{name}_len"] = _pad(name, tensors, memory)
            if memory is not None and memory.owns(batch[name]):
                memory = None  # another key of the same tensors gets a copy
        else:
            batch[name] = _stack(list(map(_plain, values)))
    return batch


def _pad(name: str, values: list[torch.Tensor], memory: BatchMemory | None) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = [value.shape[0] for value in values]
    if len({(value.shape[1:], value.dtype) for value in values}) > 1:
        kinds = sorted({f"{value.dtype} {list(value.shape)}" for value in values})
        raise UsageError(
            f"collate: {name!r} differs within a batch in more than its first dimension, the length: {', '.join(kinds)}"
        )
    padded = _in_place(values, lengths) if memory is not None and memory.owns(values[0]) else None
    if padded is None:
        dtype = values[0].dtype
        rows = [(value.view(torch.int16) if dtype == torch.bfloat16 else value).numpy(force=True) for value in values]
        # numpy takes large arrays in huge pages and copies in this thread; torch.zeros costs five times the CPU here
        array = np.zeros((len(rows), max(lengths), *rows[0].shape[1:]), dtype=rows[0].dtype)
        for place, row, length in zip(array, rows, lengths, strict=True):
            place[:length] = row
        padded = torch.from_numpy(array).view(dtype)  # numpy has no bfloat16: its bits went through as int16
    return padded, torch.tensor(lengths, dtype=torch.int64)


def _in_place(values: list[torch.Tensor], lengths: list[int]) -> torch.Tensor | None:
    """The batch itself, if its rows were decoded into one zeroed array (see `ShardStream`); None otherwise.

    A stage may have cut or thinned its row since (a view of the same memory), and resampling decodes into it first:
    so the rows must be contiguous, and what follows each of them must still be zeros.
    """
    first, longest = values[0].detach(), max(lengths)
    width, rest = divmod(first.untyped_storage().nbytes() // first.element_size(), len(values))
    if first.ndim != 1 or rest or width < longest:
        return None
    start = first.untyped_storage().data_ptr()
    step = width * first.element_size()
    if any(value.data_ptr() != start + row * step or not value.is_contiguous() for row, value in enumerate(values)):
        return None
    batch = first.as_strided((len(values), longest), (width, 1), 0)
    if any(np.count_nonzero(row[length:]) for row, length in zip(batch.numpy(), lengths, strict=True)):
        return None
    return batch


def _plain(value: Any) -> Any:
    return value.item() if isinstance(value, torch.Tensor | np.generic) and value.ndim == 0 else value


def _stack(values: list[Any]) -> Any:
    kinds = set(map(type, values))
    if kinds == {bool}:
        return torch.tensor(values)
    if kinds == {int} and min(values) in _INT64 and max(values) in _INT64:
        return torch.tensor(values, dtype=torch.int64)
    if float in kinds and kinds <= {int, float}:
        return torch.tensor(values, dtype=torch.float32)
    return values


def _empty(known_keys: Mapping[str, str]) -> Batch:
    batch: Batch = {"key": [], "set": [], "epoch": torch.zeros(0, dtype=torch.int64)}
    for name, kind in known_keys.items():
        dtype, _, dims = kind.partition(" ")
        torch_type = getattr(torch, dtype, None)
        if dims and isinstance(torch_type, torch.dtype):
            batch[name] = torch.zeros((0,) * (dims.count(",") + 2), dtype=torch_type)
            batch[f"{name}_len"] = torch.zeros(0, dtype=torch.int64)
        elif kind in _SCALAR_TYPES:
            batch[name] = torch.zeros(0, dtype=_SCALAR_TYPES[kind])
        elif name in _ALWAYS_INTEGERS:
            batch[name] = torch.zeros(0, dtype=torch.int64)
        elif name not in RESERVED_KEYS:
            batch[name] = []
    return batch
