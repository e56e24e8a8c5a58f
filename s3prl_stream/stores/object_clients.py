"""Connections to object stores and web servers, by obstore: who may use them, how long they wait, what errors mean.

Credentials come from the environment as obstore reads it (AWS_*, GOOGLE_*, AZURE_STORAGE_*, and what a cloud gives its
own machines), Google's from its tools' file as well, Amazon's from ~/.aws (`aws_profile.py`). No message of ours holds
a user, a password or a query.

A process that has used obstore must not be forked: its threads are not in the child, which would wait for them for
ever. The child is told so by an error.
"""

from __future__ import annotations

import ipaddress
import os
import re
import threading
from collections.abc import Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from s3prl_stream.errors import StreamError, UsageError
from s3prl_stream.stores.aws_profile import profile_settings

CLIENT_OPTIONS = {"connect_timeout": "5s", "read_timeout": "10s", "timeout": "300s"}
"""`read_timeout` is the longest silence. `timeout` is that of a whole answer, so it is generous."""

WRITE_RETRIES = {
    "max_retries": 10,
    "retry_timeout": timedelta(seconds=120),
    "backoff": {"init_backoff": timedelta(milliseconds=50), "max_backoff": timedelta(seconds=5), "base": 2},
}
"""Of obstore itself, for each part of an upload."""

READ_RETRIES = {"max_retries": 0, "retry_timeout": timedelta(seconds=1)}
"""None: obstore's do not begin anew when bytes arrive, and nobody could count them or end them. `Tries` does it all."""

_ENDPOINTS = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_CLOUDS = {"s3": "AWS", "az": "AZURE", "abfs": "AZURE", "abfss": "AZURE"}
_HTTP_ALLOWED = ("AWS_ALLOW_HTTP", "GOOGLE_ALLOW_HTTP", "AZURE_ALLOW_HTTP")

_lock = threading.Lock()
_clients: dict[tuple[str, bool], Any] = {}
# kept: what obstore frees in a child, it may take away from the parent
_of_the_parent: dict[tuple[str, bool], Any] = {}
_forked_after_use = False


def _after_fork_in_child() -> None:
    global _lock, _clients, _of_the_parent, _forked_after_use
    _lock = threading.Lock()
    if _clients:
        _of_the_parent, _clients, _forked_after_use = _clients, {}, True


os.register_at_fork(after_in_child=_after_fork_in_child)


def refuse_after_fork(url: str) -> None:
    """Raises StreamError in a process that was forked after its parent had used an object store."""
    if _forked_after_use:
        raise StreamError(
            f"{url}: this process was forked after its parent had used an object store, whose client does not outlive "
            'a fork. Start worker processes with multiprocessing_context="forkserver" or "spawn".'
        )


def in_use() -> bool:
    """True once this process has used an object store: it must not fork any more."""
    return bool(_clients)


def client_of(url: str, *, for_writing: bool = False) -> Any:
    """obstore's client for a folder; one in each process, however many sets are opened.

    Args:
        url: s3://, gs://, az://, abfss://, http(s)://, or for tests file:// and memory://.
        for_writing: obstore tries failed requests again; else that is left to the caller.

    Raises:
        UsageError: obstore does not understand the URL or what the environment says.
        StreamError: in a forked child.
    """
    refuse_after_fork(without_secrets(url))
    for_writing = for_writing and not url.startswith("memory:")  # of which each client has its own
    key = (url, for_writing)
    with _lock:
        if key not in _clients:
            _clients[key] = _connect(url, WRITE_RETRIES if for_writing else READ_RETRIES)
        return _clients[key]


def _connect(url: str, retries: dict[str, Any]) -> Any:
    import obstore.exceptions
    from obstore import store

    scheme = urlsplit(url).scheme.lower()
    config = profile_settings() if scheme == "s3" else {}
    options: dict[str, Any] = {"client_options": _client_options(url, config), "retry_config": retries}
    try:
        if scheme in ("http", "https"):  # whoever the host is: from_url would sign requests to some of them
            return store.HTTPStore.from_url(url, **options)
        if scheme in ("file", "memory"):
            return store.from_url(url)
        return store.from_url(url, config=config, **options)  # type: ignore[call-overload]
    except (obstore.exceptions.BaseError, ValueError) as error:
        raise UsageError(f"{without_secrets(url)}: no store can be reached by it ({reason_of(error)}).") from None


def _client_options(url: str, config: Mapping[str, str]) -> dict[str, Any]:
    """Unencrypted connections only to this machine, where the URL says http, or where the environment allows them.

    Raises:
        UsageError: the endpoint of such a store is plain http, and that is not allowed.
    """
    endpoints = [value for name, value in config.items() if name.endswith("endpoint")]
    endpoints += [os.environ[name] for name in _ENDPOINTS if name in os.environ]
    allowed = (
        url.lower().startswith("http://")
        or any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in _HTTP_ALLOWED)
        or any(is_loopback(endpoint) for endpoint in endpoints)
    )
    if allowed:
        return {**CLIENT_OPTIONS, "allow_http": True}
    cloud = _CLOUDS.get(urlsplit(url).scheme.lower())
    of_cloud = {name: os.environ[name] for name in _ENDPOINTS if name.split("_")[0] == cloud and name in os.environ}
    for name, endpoint in {**of_cloud, **config}.items():
        if endpoint.lower().startswith("http://"):  # obstore would say "builder error", after all tries
            raise UsageError(
                f"{without_secrets(url)}: {name} is {without_secrets(endpoint)}, which is not encrypted. Set "
                f"{cloud}_ALLOW_HTTP=true to talk to it all the same, or give https."
            )
    return dict(CLIENT_OPTIONS)


def is_loopback(url: str) -> bool:
    """True of the URL of a server on this machine."""
    host = urlsplit(url).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")


def without_secrets(text: str) -> str:
    """The text with no user and password in its URLs (a container before an Azure account stays), and no query."""
    text = re.sub(r"(https?://)[^/@\s]*@", r"\1", text)
    text = re.sub(r"(://[^/@:\s]*):[^/@\s]*@", r"\1@", text)
    return re.sub(r"\?[^\s)\"']*", "", text)


def status_of(error: BaseException) -> int | None:
    """The server's status code, if it answered with one that is an error."""
    found = re.search(r"status code: (\d{3})", str(error))
    return int(found[1]) if found else None


def reason_of(error: BaseException) -> str:
    """An error of obstore in a few words: the server's answer, or what the network said."""
    text = str(error)
    status = re.search(r"status code: (\d{3}(?: [A-Z][A-Za-z-]*)*)", text)
    if status:
        code = re.search(r"<Code>(\w+)</Code>", text)
        return f"{status[1]}, {code[1]}" if code else status[1]
    first = text.partition("\n")[0]
    detail = re.search(r'message: "([^"]*)"', text)
    said = detail[1] if detail else "timed out" if "TimedOut" in text else ""
    words = " ".join(without_secrets(first.rpartition(" - ")[2]).split())[:200]
    return f"{words}: {said}" if said else words
