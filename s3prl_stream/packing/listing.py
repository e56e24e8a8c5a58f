"""What a corpus lists, checked and written down: names, keys, stretches, metadata. No audio is opened.

A list is a file, so it may be longer than memory; 8 bytes an utterance are held, to find a key that comes twice.
"""

from __future__ import annotations

import hashlib
import itertools
import math
import os
from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from s3prl_stream.errors import UsageError
from s3prl_stream.hashing import U64, key_hash, repeated
from s3prl_stream.packing.arrow_file import ArrowFile, arrow_batches
from s3prl_stream.sample import RESERVED_KEYS, Utterance
from s3prl_stream.shards.bytes import metadata_json
from s3prl_stream.shards.keys import escape_key
from s3prl_stream.shards.layout import QUALITY_COLUMNS
from s3prl_stream.shards.rows import metadata_kinds

ROWS_PER_BATCH = 1 << 15

Kinds = dict[str, set[str]]

_TAKEN = frozenset(RESERVED_KEYS.union(QUALITY_COLUMNS))

_LISTED = {
    "key": "string", "unsafe": "bool", "audio": "binary", "start": "double", "end": "double", "metadata": "binary",
    "where": "binary",
}  # fmt: skip


class Listed(NamedTuple):
    """One utterance, checked."""

    key: str
    unsafe: bool
    """The corpus called it something that no shard can hold."""
    audio: bytes
    """Path, as the system encodes it."""
    start: float | None
    end: float | None
    metadata: bytes
    """JSON."""
    where: bytes
    """`Utterance.where`, as the system encodes it."""


class Listing(NamedTuple):
    """A list of utterances in a file."""

    path: Path
    num_utterances: int
    digest: str
    """Of everything in it, in its order."""
    kinds: list[Kinds]
    """`metadata_kinds` of each batch."""

    def batches(self) -> Iterator[list[Listed]]:
        """The utterances in the order of the corpus."""
        for batch in arrow_batches(self.path):
            yield [Listed(*row) for row in zip(*(column.to_pylist() for column in batch.columns), strict=True)]


def list_utterances(corpus: Iterable[Utterance], path: Path, progress: Callable[[int], None]) -> Listing:
    """Write down a corpus, with escaped keys.

    Raises:
        UsageError: no utterance at all, two of one key, something that is no utterance, no path or no time, reserved
            names or values that JSON cannot hold in metadata.
    """
    if isinstance(corpus, str | Path):
        raise UsageError(f"{str(corpus)!r} is no corpus: give its utterances, such as corpora.folder({str(corpus)!r}).")
    if not isinstance(corpus, Iterable):
        hint = " Call it." if callable(corpus) else ""
        raise UsageError(f"{corpus!r:.200} is no corpus: give an iterable of Utterance.{hint}")
    hashes, digest, kinds = array("Q"), hashlib.blake2b(digest_size=16), list[Kinds]()
    rest = iter(corpus)
    with ArrowFile(path, _LISTED) as file:
        while utterances := list(itertools.islice(rest, ROWS_PER_BATCH)):
            rows = [_listed(utterance) for utterance in utterances]
            kinds.append(metadata_kinds(utterance.metadata for utterance in utterances))
            hashes.extend(key_hash(row.key) for row in rows)
            for row in rows:
                digest.update(b"%b\0%b\0%r %r\0%b\n" % (row.key.encode(), row.audio, row.start, row.end, row.metadata))
            file.write(rows)
            progress(len(hashes))
    if not hashes:
        raise UsageError("the corpus lists no utterances: there is nothing to pack.")
    listing = Listing(path, len(hashes), digest.hexdigest(), kinds)
    refuse_equal_keys(np.frombuffer(hashes, dtype=np.uint64), lambda: _names(listing), _two_of_one_key)
    return listing


