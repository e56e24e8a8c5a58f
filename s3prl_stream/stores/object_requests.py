"""Requests to a folder of an object store or a web server: made again where that may help, resumed where a body broke.

A file must stay what it was when this process saw it first: its ETag (or time) and size are compared with every answer.
Bytes that were flipped on the way nobody notices here; the index's checksums do.
"""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from s3prl_stream.errors import DamagedFile, ShardError, StreamError
from s3prl_stream.stores.object_clients import client_of, status_of, without_secrets
from s3prl_stream.stores.object_tries import AbandonedError, Tries, changed
from s3prl_stream.stores.wanted import still_wanted

_CHUNK_BYTES = 64 << 10  # what is lost when a body breaks

_SAID_TO_HEAD_ALONE = (403, 405, 501)
"""What web servers answer that know no HEAD, or allow none; to a GET they may say something else."""

Result = TypeVar("Result")


class ObjectRequests:
    """All requests to one folder. Safe from several threads.

    Args:
        url: as it was given, without "/" at its end.
        answered: a server has answered to it before, in whatever process.

    Attributes:
        url: for messages, without secrets.
        counters: "requests", "bytes", "retries" and "rereads".
        answered: by now.
    """

    def __init__(self, url: str, *, answered: bool = False) -> None:
        self._url = url
        self.url = without_secrets(url)
        self.is_web_server = urlsplit(url).scheme.lower() in ("http", "https")
        self.answered = answered
        self.counters = {"requests": 0, "bytes": 0, "retries": 0, "rereads": 0}
        self._pinned: dict[str, _Identity] = {}
        self._lock = threading.Lock()

    def read(
        self, name: str, start: int, stop: int | None, at_most: int | None, wanted: Callable[[], bool]
    ) -> list[bytes]:
        """Bytes from `start` to `stop` (None: to the end), fewer where the file ends; resumed where a body broke."""
        chunks: list[bytes] = []
        at, tries = start, Tries(f"{self.url}/{name}", wanted)
        while True:
            known = self._pinned.get(name)
            end = stop if known is None else known.size if stop is None else min(stop, known.size)
            if known is not None:
                self._check_size(name, known.size, at_most)
            if end is not None and at >= end:
                return chunks
            if not wanted():
                raise AbandonedError
            try:
                answer = self._get(name, at, end)
                found = self._identity(name, answer.meta)
                self._check_size(name, found.size, at_most)
                end = found.size if end is None else min(end, found.size)
                for chunk in answer.stream(_CHUNK_BYTES):
                    chunks.append(chunk)
                    at += len(chunk)
                    self.count(bytes=len(chunk))
                    tries.progress()
                    if not wanted():
                        raise AbandonedError
                if at < end:
                    raise EOFError(f"the answer ended {end - at} bytes early")
                if at > end:
                    raise ShardError(f"{self.url}/{name}: an answer was {at - end} bytes longer than asked for.")
            except Exception as error:
                self.answered |= status_of(error) is not None
                if known is None and _may_begin_behind_the_end(error):  # and nobody has told us yet where that is
                    self.size(name)
                    continue
                tries.failed(error, f"read at byte {at}", answered=self.answered)
                self.count(retries=1)

    def _check_size(self, name: str, size: int, at_most: int | None) -> None:
        if at_most is not None and size > at_most:
            raise DamagedFile(f"{self.url}/{name}: {size} bytes, expected at most {at_most}.")

    def _get(self, name: str, start: int, stop: int | None) -> Any:
        import obstore

        known = self._pinned.get(name)
        options: dict[str, Any] = {}
        if stop is not None:
            options["range"] = (start, stop)
        elif start:
            options["range"] = {"offset": start}
        if known is not None and known.is_strong:
            options["if_match"] = known.e_tag
        client = client_of(self._url)
        self.count(requests=1)
        answer = obstore.get(client, name, options=options)  # type: ignore[arg-type]
        self.answered = True
        return answer

    def size(self, name: str) -> int:
        """Bytes of a file.

        Raises:
            MissingFile: it is not there.
        """
        return self._identity(name, self.persistently(name, "looked up", functools.partial(self._meta, name))).size

    def forget(self, name: str) -> None:
        """It may become another file from now on: we write it."""
        self._pinned.pop(name, None)

    def _meta(self, name: str, client: Any) -> Any:
        import obstore

        try:
            return obstore.head(client, name)
        except Exception as error:
            if not (self.is_web_server and status_of(error) in _SAID_TO_HEAD_ALONE):
                raise
        self.count(requests=1)
        try:
            return obstore.get(client, name, options={"range": (0, 1)}).meta
        except Exception as error:
            if not _may_begin_behind_the_end(error):
                raise
        self.count(requests=1)
        return obstore.get(client, name).meta  # an empty file has no first byte

    def _identity(self, name: str, meta: Any) -> _Identity:
        found = _Identity.of(meta)
        with self._lock:
            pinned = self._pinned.setdefault(name, found)
        if found != pinned:
            raise changed(f"{self.url}/{name}", f"it was {pinned}, is {found}")
        return found

    def count(self, **by: int) -> None:
        with self._lock:
            for name, more in by.items():
                self.counters[name] += more

    def persistently(
        self, name: str, what: str, action: Callable[[Any], Result], *, for_writing: bool = False
    ) -> Result:
        """The answer to a request without a body worth resuming."""
        tries = Tries(f"{self.url}/{name}", still_wanted)
        client = client_of(self._url, for_writing=for_writing)
        while True:
            self.count(requests=1)
            try:
                answer = action(client)
            except Exception as error:
                self.answered |= status_of(error) is not None
                try:
                    tries.failed(error, what, answered=self.answered)
                except AbandonedError:
                    raise StreamError(f"{self.url}: reading was given up, its loader has ended") from None
                self.count(retries=1)
            else:
                self.answered = True
                return answer


class _Identity(NamedTuple):
    """What tells one version of a file from another."""

    e_tag: str | None
    modified: str
    size: int

    @classmethod
    def of(cls, meta: Any) -> _Identity:
        e_tag = meta["e_tag"] or None
        return cls(e_tag, "" if e_tag else str(meta["last_modified"]), int(meta["size"]))

    @property
    def is_strong(self) -> bool:
        """True if a server can be asked for this version and no other."""
        return self.e_tag is not None and not self.e_tag.startswith("W/")

    def __str__(self) -> str:
        return f"{self.size} bytes, {self.e_tag or self.modified}"


def _may_begin_behind_the_end(error: Exception) -> bool:
    """An empty file some servers send whole, whatever is asked of it: nginx does."""
    from obstore.exceptions import NotSupportedError

    is_behind = status_of(error) == 416 or "Wanted range starting at" in str(error)
    return is_behind or isinstance(error, NotSupportedError)
