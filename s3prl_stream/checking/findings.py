"""What is wrong with a set, in words that a person and a script can act on."""

from __future__ import annotations

from typing import NamedTuple

ADVICE = {
    "left out by repair": "restore the file from a copy, or run `s3prl-stream repair`, which leaves this sample out",
    "file left out": "restore the file from a copy, or run `s3prl-stream repair`, which leaves it out",
    "shard left out": "restore the shard from a copy, or run `s3prl-stream repair`, which leaves its samples out",
    "rebuilt by repair": "no audio is lost: run `s3prl-stream repair`, which rebuilds it",
    "index again": "restore the tar or the index from a copy, or run `s3prl-stream index` on the tars again; until "
    "then a stream leaves damaged samples out and lists them",
    "look closer": "`s3prl-stream verify --full` lists the damaged samples, `s3prl-stream repair` leaves them out",
}
"""What to do, by what repair would do."""


class Finding(NamedTuple):
    """One thing that is wrong."""

    file: str
    """Relative to the set."""
    key: str | None
    """Of the sample; None: not the matter of one sample."""
    offset: int | None
    """First byte in the file; None: the file as a whole."""
    size: int | None
    """Bytes from there."""
    reason: str
    """Machine-readable; shards/README.md has the list."""
    message: str
    """What was found and what was expected."""
    advice: str
    """What to do next."""

    def __str__(self) -> str:
        sample = "" if self.key is None else f": {self.key}"
        place = "" if self.offset is None else f" at byte {self.offset} ({self.size} bytes)"
        return f"{self.file}{sample}{place}: {self.message} ({self.reason})"


def of_file(file: str, reason: str, message: str, advice: str) -> Finding:
    """A finding on a file as a whole; `advice` is a key of `ADVICE`."""
    return Finding(file, None, None, None, reason, message, ADVICE[advice])


def of_sample(file: str, key: str, offset: int, size: int, reason: str, message: str) -> Finding:
    """A finding on one sample, which repair leaves out."""
    return Finding(file, key, offset, size, reason, message, ADVICE["left out by repair"])
