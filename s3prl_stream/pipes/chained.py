"""`@chained`: a stage as a method of every source, and the names that its parameters have in S3PRL."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Hashable, Mapping
from typing import Any, TypeAlias, TypeVar

from s3prl_stream.errors import ChainError, UsageError
from s3prl_stream.pipes.s3prl_arguments import Translate
from s3prl_stream.pipes.stage import Source, Stage

StageType = TypeVar("StageType", bound=type[Stage])

Alias: TypeAlias = str | tuple[str, Mapping[Any, Any]]
"""Our name of a parameter, or our name and {its value in S3PRL: ours}."""


def chained(
    name: str,
    *,
    aliases: Mapping[str, Alias] | None = None,
    key_names: Mapping[str, str] | None = None,
    refused: Mapping[str, str] | None = None,
    translate: Translate = dict,
) -> Callable[[StageType], StageType]:
    """Class decorator: makes the stage available as `source.name(**config)`.

    Args:
        name: the functional name.
        aliases: S3PRL's name of a parameter -> ours. Both are accepted by the constructor and by the chained call.
        key_names: a parameter, such as "wav_name", -> the key of this stage that it gives another name to ("wav"), so
            that the stage works on keys of another name.
        refused: S3PRL's name of a parameter that has no meaning here -> what to do instead.
        translate: of arguments that are more than other names; before all the others.
    """

    def register(cls: StageType) -> StageType:
        cls.name_parameters = dict(key_names or {})
        cls.__init__ = _accepting(  # type: ignore[method-assign]
            cls.__init__, aliases or {}, cls.name_parameters, refused or {}, translate
        )
        if Source.functions.get(name, cls).__module__ != cls.__module__:
            raise ChainError(f"the functional name {name!r} is already taken in torch's table of pipes")
        if hasattr(Stage, name):
            raise ChainError(
                f"the functional name {name!r} is already taken: every stage has an attribute of that name"
            )
        cls.functional_name = name

        def bind(source: Source, *arguments: Any, **config: Any) -> Stage:
            if len(arguments) > (cls.positional is not None):
                raise UsageError(f".{name}(): settings are given by name, as in .{name}({next(iter(config), 'x')}=...)")
            if arguments and cls.positional is not None:
                if cls.positional in config:
                    raise UsageError(f".{name}(): {cls.positional} is given twice, by its place and by its name")
                config = {cls.positional: arguments[0], **config}
            return cls(**config)(source)

        bind.__module__, bind.__doc__ = cls.__module__, cls.__doc__
        Source.register_function(name, bind)
        return cls

    return register


def _accepting(
    init: Callable[..., None],
    aliases: Mapping[str, Alias],
    key_names: Mapping[str, str],
    refused: Mapping[str, str],
    translate: Translate,
) -> Callable[..., None]:
    """The constructor `init` with more names for its parameters; its signature stays as it is written."""
    parameters = inspect.signature(init).parameters

    @functools.wraps(init)
    def init_with_more_names(self: Stage, *arguments: Any, **config: Any) -> None:
        stage = type(self).__name__
        settings: dict[str, Any] = {}
        config = translate(config)
        for given, value in config.items():
            if given in refused:
                raise UsageError(f"{stage}: {given} of S3PRL has no meaning here: {refused[given]}.")
            alias = aliases.get(given, given)
            name, values = (alias, None) if isinstance(alias, str) else alias
            if name in settings or (name != given and name in config):
                raise UsageError(f"{stage}: {given} is another name of {name}; give one of them")
            if values is not None and not (isinstance(value, Hashable) and value in values):
                raise UsageError(f"{stage}: {given}={value!r} has no meaning here; say it by {name}")
            if name not in key_names and name not in parameters:
                near = difflib.get_close_matches(name, [*parameters, *aliases, *key_names], 1)
                hint = f"; did you mean {near[0]!r}?" if near else "."
                known = ", ".join(p for p in parameters if p not in ("self", "source"))
                raise UsageError(f"{stage} has no parameter {given!r}{hint} It has: {known or 'none'}.")
            settings[name] = value if values is None else values[value]
        names = {key_names[name]: settings.pop(name) for name in list(settings) if name in key_names}
        wrong = next((name for name in names.values() if not isinstance(name, str)), None)
        if wrong is not None:
            raise UsageError(f"{stage}: {wrong!r} is no name of a key")
        # those of a subclass that calls this constructor of its parent are there already
        self.names = {**self.names, **{key: name for key, name in names.items() if key != name}}
        try:
            init(self, *arguments, **settings)
        except TypeError as error:  # a setting that is missing, or of a type that cannot be compared
            raise UsageError(f"{stage}: {str(error).replace(f'{stage}.__init__() ', '')}") from error

    return init_with_more_names
