"""A set in an object store or on a web server: reads that are begun before they are needed, and shared.

Threads of one pool wait for the answers (`object_requests.py`). Whoever reads waits for them, and can stop waiting at
any time.
"""

from __future__ import annotations

import contextlib
import threading
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from s3prl_stream.errors import MissingFile, ShardError, UsageError
from s3prl_stream.stores.coalesce import coalesce
from s3prl_stream.stores.object_clients import refuse_after_fork, without_secrets
from s3prl_stream.stores.object_fetches import Fetch, covering, pool
from s3prl_stream.stores.object_requests import ObjectRequests
from s3prl_stream.stores.object_tries import AbandonedError
from s3prl_stream.stores.store import Ahead, check_remote

_UPLOAD_PART_BYTES = 16 << 20

_TEST_SCHEMES = ("file", "memory")  # obstore over a disk or in memory


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
        self._begin(answered=False)

    def _begin(self, *, answered: bool) -> None:
        self._requests = ObjectRequests(self._url, answered=answered)
        self.url, self.counters = self._requests.url, self._requests.counters
        self._ahead: defaultdict[str, list[Fetch]] = defaultdict(list)
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {"_url": self._url, "answered": self._requests.answered}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self._url = state["_url"]
        self._begin(answered=state["answered"])

    def __repr__(self) -> str:
        return f"ObjectStore({self.url!r})"

    # ---- reading -------------------------------------------------------------------------------

    def size(self, name: str) -> int | None:
        try:
            return self._requests.size(name)
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
        self._requests.count(rereads=1)
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
            fetch.chunks = self._requests.read(name, fetch.start, fetch.stop, fetch.at_most, fetch.is_wanted)
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

    # ---- listing and writing -------------------------------------------------------------------

    def list(self, prefix: str = "") -> list[tuple[str, int]]:
        import obstore

        if self._requests.is_web_server:
            raise UsageError(f"{self.url}: a web server does not list its files. Name them.")
        folder = prefix.rpartition("/")[0]

        def collect(client: Any) -> list[tuple[str, int]]:
            found = obstore.list(client, prefix=folder or None).collect()
            return [(str(one["path"]), int(one["size"])) for one in found]

        return sorted(
            one for one in self._requests.persistently(folder, "listed", collect) if one[0].startswith(prefix)
        )

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

        self._requests.forget(name)
        return self._requests.persistently(name, "written", create, for_writing=True)

    def upload(self, path: Path, name: str) -> None:
        """See `Store.upload`; large files in parts. What arrived is looked up and must have the size of the file."""
        self._put(name, path, path.stat().st_size)

    def delete(self, name: str) -> None:
        import obstore

        with contextlib.suppress(MissingFile):
            self._requests.persistently(name, "removed", lambda client: obstore.delete(client, name), for_writing=True)
        self._requests.forget(name)

    def _put(self, name: str, content: bytes | Path, size: int) -> None:
        import obstore

        def put(client: Any) -> None:
            obstore.put(client, name, content, chunk_size=_UPLOAD_PART_BYTES, max_concurrency=4)

        self._requests.forget(name)
        self._requests.persistently(name, "written", put, for_writing=True)
        found = self._requests.size(name)
        if found != size:
            raise ShardError(f"{self.url}/{name}: {found} bytes arrived, {size} were sent. Write it again.")
