"""`left_out.jsonl`: what is not in a set, and why, one a line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from typing import NamedTuple

from s3prl_stream.errors import DamagedFile, MissingFile
from s3prl_stream.json_files import json_object
from s3prl_stream.shards.layout import LEFT_OUT
from s3prl_stream.stores.store import Store

_MOST_BYTES = 1 << 30


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


def read_left_out(store: Store) -> tuple[list[LeftOut], str | None]:
    """The lines of a set as far as they can be read, and what is wrong with the rest."""
    try:
        content = store.read_whole(LEFT_OUT, at_most=_MOST_BYTES)
    except (MissingFile, DamagedFile) as error:
        return [], str(error)
    lines, problem = [], None
    for number, text in enumerate(content.splitlines(), start=1):
        try:
            line = json_object(text)
            lines.append(LeftOut(*(str(line[field]) for field in LeftOut._fields)))
        except (ValueError, KeyError) as error:
            problem = problem or f"line {number} is damaged ({error!r})"
    return lines, problem
