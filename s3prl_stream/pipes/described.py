"""Settings of stages as text: equal ones are told alike in every process, others are told apart."""

from __future__ import annotations

import hashlib
import inspect
from types import FunctionType
from typing import Any

import numpy as np
import torch


def described(value: Any) -> str:
    """A value by its fingerprint, an array by a hash of its content, a function by its name, the rest by `repr`.

    The `repr` of a large array leaves out most of it, that of a function has its address. A function without a name of
    its own (a lambda, or one inside of another) has no other: a stage with one is another stage in each process.
    """
    fingerprint = getattr(value, "fingerprint", None)
    return _part(value) if fingerprint is None else f"<{type(value).__name__} {fingerprint}>"


def _part(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return _of_content(value, value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return _of_content(value, value.tobytes())
    if isinstance(value, FunctionType) and "<" not in value.__qualname__:
        return f"<function {value.__module__}.{value.__qualname__}>"
    if type(value) is list:
        return f"[{', '.join(map(_part, value))}]"
    if type(value) is tuple:
        return f"({', '.join(map(_part, value))}{',' if len(value) == 1 else ''})"
    if type(value) is dict:
        return f"{{{', '.join(f'{_part(key)}: {_part(one)}' for key, one in value.items())}}}"
    return repr(value)


def _of_content(array: Any, content: bytes) -> str:
    kind = f"{type(array).__name__} {array.dtype} {list(array.shape)}"
    return f"<{kind} {hashlib.blake2b(content, digest_size=8).hexdigest()}>"


def parameters_of(cls: type) -> list[str]:
    """Names of the settings that its constructor takes, those that **settings hands on to its parents included."""
    found: dict[str, None] = {}
    for owner in cls.__mro__:
        if "__init__" not in vars(owner):
            continue
        kinds = {name: parameter.kind for name, parameter in inspect.signature(owner.__init__).parameters.items()}  # type: ignore[misc]
        more = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        found |= dict.fromkeys(name for name, kind in kinds.items() if kind not in more)
        if inspect.Parameter.VAR_KEYWORD not in kinds.values():
            break
    return [name for name in found if name not in ("self", "source")]
