"""The cursor: all there is to a checkpoint of a stream. Integers and hashes, about a kilobyte of JSON.

Below 4 kB for a mix of up to 30 sets, whatever is left out: it grows by some 100 characters a set.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from s3prl_stream.errors import StateError
from s3prl_stream.plan.mix import Change
from s3prl_stream.plan.planner import LanePosition, Position
from s3prl_stream.plan.settings import PLAN_VERSION
from s3prl_stream.plan.withheld import MOST_CHARACTERS as MOST_WITHHELD
from s3prl_stream.plan.withheld import Withheld
from s3prl_stream.receipt import Topology
from s3prl_stream.settings import differences

KIND = "s3prl_stream cursor"


MOST_CHANGES = 8
"""Changes of a mix's weights that a cursor remembers, the newest, as far as they are small: of 23 sets two."""
_MOST_CHARACTERS = 4000
"""Of the whole cursor, where it can be kept; numbers that grow later have the rest of 4 kB."""
_MOST_OF_CHANGES = 1000
_LEAST_WITHHELD = 400
"""Room for 30 clips, however many sets there are."""
_ORDER_COUNTS = " (of several sets it is known by their order, too: give them in the order that was)"
"""Though the batches of sets without weights do not depend on it: a selection is a hash of its rows, set after set."""

_ONLY_VALUES = " (whether there are weights or a temperature: once there are, they may be others, but not before)"


class Cursor(NamedTuple):
    """Where a stream stands."""

    next_batch: int
    """First global batch not yet handed to the consumer (over all ranks)."""
    anchor: Position
    """The beginning of a block at or before that batch."""
    changes: Sequence[Change] = ()
    """The weights of a mix and where it ends, oldest first."""
    withheld: Withheld = Withheld()
    """What is not delivered."""
    topology: Topology | None = None
    """Of the loader that stood there; for the receipt only."""


def make_cursor(identity: Mapping[str, Any], cursor: Cursor) -> dict[str, Any]:
    """JSON-able state.

    Args:
        identity: what determines the stream: sets, selection, settings, stages.
        cursor: where it stands.
    """
    anchor: dict[str, Any] = cursor.anchor._asdict()
    lanes = anchor.pop("lanes")
    state = {
        "kind": KIND,
        "plan_version": PLAN_VERSION,
        "next_batch": cursor.next_batch,
        "anchor": {**anchor, "lanes": [list(lane) for lane in lanes]} if lanes else anchor,
        "identity": dict(identity),
    }
    if (order := _order_that_counts(identity)) is not None:
        state["order_of_sets"] = order
    if cursor.withheld != Withheld():
        state["left_out"] = cursor.withheld.as_state()
    if cursor.topology is not None:
        state["topology"] = cursor.topology._asdict()
    if cursor.changes:
        room = min(_MOST_CHARACTERS - len(json.dumps(state)), _MOST_OF_CHANGES)
        state |= _mix_state(_to_remember(cursor, room))
    return state


def room_for_withheld(identity: Mapping[str, Any], cursor: Cursor) -> int:
    """How many characters what is left out may take, so that the cursor stays small."""
    begun = cursor._replace(withheld=Withheld(), changes=())
    rest = len(json.dumps(make_cursor(identity, begun))) + _num_characters(_to_remember(cursor, 0))
    return max(min(_MOST_CHARACTERS - rest, MOST_WITHHELD), _LEAST_WITHHELD)


