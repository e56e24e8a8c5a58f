"""The documented hash from which the plan draws all its random numbers.

`mix64` is the finaliser of SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number
generators", OOPSLA 2014). A library's shuffle may change between versions; this cannot: it is part of the
plan's version. Everything works on numpy arrays of uint64, so ordering 80 000 shards takes milliseconds.
"""

from __future__ import annotations

import hashlib
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

U64: TypeAlias = npt.NDArray[np.uint64]

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MULTIPLY_1 = np.uint64(0xBF58476D1CE4E5B9)
_MULTIPLY_2 = np.uint64(0x94D049BB133111EB)


def mix64(values: U64) -> U64:
    """Bijective scrambling of uint64 [...] to uint64 [...]; neighbouring inputs give unrelated outputs."""
    with np.errstate(over="ignore"):
        mixed: U64 = values + _GOLDEN
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MULTIPLY_1
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MULTIPLY_2
        mixed ^= mixed >> np.uint64(31)
    return mixed


def hash64(*parts: int | str | npt.NDArray[Any]) -> U64:
    """Hash of a sequence of integers, strings and integer arrays (broadcast) -> uint64 array, 0-d if all are scalars.

    A pure function: the same parts give the same numbers on every machine and in every version of the plan.
    """
    result: U64 = np.zeros((), dtype=np.uint64)
    for part in parts:
        if isinstance(part, str):
            words: U64 = np.asarray(key_hash(part), dtype=np.uint64)
        elif isinstance(part, int):
            words = np.asarray(part & 0xFFFFFFFFFFFFFFFF, dtype=np.uint64)
        else:
            words = np.asarray(part).astype(np.uint64)
        result = mix64(result ^ mix64(words))
    return result


def repeated(hashes: U64) -> U64:
    """The hashes that are there more than once, each once, sorted."""
    in_order = np.sort(hashes)
    found: U64 = np.unique(in_order[1:][in_order[1:] == in_order[:-1]])
    return found


def uniform(hashes: U64) -> npt.NDArray[np.float64]:
    """uint64 [...] -> float64 [...] in [0, 1): the upper 53 bits."""
    fractions: npt.NDArray[np.float64] = (hashes >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return fractions


def key_hash(key: str) -> int:
    """64-bit identity of a string: the first 8 bytes (little-endian) of its BLAKE2b digest."""
    return int.from_bytes(hashlib.blake2b(key.encode(), digest_size=8).digest(), "little")
