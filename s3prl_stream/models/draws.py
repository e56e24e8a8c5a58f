"""What torch draws, as a function of names and numbers: of a seed and what it is drawn for, of a step ..."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from s3prl_stream.hashing import hash64


def seed_torch(*identity: int | str) -> None:
    """Have all that torch draws from here on follow from these."""
    seed = int(hash64(*identity)) >> 1
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:  # it would note the stack for a GPU that is never used, which takes as long as a small layer
        torch.default_generator.manual_seed(seed)


@contextmanager
def drawn_by(*identity: int | str) -> Iterator[None]:
    """The same within the block; behind it the CPU's generator is as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        seed_torch(*identity)
        yield
