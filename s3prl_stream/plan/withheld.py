"""What a run withholds when batches are delivered: ranges of batches, and single clips from some batch on.

The plan knows nothing of it: rows vanish, and every batch keeps its number. All of it is kept in the cursor, so it is
small, and it holds for any number of ranks and workers.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import key_hash

MOST_CHARACTERS = 1600
"""Of JSON in the cursor: about 140 clips, or 80 ranges of batches. Beside many sets there is room for less."""

_HASH_CHARACTERS = 11  # 64 bits in base64


class Withheld(NamedTuple):
    """Immutable: a change gives a new one."""

    skipped: tuple[tuple[int, int], ...] = ()
    """Ranges of global batches, first and last included, ascending, with gaps between them."""
    excluded: Mapping[int, int] = {}
    """Hash of (set, key) -> the first global batch that no longer has the clip."""

    def skip(self, first_batch: int, last_batch: int, room: int) -> Withheld:
        """This and the batches from `first_batch` to `last_batch`.

        Args:
            room: characters of JSON that there are for it.

        Raises:
            UsageError: it would not fit the cursor.
        """
        ranges: list[tuple[int, int]] = []
        for first, last in sorted([*self.skipped, (first_batch, last_batch)]):
            if ranges and first <= ranges[-1][1] + 1:
                ranges[-1] = (ranges[-1][0], max(ranges[-1][1], last))
            else:
                ranges.append((first, last))
        return self._replace(skipped=tuple(ranges))._checked(room)

    def exclude(self, clips: Iterable[tuple[str, str]], since: int, room: int) -> Withheld:
        """This and the clips (set, key), from batch `since` on; one that is left out already stays so.

        Args:
            room: characters of JSON that there are for it.

        Raises:
            UsageError: it would not fit the cursor.
        """
        new = {hash_of(set_name, key): since for set_name, key in clips}
        return self._replace(excluded={**new, **self.excluded})._checked(room)

    def from_the_beginning(self) -> Withheld:
        """For a stream that begins anew: what is excluded is so from the first batch on."""
        return self._replace(excluded=dict.fromkeys(self.excluded, 0))

    def first_not_skipped(self, batch: int) -> int:
        """The first batch from `batch` on that is not skipped."""
        for first, last in self.skipped:
            if first <= batch <= last:
                batch = last + 1
        return batch

    def reason(self, batch: int, set_name: str, key: str) -> str | None:
        """Why a planned clip is not delivered: "skipped", "excluded"; None: it is."""
        if self.first_not_skipped(batch) != batch:
            return "skipped"
        if self.excluded and self.excluded.get(hash_of(set_name, key), batch + 1) <= batch:
            return "excluded"
        return None

    def as_state(self) -> dict[str, Any]:
        """JSON values for the cursor."""
        by_batch: dict[int, list[bytes]] = {}
        for hashed, since in sorted(self.excluded.items()):
            by_batch.setdefault(since, []).append(hashed.to_bytes(8, "little"))
        text = {since: "".join(map(_as_text, hashes)) for since, hashes in sorted(by_batch.items())}
        return {"skipped": [list(one) for one in self.skipped], "excluded": [list(one) for one in text.items()]}

    @staticmethod
    def from_state(state: Mapping[str, Any]) -> Withheld:
        """What `as_state` gave.

        Raises:
            ValueError, TypeError, KeyError: it did not.
        """
        skipped = tuple((int(first), int(last)) for first, last in state["skipped"])
        excluded = {}
        for since, text in state["excluded"]:
            for at in range(0, len(text), _HASH_CHARACTERS):
                hashed = base64.b64decode(text[at : at + _HASH_CHARACTERS] + "=", altchars=b"-_", validate=True)
                excluded[int.from_bytes(hashed, "little")] = int(since)
        return Withheld(skipped, excluded)

    def _checked(self, room: int) -> Withheld:
        length = len(json.dumps(self.as_state()))
        if length > room:
            raise UsageError(
                f"{len(self.excluded)} excluded clips and {len(self.skipped)} skipped ranges take {length} characters "
                f"of the cursor, of at most {room}. Begin a run with where=, or pack the set without them."
            )
        return self


def hash_of(set_name: str, key: str) -> int:
    """64 bits that stand for a clip."""
    return key_hash(f"{set_name}\n{key}")


def _as_text(hashed: bytes) -> str:
    return base64.urlsafe_b64encode(hashed).decode()[:_HASH_CHARACTERS]
