"""WebDataset's way to name many shards: `train-{000000..000123}.tar`, `{train,dev}.tar`; and stars, and folders."""

from __future__ import annotations

import fnmatch
import glob
import itertools
import os
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

from s3prl_stream.errors import UsageError
from s3prl_stream.stores.store import is_remote, local_path, open_store, paths_in

MAX_NAMES = 1_000_000
MAX_CHARACTERS = 1 << 28
"""Of all names of one pattern."""
_RANGE = re.compile(r"(-?\d{1,1000})\.\.(-?\d{1,1000})(?:\.\.(-?\d{1,1000}))?")
_LETTERS = re.compile(r"([A-Za-z])\.\.([A-Za-z])")
_STARS = re.compile(r"[*?[]")


def expand_braces(pattern: str) -> list[str]:
    """All names that a pattern stands for, in the order in which a shell writes them.

    `{000000..000123}` counts with the zeros of its ends, `{0..10..5}` in steps, `{a..e}` through letters, `{a,b}` takes
    each; braces may stand in braces. Braces with neither a range nor a comma stand for themselves. NeMo's `_OP_` and
    `_CL_` are braces.

    Raises:
        UsageError: a brace that is not closed, more than a million names, or braces without bound.
    """
    if "_OP_" in pattern and "_CL_" in pattern:
        pattern = pattern.replace("_OP_", "{").replace("_CL_", "}")
    names: list[str] = []
    num_characters = 0
    try:
        for name in _expanded(pattern):
            names.append(name)
            num_characters += len(name)
            if len(names) > MAX_NAMES or num_characters > MAX_CHARACTERS:
                many = f"{MAX_NAMES} names" if len(names) > MAX_NAMES else f"{MAX_CHARACTERS} characters"
                raise UsageError(f"{pattern:.200}: stands for more than {many}.")
    except RecursionError:
        raise UsageError(f"{pattern:.200}: too many braces.") from None
    return names


def existing_or_expanded(name: str) -> list[str]:
    """`expand_braces`, but for a file or folder that has a brace in its name."""
    return [name] if not is_remote(name) and os.path.exists(local_path(name)) else expand_braces(name)


def find_tars(sources: str | Path | Sequence[str | Path]) -> list[str]:
    """Paths or URLs of tars, in the order in which they are named; what stars find is sorted by name.

    Args:
        sources: one or several of: a path or URL, with braces, with stars (`*`, `[...]` and, on a disk, `?`; in a store
            too, but not on a web server, which has no listing), or a folder, which stands for all its files that end
            in .tar.

    Raises:
        UsageError: nothing is found, one is named twice, `pipe:` (no command of a URL is ever run), or a URL with a
            password or a query, which often holds one.
    """
    given = paths_in(sources)
    pipe = next((text for text in map(str, given) if text.startswith("pipe:")), None)
    if pipe is not None:
        raise UsageError(f"{pipe}: commands are not run. Write `COMMAND | ...` and read it as SequentialTars('-').")
    found = [tar for source in given for name in existing_or_expanded(str(source)) for tar in _matching(name)]
    if not found:
        raise UsageError(f"no tars at {', '.join(map(str, given)) or 'all: the list is empty'}.")
    twice = next((tar for tar, count in Counter(found).items() if count > 1), None)
    if twice is not None:
        raise UsageError(f"{twice} is named twice.")
    return found


def _matching(name: str) -> Iterator[str]:
    if is_remote(name):
        yield from _remote(name)
    elif os.path.isdir(name):  # Path's own raises of a name that is too long for a file
        yield from sorted(str(path) for path in Path(name).iterdir() if path.name.endswith(".tar") and path.is_file())
    elif _STARS.search(name) and not os.path.exists(name):
        yield from sorted(path for path in glob.glob(name) if os.path.isfile(path))
    else:
        yield name


def _remote(url: str) -> Iterator[str]:
    parts = urlsplit(url)
    if parts.query or parts.username or parts.password:
        raise UsageError(
            f"{parts.scheme}://{parts.hostname}{parts.path}: has a query or a password, which lists would show. "
            "Give plain URLs, and credentials by the environment."
        )
    folder, _, name = url.rpartition("/")
    if name.endswith(".tar") and not _STARS.search(url):
        yield url
        return
    fixed = folder
    while _STARS.search(fixed):
        fixed = fixed.rpartition("/")[0]
    pattern = f"{folder[len(fixed) + 1 :]}/{name}".lstrip("/") if _STARS.search(url) else f"{name}/*.tar".lstrip("/")
    beginning = _STARS.split(pattern)[0]
    for found, _ in open_store(fixed).list(beginning):
        if found.count("/") == pattern.count("/") and fnmatch.fnmatchcase(found, pattern):
            yield f"{fixed}/{found}"


def _expanded(pattern: str) -> Iterator[str]:
    start = pattern.find("{")
    if start < 0:
        yield pattern
        return
    stop, commas = _closing(pattern, start)
    inside = pattern[start + 1 : stop]
    numbers = _counted(inside)
    if numbers is not None:
        choices: Iterator[str] = iter(numbers)
    elif commas:
        edges = [start, *commas, stop]
        choices = (word for one, two in itertools.pairwise(edges) for word in _expanded(pattern[one + 1 : two]))
    else:
        choices = (f"{{{word}}}" for word in _expanded(inside))
    for choice in choices:
        for rest in _expanded(pattern[stop + 1 :]):
            yield f"{pattern[:start]}{choice}{rest}"


def _closing(pattern: str, start: int) -> tuple[int, list[int]]:
    """Where the brace that opens at `start` closes, and the commas between that stand in no other brace."""
    depth = 0
    commas: list[int] = []
    for at in range(start, len(pattern)):
        if pattern[at] == "{":
            depth += 1
        elif pattern[at] == "}":
            depth -= 1
            if not depth:
                return at, commas
        elif pattern[at] == "," and depth == 1:
            commas.append(at)
    raise UsageError(f"{pattern:.200}: a brace is open. Write NAME-{{000000..000123}}.tar.")


def _counted(inside: str) -> Sequence[str] | Iterator[str] | None:
    if match := _RANGE.fullmatch(inside):
        first, last = int(match[1]), int(match[2])
        step = abs(int(match[3] or 1)) or 1
        padded = any(re.match(r"-?0\d", end) for end in match.group(1, 2))
        width = max(len(match[1]), len(match[2])) if padded else 0
        numbers = range(first, last + 1, step) if first <= last else range(first, last - 1, -step)
        return (f"{number:0{width}d}" for number in numbers)
    if match := _LETTERS.fullmatch(inside):
        first, last = ord(match[1]), ord(match[2])
        letters = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        return [chr(letter) for letter in letters]
    return None
