"""Random draws of the stages: a pure function of what is processed, never of what was processed before.

No generator lives in any state, so workers, resume and re-ordering cannot change a draw.
"""

from __future__ import annotations

import hashlib

import numpy as np


def identity(*, seed: int, set_name: str, epoch: int, key: str, first_frame: int, draw: int) -> str:
    """The name of one stretch of audio in one epoch, from which all draws on it follow."""
    return f"{seed}/{epoch}/{first_frame}/{draw}/{set_name}/{key}"


def is_identity(value: object) -> bool:
    """Whether this is what `identity` made, with or without what stages have added for a piece."""
    return (
        isinstance(value, str)
        and all(part.lstrip("-").isdigit() for part in value.split("/", 4)[:4])
        and value.count("/") >= 5
    )


def in_epoch(given: str, *, seed: int, epoch: int) -> str:
    """The identity of a sample of another chain, in an epoch of this one."""
    return given if given.split("/", 2)[:2] == [str(seed), str(epoch)] else f"{given}@{seed}/{epoch}"


def sample_rng(sample_identity: str, stage: str) -> np.random.Generator:
    """A Philox generator for one sample in one stage.

    Args:
        sample_identity: the sample's "identity".
        stage: name of the stage, with its occurrence if it stands more than once in the chain.
    """
    digest = hashlib.blake2b(f"{stage}/{sample_identity}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(digest, "little")))