def read_cursor(state: Any, identity: Mapping[str, Any]) -> Cursor:
    """Where a stream stood, from a cursor that belongs to it.

    Raises:
        StateError: not a cursor, or one of another plan version, data, selection, settings or stages; the message
            names all that differs.
    """
    if not isinstance(state, Mapping) or state.get("kind") != KIND:
        raise StateError("this is no cursor of a stream; give what Loader.state_dict() returned")
    if state.get("plan_version") != PLAN_VERSION:
        raise StateError(
            f"the cursor is of plan version {state.get('plan_version')}, this package plans by version {PLAN_VERSION}: "
            "the same settings give other batches. Finish the run with the package version that began it."
        )
    try:
        hints = {"selection": _ORDER_COUNTS, "mixed": _ONLY_VALUES} if len(identity["data"]) > 1 else {}
        other = [f"{told}{hints.get(name, '')}" for name, told in differences(state["identity"], identity)]
        if state["identity"]["data"] == identity["data"]:
            other += _other_order(state.get("order_of_sets"), identity)
        anchor = dict(state["anchor"])
        lanes = tuple(LanePosition(*map(int, lane)) for lane in anchor.pop("lanes", ()))
        position = Position(**{name: _count(value) for name, value in anchor.items()}, lanes=lanes)
        changes = _changes(state.get("mix", ()), state.get("ends", ()))
        if not other and identity["mixed"] and not changes:
            raise KeyError("mix")
        withheld = Withheld.from_state(state.get("left_out", Withheld().as_state()))
        topology = Topology(**state["topology"]) if "topology" in state else None
        cursor = Cursor(_count(state["next_batch"]), position, changes, withheld, topology)
        if cursor.anchor.batch > cursor.next_batch:  # the batches between would be passed over
            raise ValueError(f"batch {cursor.next_batch} lies before the block that it is in")
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"the cursor is damaged ({error!r}); give what Loader.state_dict() returned") from None
    if other:
        raise StateError("the cursor belongs to another stream: " + "; ".join(other))
    return cursor


def _count(value: Any) -> int:
    """A whole number from 0 on."""
    number = operator.index(value)
    if number < 0:
        raise ValueError(f"{number} is below 0")
    return number


def _mix_state(changes: Sequence[Change]) -> dict[str, Any]:
    """What `_changes` reads."""
    return {
        "mix": [[change.first_batch, list(change.weights)] for change in changes],
        "ends": [None if change.end is None else list(change.end) for change in changes],
    }


def _changes(mix: Sequence[Any], ends: Sequence[Any]) -> list[Change]:
    """Of a mix; older states have no ends."""
    found = []
    for (first, weights), end in itertools.zip_longest(mix, ends[: len(mix)]):
        if end:
            epochs, stop = end
            if stop not in ("first", "all"):
                raise ValueError(f"a mix ends with {stop!r}")
            end = (_count(epochs), stop)
        found.append(Change(_count(first), tuple(map(float, weights)), () if end == [] else end))
    return found


def _num_characters(changes: Sequence[Change]) -> int:
    return sum(map(len, map(json.dumps, _mix_state(changes).values())))


def fingerprint(identity: Mapping[str, Any]) -> str:
    """16 hexadecimal digits that change when the batches do."""
    return hashlib.blake2b(json.dumps(identity, sort_keys=True).encode(), digest_size=8).hexdigest()


def _to_remember(cursor: Cursor, room: int) -> Sequence[Change]:
    """The changes from the anchor on by which blocks may have been planned, and as many older ones as have room.

    What holds only for later blocks is given anew by whoever goes on.
    """
    known = [change for change in cursor.changes if change.first_batch <= cursor.next_batch]
    first = max((place for place, one in enumerate(known) if one.first_batch <= cursor.anchor.batch), default=0)
    while first and len(known) - first < MOST_CHANGES and _num_characters(known[first - 1 :]) < room:
        first -= 1
    return known[first:]


def _order_that_counts(identity: Mapping[str, Any]) -> list[int] | None:
    """The sets by their places in the order of their names; None: one set, or the batches do not depend on it.

    The shards of sets without weights are shuffled together. A mix has a lane for each set, in their order.
    """
    names = list(identity["data"])
    if len(names) < 2 or (identity["settings"]["shuffle"] and not identity["mixed"]):
        return None
    by_name = sorted(names)
    return [by_name.index(name) for name in names]


def _other_order(found: Sequence[int] | None, identity: Mapping[str, Any]) -> list[str]:
    """What differs in the order of the sets, if that counts; older states do not say."""
    order = _order_that_counts(identity)
    if found is None or order is None or list(found) == order:
        return []
    by_name = sorted(identity["data"])
    was = ", ".join(by_name[place] for place in found)
    return [f"the order of the sets was {was}, is {', '.join(identity['data'])}: give them in the order that was"]
