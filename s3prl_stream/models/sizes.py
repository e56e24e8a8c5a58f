"""What all networks ask of their sizes."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from torch import nn

from s3prl_stream.errors import UsageError

MOST = 1_000_000
MOST_LAYERS = 1_000
"""Also of heads and groups: whatever is called `num_`."""


def possible(of: str = "encoder", **sizes: int) -> None:
    """UsageError for a size below 1 or beyond any machine, by its name."""
    for name, value in sizes.items():
        most = MOST_LAYERS if name.startswith("num_") else MOST
        if not 1 <= value <= most:
            raise UsageError(f"{of}: {name} is {value}; it must be at least 1 and at most {most}")


def below_one(**dropouts: float) -> None:
    """UsageError for a share that is dropped which is below 0, or is all, by its name."""
    for name, value in dropouts.items():
        if not 0 <= value < 1:
            raise UsageError(f"encoder: {name} is {value}; it must be at least 0 and below 1")


def numbers_in(build: Callable[[], nn.Module]) -> int:
    """How many numbers the weights of a network are; it is built without taking memory or drawing any."""
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return sum(tensor.numel() for tensor in build().state_dict().values())


def fits_memory(of: str, build: Callable[[], nn.Module]) -> None:
    """UsageError if a network's weights are more than the memory of this machine."""
    asked, memory = 4 * numbers_in(build), os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if asked > memory:
        raise UsageError(
            f"{of}: these sizes make {asked / 1e9:.0f} GB of weights, and this machine has {memory / 1e9:.0f} GB of "
            "memory; choose smaller ones"
        )
