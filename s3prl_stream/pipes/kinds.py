"""Kinds of values, as in what stages take and provide: "float32 [T]", "float32|int16 [T]", "any", "nested"."""

from __future__ import annotations

from functools import cache
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


def holds(value: Any, wanted: str) -> bool:
    """Whether a value, as stages get it, is of this kind."""
    if wanted in UNTYPED:
        return True
    dtypes, ndim = _parsed(wanted)
    return isinstance(value, torch.Tensor) and value.dtype in dtypes and value.ndim == ndim


@cache
def _parsed(wanted: str) -> tuple[frozenset[torch.dtype], int]:
    """(the types of an array of this kind, its number of dimensions)."""
    dtypes, _, dims = wanted.partition(" ")
    return frozenset(getattr(torch, name) for name in dtypes.split("|")), dims.count(",") + bool(dims)


def told(value: Any) -> str:
    """A value in an error: type and shape of an array, such as "float64 [2, 16000]", or what else it is."""
    if not hasattr(value, "dtype") or not hasattr(value, "shape"):
        return f"a {type(value).__name__}"
    array = "an array of numpy, " if isinstance(value, np.ndarray) else ""
    return f"{array}{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"


def how_to_get(wanted: str) -> str:
    """What makes a value of this kind, for an error."""
    return " LoadAudio() before it makes it so." if wanted.endswith("[T]") else ""


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
