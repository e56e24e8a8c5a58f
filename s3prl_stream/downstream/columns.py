"""What an index says about the labels of a task: rows to use, and the values a column has."""

from __future__ import annotations

import functools
import operator
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from s3prl_stream.errors import UsageError
from s3prl_stream.shards.layout import INDEX_COLUMNS, QUALITY_COLUMNS
from s3prl_stream.shards.member import SetMember
from s3prl_stream.shards.memory import MemoryShards
from s3prl_stream.shards.selection import compile_selection, explaining, longest_seconds, selected_hours
from s3prl_stream.shards.shardset import ShardSet
from s3prl_stream.shards.where import Condition, compile_where
from s3prl_stream.stream import ShardStream
from s3prl_stream.tasks import Task, UtteranceClassification
from s3prl_stream.tasks.task import text_of

SEGMENTS = "segments"
"""A list, and so no column of an index."""


def rows_with(shards: ShardSet, where: Any, columns: Sequence[str], *, min_seconds: float = 0.0) -> Any:
    """`where` for a stream of the rows in which these columns say something, as text if it was; None: all rows.

    Raises:
        UsageError: a malformed expression.
    """
    known = shards.columns()
    parts = [] if where is None else [where]
    parts += [f"{name} is not None" for name in columns if name in known]
    parts += [f"seconds > {min_seconds}"] if min_seconds > 0 else []
    expressions = [compile_where(part, known) for part in parts]
    words = " and ".join(f"({part})" for part in parts)
    if where is None or isinstance(where, str):
        return words or None
    return Condition(functools.reduce(operator.and_, expressions), words)


def rows_called(shards: ShardSet, where: Any, keys: Collection[str], whose: str) -> Condition:
    """`where` for the rows with one of these keys; in messages they are those of `whose`. Errors of `rows_with`."""
    import pyarrow.compute

    called = pyarrow.compute.field("key").isin(list(keys))
    if where is None:
        return Condition(called, f"key in {whose}")
    return Condition(called & compile_where(where, shards.columns()), f"({where}) and key in {whose}")


def counts_without(shards: ShardSet, where: Any, columns: Sequence[str], *, min_seconds: float = 0.0) -> dict[str, int]:
    """Why rows that `where` selects are not those of `rows_with` -> how many; a row counts once.

    Raises:
        UsageError: a malformed expression, or nothing is left.
    """
    parts = (where, rows_with(shards, where, columns), rows_with(shards, where, columns, min_seconds=min_seconds))
    selected, labelled, used = (len(compile_selection(shards, where=part)) for part in parts)
    found = {f"without {' and '.join(columns)}": selected - labelled, f"not above {min_seconds:g} s": labelled - used}
    return {why: count for why, count in found.items() if count}


def values_of(shards: ShardSet, column: str, where: Any = None) -> Iterator[str]:
    """The values of a column in the order of the index, as text; missing ones are left out.

    Raises:
        UsageError: no such column of clips, or a malformed expression.
    """
    need_columns(shards, [column], "label= (--label)")
    known = shards.columns()
    expression = None if where is None else compile_where(where, known)
    with explaining(where):
        for member in shards.members:
            for batch in member.batches([column], expression):
                keep = batch.column("keep").to_pylist() if expression is not None else [True] * len(batch)
                values = batch.column(column).to_pylist()
                yield from (
                    text_of(value)
                    for value, on in zip(values, keep, strict=True)
                    if on and value is not None and value == value
                )


def contents_of(member: SetMember) -> str:
    """What stands for all that a set holds; the fingerprint of samples in memory is of their keys and lengths alone."""
    return f"{member.fingerprint} {member.contents()}" if isinstance(member, MemoryShards) else member.fingerprint


def need_columns(shards: ShardSet, names: Sequence[str], what: str) -> None:
    """A UsageError, which begins with `what`, if the clips of a set do not come with one of these columns."""
    known = shards.columns()
    # samples in memory have some of these names for columns of their own
    of_index = {name for some in (INDEX_COLUMNS, QUALITY_COLUMNS) if some.keys() <= known.keys() for name in some}
    for name in names:
        if name not in known and name != SEGMENTS:
            raise UsageError(f"{what}: {shards.name} has no column {name!r}; {shards.known_columns(name)}")
        if name in of_index:
            raise UsageError(
                f"{what}: {shards.name} has {name!r} in its index alone, not with its clips; these have "
                f"{', '.join(name for name in known if name not in of_index) or 'no columns'}"
            )


def need_classes(shards: ShardSet, where: Any, task: Task, what: str) -> None:
    """A UsageError, which begins with `what`, if no answer can be right: no clip is of a class that the task knows.

    Of tasks with one class for each clip; of others nothing is said.
    """
    if not isinstance(task, UtteranceClassification):
        return
    known, found = task.categories.names, set(values_of(shards, task.label, where))
    if found and found.isdisjoint(known):
        there, trained = (", ".join(map(repr, sorted(names)[:5])) for names in (found, known))
        raise UsageError(
            f"{what}: {task.label!r} of {shards.name} is {there} ..., none of the {len(known)} classes that are "
            f"trained on ({trained} ...)"
        )


def shared_hours(one: ShardSet, one_where: Any, other: ShardSet, other_where: Any) -> float:
    """Hours of the clips that are in both of two parts; sets are told apart by what they hold.

    Raises:
        UsageError: a malformed expression.
    """
    there = {contents_of(member) for member in one.members}
    both = [member for member in other.members if contents_of(member) in there]
    if not both:
        return 0.0
    shards = ShardSet(both)
    parts = [compile_where(part, shards.columns()) for part in (one_where, other_where) if part is not None]
    return selected_hours(shards, where=functools.reduce(operator.and_, parts) if parts else None)


def segment_labels(shards: ShardSet, where: Any = None) -> list[str]:
    """Labels of all segments, sorted; they are no column, so this reads every clip's bytes once."""
    return sorted({str(one["label"]) for sample in _unshuffled(shards, where) for one in sample.get(SEGMENTS) or ()})


def need_segments(shards: ShardSet, where: Any, what: str) -> None:
    """A UsageError, which begins with `what`, if the first of these clips comes without `segments`; its bytes are read.

    An empty list is one, too: nobody speaks.
    """
    first = next(iter(_unshuffled(shards, where, max_batch_size=1)), None)
    if first is not None and first.get(SEGMENTS) is None:  # where none can be read, training tells why
        raise UsageError(
            f"{what}: {first['key']} of {shards.name} has no segments (who or what from when to when). Pack the set "
            "with them, or leave clips without them out by where= (--where)"
        )


def _unshuffled(shards: ShardSet, where: Any, **settings: Any) -> ShardStream:
    """Clips in the order of the set, each whole."""
    longest = longest_seconds(shards) + 1.0
    return ShardStream(
        shards, epochs=1, shuffle=False, where=where, too_long="crop", max_batch_seconds=longest, **settings
    )
