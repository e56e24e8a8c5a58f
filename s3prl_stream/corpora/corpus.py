"""What a corpus is to the rest of the package: a function that lists utterances, and the options of its command."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple, ParamSpec, TypeVar

from s3prl_stream.sample import Utterance
from s3prl_stream.settings import fit_keywords

Given = ParamSpec("Given")
Found = TypeVar("Found")


class Option(NamedTuple):
    """A keyword argument of a corpus, as the command line offers it (`label_from` as --label-from)."""

    name: str
    help: str
    kind: Literal["text", "names", "number", "flag"] = "text"
    """"names": a list, given by commas or by repeating the option; "number": an integer."""
    choices: tuple[str, ...] | None = None
    metavar: str | None = None


class Corpus(NamedTuple):
    """A corpus of the command line."""

    utterances: Callable[..., Iterator[Utterance]]
    """Its first argument is ROOT, the others are keywords that the options name."""
    summary: str
    root_help: str
    options: tuple[Option, ...] = ()
    root: str = "ROOT"

    @property
    def name(self) -> str:
        """On the command line as in Python."""
        return self.utterances.__name__

    @property
    def about(self) -> str:
        """What the corpus is, how it is laid out and what is known of each utterance: the docstrings of its module."""
        module = inspect.getdoc(sys.modules[self.utterances.__module__]) or ""
        function = inspect.getdoc(self.utterances) or ""
        return f"{module.strip()}\n\n{function.partition(_ARGUMENTS)[0].strip()}"


def options_checked(function: Callable[Given, Found]) -> Callable[Given, Found]:
    """The same corpus; an option (not its first argument) of another type than it says is a UsageError."""

    @functools.wraps(function)
    def checked(*args: Given.args, **options: Given.kwargs) -> Found:
        (_, root), *given = inspect.signature(function).bind(*args, **options).arguments.items()
        return called(root, **fit_keywords(function.__name__, function, dict(given)))

    called: Callable[..., Found] = function
    return checked


_ARGUMENTS = "\n\nArgs:"

SPLIT = Option("split", "repeat it, or divide names by commas", "names", metavar="NAME")
LANGUAGE = Option("language", "codes such as en,de (default: all there are)", "names", metavar="CODE")


class WithFiles(Iterator[Utterance]):
    """Utterances, and small files that belong to the set: trial lists, query lists, references for scoring.

    Args:
        utterances: the corpus.
        files: name -> content. `pack` writes them into the folder `files` of the set.
    """

    def __init__(self, utterances: Iterator[Utterance], files: Mapping[str, bytes]) -> None:
        self._utterances = utterances
        self.files = dict(files)

    def __next__(self) -> Utterance:
        return next(self._utterances)
