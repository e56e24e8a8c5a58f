"""What the summaries of commands have in common."""

from __future__ import annotations

from collections.abc import Sequence

_MOST_SHOWN = 20


def duration(hours: float) -> str:
    """As summaries tell it: minutes where hours would be nearly 0."""
    return f"{hours:.2f} h" if hours >= 0.1 else f"{hours * 60:.1f} min"


def size_of_set(name: str, samples: int, hours: float, shards: int, num_bytes: int) -> str:
    """As summaries tell it."""
    plural = "" if shards == 1 else "s"
    return f"{name}: {samples} samples, {duration(hours)} in {shards} shard{plural}, {num_bytes / 1e6:.1f} MB"


def first_of(lines: Sequence[str], more: str = "") -> list[str]:
    """The first lines of a list that may be long, and how many more there are; `more` says where."""
    rest = [f"... and {len(lines) - _MOST_SHOWN} more{more}"] if len(lines) > _MOST_SHOWN else []
    return [f"  {line}" for line in (*lines[:_MOST_SHOWN], *rest)]