def refuse_equal_keys(
    hashes: U64, named: Callable[[], Iterable[tuple[str, str]]], complaint: Callable[[str, str, str], str]
) -> None:
    """Raises UsageError if two of N keys are equal.

    Args:
        hashes: [N] of the keys.
        named: all N (key, audio), asked only if two hashes are equal.
        complaint: (key, audio of the first, audio of the second) -> message.
    """
    suspects = set(repeated(hashes).tolist())
    if not suspects:
        return
    audio_of: dict[str, str] = {}
    for key, audio in named():
        if key_hash(key) in suspects:
            if key in audio_of:
                raise UsageError(complaint(key, audio_of[key], audio))
            audio_of[key] = audio


def _listed(utterance: Utterance) -> Listed:
    if not isinstance(utterance, Utterance) or not isinstance(utterance.key, str):
        raise UsageError(f"the corpus lists {utterance!r:.200}, expected an Utterance whose key is a str.")
    key = escape_key(utterance.key)
    if not key:
        raise UsageError(f"{utterance.audio}: the utterance's key is empty.")
    is_unsafe = key != utterance.key and key != utterance.key.replace("/", "+")
    stretch = (_seconds(utterance, utterance.start_seconds), _seconds(utterance, utterance.end_seconds))
    try:
        audio = os.fsencode(utterance.audio)
    except UnicodeEncodeError:
        raise UsageError(f"utterance {utterance.key!r}: {utterance.audio!r} can be the path of no file.") from None
    return Listed(key, is_unsafe, audio, *stretch, _checked_metadata(utterance), os.fsencode(utterance.where))


def _seconds(utterance: Utterance, value: float | None) -> float | None:
    try:
        seconds = None if value is None else float(value)
    except (TypeError, ValueError, OverflowError):
        seconds = math.nan
    if seconds is not None and not math.isfinite(seconds):
        raise UsageError(f"utterance {utterance.key!r}: {value!r} is no time in seconds.")
    return seconds


def _checked_metadata(utterance: Utterance) -> bytes:
    if not _TAKEN.isdisjoint(utterance.metadata):
        taken = sorted(_TAKEN.intersection(utterance.metadata))
        raise UsageError(
            f"utterance {utterance.key!r}: the stream uses the name {taken[0]!r} itself; call that field another name."
        )
    stretch = (utterance.start_seconds, utterance.end_seconds)
    end = next((name for name in ("end", "duration") if name in utterance.metadata), None)
    if stretch == (None, None) and "start" in utterance.metadata and end is not None:
        raise UsageError(
            f"utterance {utterance.key!r}: 'start' and {end!r} would be metadata of the whole file. The "
            "stretch of an utterance is start_seconds and end_seconds (of a table, `pack manifest` reads it from such "
            "columns); what is something else needs other names."
        )
    try:
        return metadata_json(utterance.metadata)
    except (TypeError, ValueError, RecursionError):
        raise UsageError(f"utterance {utterance.key!r}: {_misfit(utterance.metadata)}.") from None


def _misfit(metadata: Mapping[str, Any]) -> str:
    """Which of the metadata does not fit into JSON, and why."""
    for name, value in metadata.items():
        try:
            metadata_json({name: value})
        except UnicodeEncodeError:
            return f"its field {name!r} holds half a character (a lone surrogate), so it is no text: {value!r:.80}"
        except (TypeError, ValueError, RecursionError) as error:
            return f"its field {name!r} does not fit into JSON: {error}. Give Python's own numbers, lists and dicts"
    return "its fields do not fit into JSON together"


def _names(listing: Listing) -> Iterator[tuple[str, str]]:
    """(key, what it is and where it is listed) of all."""
    listed = (one for batch in listing.batches() for one in batch)
    for number, one in enumerate(listed, start=1):
        stretch = "" if one.start is None and one.end is None else f" from {one.start or 0:g} s"
        stretch += "" if one.end is None else f" to {one.end:g} s"
        where = os.fsdecode(one.where) or f"number {number} of the list"
        yield one.key, f"{os.fsdecode(one.audio)}{stretch} ({where})"


def _two_of_one_key(key: str, first: str, second: str) -> str:
    is_same = first.rpartition(" (")[0] == second.rpartition(" (")[0]
    advice = "take one of the two out of the list" if is_same else "rename one file"
    return (
        f"two utterances have the key {key!r}: {first} and {second}. Keys must be unique: {advice}, or give keys in a "
        "manifest."
    )
