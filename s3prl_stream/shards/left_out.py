"""`left_out.jsonl`: what is not in a set, and why, one a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple


class LeftOut(NamedTuple):
    """One utterance that is not in the set, and why."""

    key: str
    audio: str
    kind: str  # "damaged", "skipped" or "refused"
    reason: str  # machine-readable; shards/README.md lists them
    message: str

    def line(self) -> bytes:
        """Of `left_out.jsonl`."""
        # A name that is not UTF-8 holds surrogates; as \\udcXX they are JSON again.
        return json.dumps(self._asdict(), ensure_ascii=False).encode("utf-8", "backslashreplace") + b"\n"


def counted(left_out: Iterable[LeftOut]) -> tuple[int, dict[str, int]]:
    """How many are damaged, and of the others how many for each reason, sorted by it."""
    kinds = Counter((one.kind == "damaged", one.reason) for one in left_out)
    skipped = {reason: count for (is_damaged, reason), count in sorted(kinds.items()) if not is_damaged}
    return kinds.total() - sum(skipped.values()), skipped
