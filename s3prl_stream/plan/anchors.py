"""Where blocks begin, as far as it is known: planning need not begin at the first of them to reach a batch."""

from __future__ import annotations

import bisect

from s3prl_stream.plan.planner import Position

_MOST_BEHIND = 256
"""Anchors behind the consumer that are remembered, for `Loader.which`: one of a mix takes kilobytes."""


class Anchors:
    """Positions of blocks in the order of the plan, the first of all among them.

    Args:
        *known: positions, in any order.
    """

    def __init__(self, *known: Position) -> None:
        self._positions = sorted(set(known))

    def __len__(self) -> int:
        return len(self._positions)

    def before(self, batch: int) -> Position:
        """The last one that begins at or before a global batch."""
        return self._positions[self._place_before(batch)]

    def add(self, position: Position, behind: int) -> None:
        """One more; of those long before global batch `behind`, every other one is forgotten now and then."""
        place = bisect.bisect_left(self._positions, position)
        if self._positions[place : place + 1] != [position]:
            self._positions.insert(place, position)
        used = self._place_before(behind)
        if used > _MOST_BEHIND:
            self._positions[:used] = self._positions[:used:2]

    def _place_before(self, batch: int) -> int:
        return bisect.bisect_right(self._positions, batch, key=lambda position: position.batch) - 1
