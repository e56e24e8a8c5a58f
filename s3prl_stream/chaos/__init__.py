"""A reverse proxy that breaks answers on purpose, to see how a reader of an object store takes it.

`ChaosProxy` stands between a client and a real server and injects the faults of `faults.py`: by a list, by a function,
or by chance with a seed. Standard library only, loopback only.
"""

from __future__ import annotations

from s3prl_stream.chaos.faults import (
    Chance,
    ChangedEtag,
    Cut,
    Fault,
    FlippedByte,
    Request,
    Short,
    Slow,
    Stall,
    Unavailable,
    WholeObject,
    by_chance,
    by_list,
    parse_chances,
)
from s3prl_stream.chaos.log import Exchange
from s3prl_stream.chaos.proxy import ChaosProxy

__all__ = [
    "Chance",
    "ChangedEtag",
    "ChaosProxy",
    "Cut",
    "Exchange",
    "Fault",
    "FlippedByte",
    "Request",
    "Short",
    "Slow",
    "Stall",
    "Unavailable",
    "WholeObject",
    "by_chance",
    "by_list",
    "parse_chances",
]
