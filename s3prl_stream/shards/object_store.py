"""A set in an object store or on a web server: ranged requests, resumed where they broke, begun before they are needed.

A file must stay what it was when this process saw it first: its ETag (or time) and size are compared with every answer.
Bytes that were flipped on the way nobody notices here; the index's checksums do.
"""

from __future__ import annotations

import concurrent.futures.thread
import contextlib
import random
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from s3prl_stream.errors import MissingFile, ShardError, StreamError, UsageError
from s3prl_stream.shards.coalesce import MAX_REQUEST_BYTES, coalesce
from s3prl_stream.shards.object_clients import client_of, reason_of, refuse_after_fork, status_of, without_secrets
from s3prl_stream.shards.store import Ahead, check_remote

IO_THREADS = 16
"""Requests under way in a process, over all its sets."""

MAX_FAILURES = 10
"""Tries in a row that bring not a byte; any byte sets the count back."""

FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.1, 10.0

_CHUNK_BYTES = 64 << 10  # what is lost when a body breaks
_UPLOAD_PART_BYTES = 16 << 20
_MAX_WHOLE_RANGE_ANSWERS = 3

_TEST_SCHEMES = ("file", "memory")  # obstore over a disk or in memory

Result = TypeVar("Result")


class ObjectStore:
    """A folder in an object store or on a web server.

    Args:
        url: s3://BUCKET/FOLDER, gs://, az://CONTAINER/FOLDER, abfss://, http(s)://HOST/FOLDER.
        config: obstore's configuration in place of the environment's; unlike that, it travels with a pickle.

    Raises:
        UsageError: a URL of another kind, or with a query.
    """

    is_remote = True

    def __init__(self, url: str, config: dict[str, str] | None = None) -> None:
        if urlsplit(url).scheme not in _TEST_SCHEMES:
            check_remote(url)
        if "?" in url or "#" in url:
            raise UsageError(f"{without_secrets(url)}: the URL of a set has no query and no fragment.")
        self._url, self._config = url.rstrip("/"), config
        self.url = without_secrets(self._url)
        self._begin()

    def _begin(self) -> None:
        self.counters = {"requests": 0, "bytes": 0, "retries": 0, "rereads": 0}
        self._pinned: dict[str, _Identity] = {}
        self._ahead: defaultdict[str, list[_Fetch]] = defaultdict(list)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url, "config": self._config}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"], state["config"])  # type: ignore[misc]

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    # ---- reading -------------------------------------------------------------------------------

    def size(self, name: str) -> int | None:
        """Bytes of a file; None if there is none of this name."""
        try:
            return self._head(name).size
        except MissingFile:
            return None

    def read(self, name: str, offset: int, size: int) -> bytes:
        """See `Store.read`; from what was read ahead where that covers it."""
        refuse_after_fork(self.url)
        at, stop, parts = offset, offset + size, list[memoryview]()
        try:
            while at < stop:
                fetch = self._fetch_at(name, at)
                if fetch is None:
                    return self._read_now(name, offset, size)
                parts += fetch.parts(at, stop)
                at = fetch.stop
        except _AbandonedError:  # it was somebody else's
            return self._read_now(name, offset, size)
        return b"".join(parts)

    def read_again(self, name: str, offset: int, size: int) -> bytes:
        """The same bytes by another request: what was damaged on the way may be sound now."""
        self._count(rereads=1)
        return self._read_now(name, offset, size)

    def read_ahead(self, ranges: Sequence[tuple[str, int, int]]) -> Ahead:
        """See `Store.read_ahead`: neighbours become one request, and no byte under way is asked for twice."""
        refuse_after_fork(self.url)
        wanted: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for name, offset, size in ranges:
            wanted[name].append((offset, offset + size))
        users: list[tuple[str, _Fetch]] = []
        new: list[tuple[str, _Fetch]] = []
        with self._lock:
            for name, of_file in wanted.items():
                under_way = self._ahead[name]
                missing = []
                for start, stop in of_file:
                    covering = _covering(under_way, start, stop)
                    missing += [(start, stop)] if covering is None else []
                    users += [(name, fetch) for fetch in covering or ()]
                fresh = [(name, _Fetch(start, stop)) for start, stop in coalesce(missing)]
                under_way.extend(fetch for _, fetch in fresh)
                new += fresh
            users = list({id(fetch): (name, fetch) for name, fetch in users + new}.values())
            for _, fetch in users:
                fetch.users += 1
        for name, fetch in new:
            _pool().submit(self._run, name, fetch)
        return _Ahead(self, users)

    def read_whole(self, name: str, *, at_most: int) -> bytes:
        """See `Store.read_whole`; one request."""
        return b"".join(self._request(name, 0, None, at_most=at_most))

    def _read_now(self, name: str, offset: int, size: int) -> bytes:
        if size <= MAX_REQUEST_BYTES:
            return b"".join(self._request(name, offset, offset + size))
        with contextlib.closing(self.read_ahead([(name, offset, size)])):
            return self.read(name, offset, size)

    def _fetch_at(self, name: str, at: int) -> _Fetch | None:
        with self._lock:
            return next((fetch for fetch in self._ahead.get(name, ()) if fetch.start <= at < fetch.stop), None)

    def _run(self, name: str, fetch: _Fetch) -> None:
        """One request of the pool; what goes wrong is told to whoever reads."""
        try:
            if fetch.users:
                fetch.chunks = self._request(
                    name, fetch.start, fetch.stop, wanted=lambda: fetch.users > 0 and _running()
                )
            else:
                fetch.error = _AbandonedError()
        except Exception as error:
            fetch.error = error
        finally:
            fetch.done.set()

    def let_go(self, users: Sequence[tuple[str, _Fetch]]) -> None:
        """Of each of these fetches there is one user less; those of nobody are forgotten."""
        with self._lock:
            for name, fetch in users:
                fetch.users -= 1
                if not fetch.users:
                    self._ahead[name].remove(fetch)
                    if not self._ahead[name]:
                        del self._ahead[name]

    # ---- requests ------------------------------------------------------------------------------

    def _request(
        self,
        name: str,
        start: int,
        stop: int | None,
        *,
        at_most: int | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> list[bytes]:
        """Bytes from `start` to `stop` (None: to the end), fewer where the file ends; resumed where a body broke."""
        chunks: list[bytes] = []
        at, tries = start, _Tries(self, name)
        while True:
            known = self._pinned.get(name)
            end = stop if known is None else known.size if stop is None else min(stop, known.size)
            if end is not None and at >= end:
                return chunks
            if not wanted():
                raise _AbandonedError
            try:
                answer = self._get(name, at, end)
                found, (first, behind) = self._identity(name, answer.meta), answer.range
                if at_most is not None and found.size > at_most:
                    raise ShardError(f"{self.url}/{name}: {found.size} bytes, expected at most {at_most}.")
                end = found.size if end is None else min(end, found.size)
                if first != at or behind > end:
                    raise _WholeAnswerError(f"bytes {first} to {behind} in answer to a request for {at} to {end}")
                for chunk in answer.stream(_CHUNK_BYTES):
                    chunks.append(chunk)
                    at += len(chunk)
                    self._count(bytes=len(chunk))
                    tries.progress()
                    if not wanted():
                        raise _AbandonedError
                if at < end:
                    raise EOFError(f"the answer ended {end - at} bytes early")
                if at > end:
                    raise ShardError(f"{self.url}/{name}: an answer was {at - end} bytes longer than asked for.")
            except Exception as error:
                if status_of(error) == 416 and known is None:  # begins behind the end, which nobody has told us yet
                    self._head(name)
                    continue
                tries.failed(error, f"read at byte {at}")

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
        self._count(requests=1)
        return obstore.get(self._client(), name, options=options)  # type: ignore[arg-type]

    def _head(self, name: str) -> _Identity:
        import obstore

        def head() -> _Identity:
            self._count(requests=1)
            return self._identity(name, obstore.head(self._client(), name))

        return self._persistently(name, "be looked up", head)

    def _identity(self, name: str, meta: Any) -> _Identity:
        found = _Identity.of(meta)
        with self._lock:
            pinned = self._pinned.setdefault(name, found)
        if found != pinned:
            raise self._changed(name, f"it was {pinned}, is {found}")
        return found

    def _changed(self, name: str, how: str) -> ShardError:
        return ShardError(
            f"{self.url}/{name}: object changed since it was first read ({how}). A running stream needs the files it "
            "began with: restore them, or begin anew."
        )

    def _client(self) -> Any:
        return client_of(self._url, self._config)

    def _count(self, **by: int) -> None:
        with self._lock:
            for name, more in by.items():
                self.counters[name] += more

    def _persistently(self, name: str, what: str, action: Callable[[], Result]) -> Result:
        tries = _Tries(self, name)
        while True:
            try:
                return action()
            except Exception as error:
                tries.failed(error, what)

    # ---- listing and writing -------------------------------------------------------------------

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        """See `Store.list`."""
        import obstore

        if urlsplit(self._url).scheme.lower() in ("http", "https"):
            raise UsageError(f"{self.url}: a web server does not list its files. Name them.")
        folder = prefix.rpartition("/")[0]

        def collect() -> list[tuple[str, int]]:
            self._count(requests=1)
            found = obstore.list(self._client(), prefix=folder or None).collect()
            return [(str(one["path"]), int(one["size"])) for one in found]

        return sorted(one for one in self._persistently(folder, "be listed", collect) if one[0].startswith(prefix))

    def write(self, name: str, content: bytes) -> None:
        """See `Store.write`."""
        self._put(name, content, len(content))

    def upload(self, path: Path, name: str) -> None:
        """See `Store.upload`; large files in parts. What arrived is looked up and must have the size of the file."""
        self._put(name, path, path.stat().st_size)

    def delete(self, name: str) -> None:
        """See `Store.delete`."""
        import obstore

        with contextlib.suppress(MissingFile):
            self._persistently(name, "be removed", lambda: obstore.delete(self._client(), name))
        self._pinned.pop(name, None)

    def _put(self, name: str, content: bytes | Path, size: int) -> None:
        import obstore

        def put() -> None:
            self._count(requests=1)
            obstore.put(self._client(), name, content, chunk_size=_UPLOAD_PART_BYTES, max_concurrency=4)

        self._pinned.pop(name, None)
        self._persistently(name, "be written", put)
        found = self._head(name).size
        if found != size:
            raise ShardError(f"{self.url}/{name}: {found} bytes arrived, {size} were sent. Write it again.")


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


class _Fetch:
    """One request of the pool."""

    def __init__(self, start: int, stop: int) -> None:
        self.start, self.stop = start, stop
        self.users = 0
        self.done = threading.Event()
        self.chunks: list[bytes] = []
        self.error: Exception | None = None

    def parts(self, start: int, stop: int) -> Iterator[memoryview]:
        """Its bytes between two offsets of the file, once they are here."""
        self.done.wait()
        if self.error is not None:
            raise self.error
        at = self.start
        for chunk in self.chunks:
            if at >= stop:
                return
            if at + len(chunk) > start:
                yield memoryview(chunk)[max(start - at, 0) : stop - at]
            at += len(chunk)


def _covering(fetches: Sequence[_Fetch], start: int, stop: int) -> list[_Fetch] | None:
    """The fetches that together hold these bytes; None where one is missing."""
    found = []
    while start < stop:
        fetch = next((one for one in fetches if one.start <= start < one.stop), None)
        if fetch is None:
            return None
        found.append(fetch)
        start = fetch.stop
    return found


class _Ahead:
    def __init__(self, store: ObjectStore, users: list[tuple[str, _Fetch]]) -> None:
        self._store, self._users = store, users

    def close(self) -> None:
        """Forget what was read ahead; what is still under way is given up."""
        users, self._users = self._users, []
        self._store.let_go(users)


class _WholeAnswerError(Exception):
    """Other bytes than those that were asked for."""


class _AbandonedError(Exception):
    """Nobody waits for this request any more."""


class _Tries:
    """Decides after each failure whether to try again, and pauses."""

    def __init__(self, store: ObjectStore, name: str) -> None:
        self._store, self._name = store, name
        self._in_a_row = self._in_all = self._whole_answers = 0

    def progress(self) -> None:
        """Bytes came."""
        self._in_a_row = 0

    def failed(self, error: Exception, what: str) -> None:
        """Returns after a pause if another try may help.

        Raises:
            MissingFile, ShardError: it will not.
        """
        import obstore.exceptions as obstore_errors

        if isinstance(error, StreamError | _AbandonedError):
            raise error
        where = f"{self._store.url}/{self._name}"
        self._in_a_row += 1
        self._in_all += 1
        status = status_of(error)
        if isinstance(error, FileNotFoundError):
            raise MissingFile(f"{where}: cannot be {what} (not there: {reason_of(error)}).") from error
        if isinstance(error, obstore_errors.PreconditionError):
            raise self._store._changed(self._name, "the server says so") from error
        if isinstance(error, obstore_errors.PermissionDeniedError | obstore_errors.UnauthenticatedError):
            raise ShardError(
                f"{where}: cannot be {what}, permission denied ({reason_of(error)}). Check the credentials in the "
                "environment, and the bucket's rules."
            ) from error
        if isinstance(error, obstore_errors.NotSupportedError | _WholeAnswerError):
            self._whole_answers += 1
            if self._whole_answers >= _MAX_WHOLE_RANGE_ANSWERS:
                raise ShardError(
                    f"{where}: cannot be {what}: the server does not keep to the range it is asked for "
                    f"({reason_of(error)}). It must know HTTP range requests."
                ) from error
        elif status is not None and 400 <= status < 500 and status not in (408, 429):
            raise ShardError(f"{where}: cannot be {what} ({reason_of(error)}).") from error
        elif not isinstance(error, obstore_errors.BaseError | OSError | EOFError):
            raise error  # a mistake of ours
        if self._in_a_row >= MAX_FAILURES:
            raise ShardError(
                f"{where}: cannot be {what} after {self._in_all} attempts ({reason_of(error)}). Check the network and "
                "the store; the run can go on from its last checkpoint."
            ) from error
        self._store._count(retries=1)
        pause = min(FIRST_PAUSE_SECONDS * 2 ** (self._in_a_row - 1), LONGEST_PAUSE_SECONDS)
        time.sleep(pause * random.uniform(0.5, 1.0))


def _running() -> bool:
    """False once the interpreter ends: it waits for the pool, which should not wait for a silent server."""
    return not getattr(concurrent.futures.thread, "_shutdown", False)


_threads: ThreadPoolExecutor | None = None
_threads_lock = threading.Lock()


def _pool() -> ThreadPoolExecutor:
    """The threads of this process that wait for answers. A forked child never gets here."""
    global _threads
    with _threads_lock:
        if _threads is None:
            _threads = ThreadPoolExecutor(IO_THREADS, thread_name_prefix="store")
        return _threads
