"""A set in an object store or on a web server: ranged requests, resumed where they broke, begun before they are needed.

A file must stay what it was when this process saw it first: its ETag (or time) and size are compared with every answer.
Bytes that were flipped on the way nobody notices here; the index's checksums do.

Threads of one pool wait for the answers. Whoever reads waits for them, and can stop waiting at any time.
"""

from __future__ import annotations

import contextlib
import functools
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urlsplit

from s3prl_stream.errors import DamagedFile, MissingFile, ShardError, StreamError, UsageError
from s3prl_stream.shards import object_tries
from s3prl_stream.shards.coalesce import coalesce
from s3prl_stream.shards.object_clients import client_of, refuse_after_fork, status_of, without_secrets
from s3prl_stream.shards.object_fetches import Fetch, covering, pool
from s3prl_stream.shards.object_tries import AbandonedError, Tries
from s3prl_stream.shards.store import Ahead, check_remote, still_wanted

_CHUNK_BYTES = 64 << 10  # what is lost when a body breaks
_UPLOAD_PART_BYTES = 16 << 20

_SAID_TO_HEAD_ALONE = (403, 405, 501)
"""What web servers answer that know no HEAD, or allow none; to a GET they may say something else."""

_TEST_SCHEMES = ("file", "memory")  # obstore over a disk or in memory

Result = TypeVar("Result")


