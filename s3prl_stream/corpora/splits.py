"""The root of a corpus, and which of its parts are wanted."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from s3prl_stream.errors import UsageError


def root_folder(root: str | Path, holds: str) -> Path:
    """The root as a path; `holds` says what should be in it.

    Raises:
        UsageError: no path, or no such folder.
    """
    folder = as_path(root, f"ROOT is the folder that holds {holds}")
    if not folder.is_dir():
        if folder.is_file():
            raise UsageError(f"{folder}: is a file; unpack it, or give the folder that holds {holds}.")
        raise UsageError(f"{folder}: no such folder. ROOT is the folder that holds {holds}.")
    return folder


def as_path(given: str | Path, wanted: str) -> Path:
    """What was given as a path; UsageError for what is none, with what is wanted."""
    if not isinstance(given, str | os.PathLike):
        raise UsageError(f"{given!r:.200} is no path. {wanted}.")
    return Path(given)


def chosen(
    where: str | Path,
    found: Sequence[str],
    wanted: str | Sequence[str] | None,
    what: str,
    *,
    default_all: bool = False,
    such_as: str = "",
) -> list[str]:
    """The wanted ones of what was found, in the order in which they are named.

    Args:
        where: the root, for messages.
        found: names of parts that are there.
        wanted: a name, names, or None: the only one there is, or all if `default_all`.
        what: such as "split".
        such_as: the path of one, for whoever has none.

    Raises:
        UsageError: none or one is not there, is named twice, or there are several to choose from.
    """
    if not found:
        raise UsageError(f"{where}: no {what} in here{f', such as {such_as}' if such_as else ''}.")
    if wanted is None:
        if len(found) > 1 and not default_all:
            raise UsageError(f"{where} holds several {what}s: say which with {what} (one of {', '.join(found)}).")
        return list(found)
    names = [wanted] if isinstance(wanted, str) else list(wanted)
    for name in names:
        if name not in found:
            raise UsageError(f"{where} has no {what} {name!r}. It has: {', '.join(found)}.")
    if not names or len(set(names)) != len(names):
        raise UsageError(f"{what} is {', '.join(names) or 'empty'}: name each once, of {', '.join(found)}.")
    return names
