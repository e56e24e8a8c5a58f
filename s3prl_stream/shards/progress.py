"""How long work on a set tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, "int | None"], None]
"""Called with the step ("listing", "packing" ...), how many shards, tars or clips are done, of how many (None: not
known)."""


def tell_nobody(step: str, done: int, total: int | None) -> None:
    """The progress of a caller who does not ask for it."""