class ObjectStore:
    """A folder in an object store or on a web server.

    Args:
        url: s3://BUCKET/FOLDER, gs://, az://CONTAINER/FOLDER, abfss://, http(s)://HOST/FOLDER.

    Raises:
        UsageError: a URL of another kind, or with a query.
    """

    is_remote = True

    def __init__(self, url: str) -> None:
        if urlsplit(url).scheme not in _TEST_SCHEMES:
            check_remote(url)
        if "?" in url or "#" in url:
            raise UsageError(f"{without_secrets(url)}: the URL of a set has no query and no fragment.")
        self._url = url.rstrip("/")
        self.url = without_secrets(self._url)
        self._is_web_server = urlsplit(self._url).scheme.lower() in ("http", "https")
        self._begin()

    def _begin(self) -> None:
        self.counters = {"requests": 0, "bytes": 0, "retries": 0, "rereads": 0}
        self._answered = False  # ever
        self._pinned: dict[str, _Identity] = {}
        self._ahead: defaultdict[str, list[Fetch]] = defaultdict(list)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"url": self._url, "answered": self._answered}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["url"])  # type: ignore[misc]
        self._answered = state["answered"]

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    # ---- reading -------------------------------------------------------------------------------

    def size(self, name: str) -> int | None:
        try:
            return self._head(name).size
        except MissingFile:
            return None

    def read(self, name: str, offset: int, size: int) -> bytes:
        """See `Store.read`; from what was read ahead where that covers it."""
        refuse_after_fork(self.url)
        at, stop, parts = offset, offset + size, list[memoryview]()
        while at < stop:
            fetch = self._fetch_at(name, at)
            if fetch is None:
                return self._read_alone(name, offset, size)
            try:
                parts += fetch.parts(at, stop)
            except AbandonedError:  # it was somebody else's
                return self._read_alone(name, offset, size)
            at = fetch.stop or stop
        return b"".join(parts)

    def read_again(self, name: str, offset: int, size: int) -> bytes:
        """The same bytes by another request: what was damaged on the way may be sound now."""
        self._count(rereads=1)
        return self._read_alone(name, offset, size)

    def read_ahead(self, ranges: Sequence[tuple[str, int, int]]) -> Ahead:
        """See `Store.read_ahead`: neighbours become one request, and no byte under way is asked for twice."""
        refuse_after_fork(self.url)
        wanted: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for name, offset, size in ranges:
            wanted[name].append((offset, offset + size))
        users: list[tuple[str, Fetch]] = []
        new: list[tuple[str, Fetch]] = []
        with self._lock:
            for name, of_file in wanted.items():
                under_way = self._ahead.get(name, [])
                missing = []
                for start, stop in of_file:
                    found = covering(under_way, start, stop)
                    missing += [(start, stop)] if found is None else []
                    users += [(name, fetch) for fetch in found or ()]
                new += [(name, Fetch(start, stop)) for start, stop in coalesce(missing)]
            for name, fetch in new:
                self._ahead[name].append(fetch)
            users = list({id(fetch): (name, fetch) for name, fetch in users + new}.values())
            for _, fetch in users:
                fetch.users += 1
        for name, fetch in new:
            pool().submit(self._run, name, fetch)
        ahead = contextlib.ExitStack()
        ahead.callback(self._let_go, users)
        return ahead

    def read_whole(self, name: str, *, at_most: int) -> bytes:
        """See `Store.read_whole`; one request."""
        refuse_after_fork(self.url)
        return self._fetched(name, [Fetch(0, None, at_most)])

    def _read_alone(self, name: str, offset: int, size: int) -> bytes:
        """By requests of its own, which nobody else gets to see."""
        refuse_after_fork(self.url)
        return self._fetched(name, [Fetch(start, stop) for start, stop in coalesce([(offset, offset + size)])])

    def _fetched(self, name: str, fetches: Sequence[Fetch]) -> bytes:
        for fetch in fetches:
            fetch.users = 1
            pool().submit(self._run, name, fetch)
        try:
            return b"".join(part for fetch in fetches for part in fetch.parts(fetch.start, fetch.stop))
        finally:
            for fetch in fetches:
                fetch.users = 0

    def _fetch_at(self, name: str, at: int) -> Fetch | None:
        with self._lock:
            return next((fetch for fetch in self._ahead.get(name, ()) if fetch.covers(at)), None)

    def _run(self, name: str, fetch: Fetch) -> None:
        """One request of the pool; what goes wrong is told to whoever reads."""
        try:
            fetch.chunks = self._request(name, fetch.start, fetch.stop, fetch.at_most, fetch.is_wanted)
        except Exception as error:
            fetch.error = error
        finally:
            fetch.done.set()

    def _let_go(self, users: Sequence[tuple[str, Fetch]]) -> None:
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
        self, name: str, start: int, stop: int | None, at_most: int | None, wanted: Callable[[], bool]
    ) -> list[bytes]:
        """Bytes from `start` to `stop` (None: to the end), fewer where the file ends; resumed where a body broke."""
        chunks: list[bytes] = []
        at, tries = start, self._tries(name, wanted)
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
                    self._count(bytes=len(chunk))
                    tries.progress()
                    if not wanted():
                        raise AbandonedError
                if at < end:
                    raise EOFError(f"the answer ended {end - at} bytes early")
                if at > end:
                    raise ShardError(f"{self.url}/{name}: an answer was {at - end} bytes longer than asked for.")
            except Exception as error:
                self._answered |= status_of(error) is not None
                if known is None and _may_begin_behind_the_end(error):  # and nobody has told us yet where that is
                    self._head(name)
                    continue
                tries.failed(error, f"read at byte {at}")

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
        self._count(requests=1)
        answer = obstore.get(client, name, options=options)  # type: ignore[arg-type]
        self._answered = True
        return answer

    def _head(self, name: str) -> _Identity:
        return self._identity(name, self._persistently(name, "looked up", functools.partial(self._meta, name)))

    def _meta(self, name: str, client: Any) -> Any:
        import obstore

        try:
            return obstore.head(client, name)
        except Exception as error:
            if not (self._is_web_server and status_of(error) in _SAID_TO_HEAD_ALONE):
                raise
        self._count(requests=1)
        try:
            return obstore.get(client, name, options={"range": (0, 1)}).meta
        except Exception as error:
            if not _may_begin_behind_the_end(error):
                raise
        self._count(requests=1)
        return obstore.get(client, name).meta  # an empty file has no first byte

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

    def _count(self, **by: int) -> None:
        with self._lock:
            for name, more in by.items():
                self.counters[name] += more

    def _tries(self, name: str, wanted: Callable[[], bool]) -> Tries:
        def max_failures() -> int:
            return object_tries.MAX_FAILURES if self._answered else object_tries.MAX_FAILURES_AT_FIRST

        return Tries(
            f"{self.url}/{name}", max_failures, lambda how: self._changed(name, how), lambda: self._count(retries=1),
            wanted,
        )  # fmt: skip

    def _persistently(
        self, name: str, what: str, action: Callable[[Any], Result], *, for_writing: bool = False
    ) -> Result:
        """The answer to a request without a body worth resuming."""
        tries = self._tries(name, still_wanted)
        client = client_of(self._url, for_writing=for_writing)
        while True:
            self._count(requests=1)
            try:
                answer = action(client)
            except Exception as error:
                self._answered |= status_of(error) is not None
                try:
                    tries.failed(error, what)
                except AbandonedError:
                    raise StreamError(f"{self.url}: reading was given up, its loader has ended") from None
            else:
                self._answered = True
                return answer

    # ---- listing and writing -------------------------------------------------------------------

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        import obstore

        if self._is_web_server:
            raise UsageError(f"{self.url}: a web server does not list its files. Name them.")
        folder = prefix.rpartition("/")[0]

        def collect(client: Any) -> list[tuple[str, int]]:
            found = obstore.list(client, prefix=folder or None).collect()
            return [(str(one["path"]), int(one["size"])) for one in found]

        return sorted(one for one in self._persistently(folder, "listed", collect) if one[0].startswith(prefix))

    def write(self, name: str, content: bytes) -> None:
        self._put(name, content, len(content))

    def create(self, name: str, content: bytes) -> bool:
        import obstore
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        def create(client: Any) -> bool:
            try:
                obstore.put(client, name, content, mode="create", use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return False
            except (NotSupportedError, NotImplementedError):
                obstore.put(client, name, content)
            return True

        self._pinned.pop(name, None)
        return self._persistently(name, "written", create, for_writing=True)

    def upload(self, path: Path, name: str) -> None:
        """See `Store.upload`; large files in parts. What arrived is looked up and must have the size of the file."""
        self._put(name, path, path.stat().st_size)

    def delete(self, name: str) -> None:
        import obstore

        with contextlib.suppress(MissingFile):
            self._persistently(name, "removed", lambda client: obstore.delete(client, name), for_writing=True)
        self._pinned.pop(name, None)

    def _put(self, name: str, content: bytes | Path, size: int) -> None:
        import obstore

        def put(client: Any) -> None:
            obstore.put(client, name, content, chunk_size=_UPLOAD_PART_BYTES, max_concurrency=4)

        self._pinned.pop(name, None)
        self._persistently(name, "written", put, for_writing=True)
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


def _may_begin_behind_the_end(error: Exception) -> bool:
    """An empty file some servers send whole, whatever is asked of it: nginx does."""
    from obstore.exceptions import NotSupportedError

    is_behind = status_of(error) == 416 or "Wanted range starting at" in str(error)
    return is_behind or isinstance(error, NotSupportedError)
