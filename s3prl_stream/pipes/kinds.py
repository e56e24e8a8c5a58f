"""Kinds of values, as in what stages take and provide: "float32 [T]", "float32|int16 [T]", "any", "nested"."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

UNTYPED = ("any", "nested")


def fits(given: str, wanted: str) -> bool:
    """Whether a value of the one kind can be taken as the other."""
    if given == "any" or wanted in UNTYPED:
        return True
    given_dtype, _, given_dims = given.partition(" ")
    wanted_dtypes, _, wanted_dims = wanted.partition(" ")
    same_rank = given_dims.count(",") == wanted_dims.count(",") and bool(given_dims) == bool(wanted_dims)
    return given_dtype in wanted_dtypes.split("|") and same_rank


def kind_of(value: Any) -> str:
    """Of an array: its type as in `takes`, such as "float64 [?, ?]". Of anything else: "any"."""
    if not hasattr(value, "dtype") or not hasattr(value, "ndim") or value.ndim == 0:
        return "any"
    return f"{str(value.dtype).removeprefix('torch.')} [{', '.join('?' * value.ndim)}]"


def as_tensor(value: Any) -> Any:
    """A numeric numpy array as a tensor, of the same memory where possible; anything else as it is."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "biuf":
        return value
    return torch.from_numpy(np.require(value, requirements=["C", "W"]))
