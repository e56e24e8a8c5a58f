"""Every error the library raises on purpose.

One root, and one subclass per person who can act: the one who called (`UsageError`), the one who owns the
data (`ShardError`, `SampleError`), the one who resumes a run (`StateError`). The message is one plain string
in `args[0]` (torch edits exceptions in flight and only leaves strings alone); facts are attributes.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator


class StreamError(Exception):
    """Root of all errors of this package."""


class UsageError(StreamError, ValueError):
    """A wrong argument, path, option or expression: the caller can mend it. The command line exits 2."""


class ChainError(UsageError):
    """A stage does not fit the stages before it, or is bound to something that is no source."""


class StateError(UsageError):
    """A cursor or checkpoint that does not belong to this stream: other data, settings, stages or version."""


class ShardError(StreamError):
    """A shard or an index that cannot be used as a whole (missing, replaced, of an unknown format version)."""


class MissingFile(ShardError):
    """A file of a set that is not where it should be."""


class DamagedFile(ShardError):
    """A file of which some bytes cannot be had though its store works: a bad disk sector, or it cannot be genuine.

    What does not answer at all (a store that is away, a file we may not read) is another `ShardError`, because it says
    nothing about the data.
    """


class SampleError(StreamError):
    """One damaged sample. It costs itself: the stream lists it and goes on.

    Args:
        message: where, what was found, what was expected.
        reason: a short machine-readable reason such as "crc" or "decode".
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[object, ...]:  # keyword arguments do not survive pickling by themselves
        return functools.partial(SampleError, reason=self.reason), (self.args[0],)


class TooManyFailures(StreamError):
    """More samples in a row failed than `max_consecutive_failures` allows."""


class StuckLoader(StreamError):
    """No batch came for longer than a loader may wait; the stacks of its threads and processes are on stderr."""


@contextlib.contextmanager
def told_of(what: str) -> Iterator[None]:
    """A UsageError from inside begins with what it is about, such as which of two parts of the data."""
    try:
        yield
    except UsageError as error:
        raise type(error)(f"{what}: {error}") from error
