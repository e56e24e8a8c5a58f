"""Settings by name, from a TOML file and from the command line, checked against the dataclasses that hold them.

[model]                        --set model.num_layers=12
num_layers = 12                --set num_layers=12          # the section may be left out where one alone has it
"""

from __future__ import annotations

import ast
import dataclasses
import difflib
import inspect
import numbers
import sys
import types
import typing
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from s3prl_stream.errors import UsageError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_NOTHING = ("none", "null")


Part = typing.TypeVar("Part")


class Text(str):
    """A value from the command line: what it is depends on the setting."""


def read_settings_file(path: str | Path) -> dict[str, Any]:
    """Dotted name -> value of a TOML file; UsageError if it cannot be read."""
    try:
        sections = tomllib.loads(Path(path).read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:  # ValueError: not UTF-8, not TOML, or a number without end
        raise UsageError(f"--config {path}: cannot be read ({error})") from None
    given: dict[str, Any] = {}
    for name, value in sections.items():
        given.update(
            {f"{name}.{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {name: value}
        )
    return given


def read_assignments(texts: Iterable[str], example: str) -> dict[str, Text]:
    """Name -> value of "name=value"; UsageError for what is none, with an example of what is."""
    given: dict[str, Text] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals or not name.strip():
            raise UsageError(f"--set {text}: give NAME=VALUE, as in {example}")
        given[name.strip()] = Text(value.strip())
    return given


def resolve(given: Mapping[str, Any], sections: Mapping[str, Any]) -> dict[str, Any]:
    """Settings given by name, under their full names and as values of their types.

    Args:
        given: "section.name" or "name" -> value.
        sections: section -> a dataclass instance that has the settings.

    Raises:
        UsageError: an unknown name, with the nearest; a name in several sections; a value of another type.
    """
    fields = {name: [one.name for one in dataclasses.fields(part)] for name, part in sections.items()}
    resolved: dict[str, Any] = {}
    for name, value in given.items():
        section, field = _find(name, fields)
        wanted = typing.get_type_hints(type(sections[section]))[field]
        resolved[f"{section}.{field}"] = fitted(f"setting {section}.{field}", value, wanted)
    return resolved


def meant(given: Iterable[str], known: Sequence[str]) -> str:
    """What an error says of names that are not known."""
    close = [match for name in given for match in difflib.get_close_matches(name, known, n=1)]
    return f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(known)}"


def differences(before: Mapping[str, Any], now: Mapping[str, Any], within: str = "") -> Iterator[tuple[str, str]]:
    """(full name, "NAME was X, is Y") of all that differs; what is inside of something has its name behind a dot."""
    for name in sorted(before.keys() | now.keys()):
        one, other = before.get(name), now.get(name)
        if isinstance(one, Mapping) and isinstance(other, Mapping):
            yield from differences(one, other, f"{within}{name}.")
        elif one != other:
            yield f"{within}{name}", f"{within}{name} was {one!r}, is {other!r}"


def describe(sections: Mapping[str, Any]) -> list[str]:
    """A line for each setting: its full name and its value."""
    return lines_of(
        {
            f"{section}.{one.name}": getattr(part, one.name)
            for section, part in sections.items()
            for one in dataclasses.fields(part)
        }
    )


def lines_of(values: Mapping[str, Any]) -> list[str]:
    """A line for each setting, by its name."""
    width = max(map(len, values))
    return [f"{name:{width}} = {'none' if value is None else value}" for name, value in values.items()]


def keyword_defaults(function: Callable[..., Any]) -> dict[str, Any]:
    """Name -> default of the arguments that have one and are given by name alone."""
    parameters = inspect.signature(function).parameters.values()
    return {
        one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY and one.default is not one.empty
    }


def _find(name: str, fields: Mapping[str, list[str]]) -> tuple[str, str]:
    """(section, field) of a name, whose section may be left out where only one has the field."""
    section, dot, field = name.rpartition(".")
    if dot and field in fields.get(section, ()):
        return section, field
    having = [one for one, names in fields.items() if not dot and field in names]
    if len(having) == 1:
        return having[0], field
    if having:
        raise UsageError(f"setting {name!r} is in several sections: {', '.join(f'{one}.{name}' for one in having)}")
    there = {one: names for one, names in fields.items() if one == section} or fields
    known = [(one, inner) for one, names in there.items() for inner in names]
    nearest = difflib.get_close_matches(field, [inner for _, inner in known], n=1)
    if nearest:
        meant = [f"{one}.{inner}" for one, inner in known if inner == nearest[0]]
        raise UsageError(f"no setting {name!r}; did you mean {' or '.join(meant)}?")
    raise UsageError(f"no setting {name!r}; there are {', '.join(f'{one}.{inner}' for one, inner in known)}")


def fitted(name: str, value: Any, wanted: Any) -> Any:
    """The value as the type that a setting has; a UsageError, which begins with `name`, if it does not fit."""
    options = typing.get_args(wanted) if typing.get_origin(wanted) in (typing.Union, types.UnionType) else (wanted,)
    may_be_nothing = type(None) in options or wanted is Any
    if may_be_nothing and isinstance(value, str) and value.lower() in _NOTHING:  # TOML has no word for it
        return None
    if isinstance(value, Text) and not any(one is str or typing.get_origin(one) is typing.Literal for one in options):
        value = _parsed(value)
    for option in options:
        fits, fitted = _fit(value, option)
        if fits:
            return fitted
    kinds = " or ".join(_described(option) for option in options)
    raise UsageError(f"{name}: {value!r} is not {kinds}")


def fit_fields(of: str, settings: Any) -> None:
    """Give each field of a new dataclass its value as its type; a UsageError, which begins with `of`, if one is not."""
    wanted = typing.get_type_hints(type(settings))
    for one in dataclasses.fields(settings):
        value = fitted(f"{of}: {one.name}", getattr(settings, one.name), wanted[one.name])
        object.__setattr__(settings, one.name, value)


def fit_keywords(of: str, function: Callable[..., Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, each fitted to the type that a function or a class has for it; others stay as they are.

    Raises:
        UsageError: one does not fit; it begins with `of`.
    """
    known = inspect.signature(function, eval_str=True).parameters
    return {
        name: fitted(f"{of}: {name}", value, known[name].annotation) if name in known else value
        for name, value in given.items()
    }


def with_fields(of: str, part: Part, given: Mapping[str, Any]) -> Part:
    """A dataclass instance with other values, each fitted to its type.

    Raises:
        UsageError: one does not fit, or there is none of that name; it begins with `of`.
    """
    wanted = typing.get_type_hints(type(part))
    unknown = [name for name in given if name not in wanted]
    if unknown:
        raise UsageError(f"{of}: no setting {', '.join(map(repr, unknown))}; {meant(unknown, list(wanted))}")
    fields = {name: fitted(f"{of}: {name}", value, wanted[name]) for name, value in given.items()}
    return typing.cast(Part, dataclasses.replace(typing.cast(Any, part), **fields))


def _fit(value: Any, wanted: Any) -> tuple[bool, Any]:
    origin = typing.get_origin(wanted)
    if origin is typing.Literal:
        return value in typing.get_args(wanted), str(value) if isinstance(value, Text) else value
    if origin in (tuple, Sequence):
        inner = [one for one in typing.get_args(wanted) if one is not Ellipsis]
        of_any_length = origin is Sequence or Ellipsis in typing.get_args(wanted)
        if not isinstance(value, list | tuple) or (not of_any_length and len(value) != len(inner)):
            return False, None
        wanted_each = inner * len(value) if len(inner) == 1 else inner
        pairs = [_fit(one, each) for one, each in zip(value, wanted_each, strict=True)]
        return all(fits for fits, _ in pairs), tuple(one for _, one in pairs)
    if origin is Mapping:
        return isinstance(value, Mapping), value
    if wanted in (float, int):
        kind = numbers.Real if wanted is float else numbers.Integral
        value = value.item() if isinstance(value, np.generic) else value
        return isinstance(value, kind) and not isinstance(value, bool), value
    if wanted is str:
        return isinstance(value, str | Path), str(value)
    if wanted in (bool, type(None), Path):
        return isinstance(value, wanted), value
    return True, value


def _parsed(text: Text) -> Any:
    """A value as TOML spells it, or as Python does (False, .5, (1, 2)); anything else is text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return str(text)


def _described(wanted: Any) -> str:
    if typing.get_origin(wanted) is typing.Literal:
        return f"one of {', '.join(map(repr, typing.get_args(wanted)))}"
    if typing.get_origin(wanted) is tuple:
        return f"[{', '.join('...' if one is Ellipsis else _described(one) for one in typing.get_args(wanted))}]"
    if typing.get_origin(wanted) is Sequence:
        return f"[{_described(*typing.get_args(wanted))}, ...]"
    if typing.get_origin(wanted) is Mapping:
        return "a dict"
    names = {float: "a number", int: "a whole number", bool: "true or false", str: "text"}
    names |= {type(None): "none", Path: "a path"}
    return names.get(wanted, str(wanted))
