"""Text files with one entry a line and spaces between its fields: scp files, trial lists, RTTM, annotations."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple, TypeVar

from s3prl_stream.errors import UsageError
from s3prl_stream.text_lines import text_lines

Value = TypeVar("Value")


class Line(NamedTuple):
    """One line."""

    where: str
    """File and line, for messages."""
    fields: list[str]


def read_lines(path: Path, at_least: int, *, expected: str, at_most: int | None = None) -> Iterator[Line]:
    """Lines of a text file with their fields; empty lines are left out.

    Args:
        path: the file, UTF-8.
        at_least: fewest fields of a line.
        expected: what a line looks like, for messages.
        at_most: into how many fields a line is split; the last one keeps its spaces. None: at every space.

    Raises:
        UsageError: no such file, not UTF-8, or a line with fewer fields, named by its number.
    """
    if not path.is_file():
        raise UsageError(f"{path}: no such file. Its lines would be: {expected}.")
    for where, text in text_lines(path):
        fields = text.strip().split(maxsplit=-1 if at_most is None else at_most - 1)
        if fields and len(fields) < at_least:
            raise UsageError(f"{where}: {text.strip()[:80]!r} is not {expected}.")
        if fields:
            yield Line(where, fields)


def by_name(entries: Iterable[tuple[str, str, Value]]) -> dict[str, Value]:
    """Name -> value, of (where, name, value); the same may be said twice.

    Raises:
        UsageError: a name comes with two values, of which one would be lost.
    """
    found: dict[str, Value] = {}
    for where, name, value in entries:
        if found.setdefault(name, value) != value:
            raise said_twice(name, where)
    return found


def said_twice(name: str, where: str) -> UsageError:
    """The error for a name that comes with two values, the second one at `where`."""
    return UsageError(f"{where}: {name!r} stands here for the second time, with another value. Keep the right one.")


def texts_by_name(path: Path, expected: str) -> dict[str, str] | None:
    """Of lines "NAME WORDS ...", some perhaps without words; None: no such file. Raises as the two above."""
    if not path.exists():
        return None
    lines = read_lines(path, 1, expected=expected, at_most=2)
    return by_name((where, name, rest[0] if rest else "") for where, (name, *rest) in lines)
