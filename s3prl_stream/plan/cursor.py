"""The cursor: all there is to a checkpoint of a stream. Integers and hashes, a few hundred bytes of JSON."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from s3prl_stream.errors import StateError
from s3prl_stream.plan.planner import Position
from s3prl_stream.plan.settings import PLAN_VERSION

KIND = "s3prl_stream cursor"


def make_cursor(identity: Mapping[str, Any], next_batch: int, anchor: Position) -> dict[str, Any]:
    """JSON-able state.

    Args:
        identity: what determines the stream: sets, selection, settings, stages.
        next_batch: first global batch not yet handed to the consumer (over all ranks).
        anchor: the beginning of a block at or before that batch.
    """
    return {
        "kind": KIND,
        "plan_version": PLAN_VERSION,
        "next_batch": next_batch,
        "anchor": anchor._asdict(),
        "identity": dict(identity),
    }


def read_cursor(state: Any, identity: Mapping[str, Any]) -> tuple[int, Position]:
    """(next batch, anchor) of a cursor that belongs to this stream.

    Raises:
        StateError: not a cursor, or one of another plan version, data, selection, settings or stages; the message
            names the first difference of each kind.
    """
    if not isinstance(state, Mapping) or state.get("kind") != KIND:
        raise StateError("this is no cursor of a stream; give what Loader.state_dict() returned")
    if state.get("plan_version") != PLAN_VERSION:
        raise StateError(
            f"the cursor is of plan version {state.get('plan_version')}, this package plans by version {PLAN_VERSION}: "
            "the same settings give other batches. Finish the run with the package version that began it."
        )
    try:
        differences = list(_differences(state["identity"], identity))
        next_batch, anchor = int(state["next_batch"]), Position(**state["anchor"])
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StateError(f"the cursor is damaged ({error!r}); give what Loader.state_dict() returned") from None
    if differences:
        raise StateError("the cursor belongs to another stream: " + "; ".join(differences))
    return next_batch, anchor


def _differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    lines = []
    for name in expected.keys() | found.keys():
        old, new = found.get(name), expected.get(name)
        if old == new:
            continue
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            parts = [
                f"{key} was {old.get(key)!r}, is {new.get(key)!r}"
                for key in sorted(old.keys() | new.keys())
                if old.get(key) != new.get(key)
            ]
            lines.append(f"{name}: {', '.join(parts)}")
        else:
            lines.append(f"{name} was {old!r}, is {new!r}")
    return sorted(lines)
