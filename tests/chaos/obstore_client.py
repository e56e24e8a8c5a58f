"""Work done with obstore in a process of its own: one that has used it must not fork, and pytest's process does.

with obstore_process() as client:
    client(put, environment, "test", "name", b"content")
"""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from typing import Any


@contextmanager
def obstore_process(*, seconds: float = 240) -> Iterator[Callable[..., Any]]:
    """A function that runs another one of this module, with its arguments, in a spawned process.

    Args:
        seconds: that a call may take.
    """
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        yield lambda function, *arguments, **settings: pool.submit(function, *arguments, **settings).result(seconds)


def put(environment: dict[str, str], bucket: str, name: str, content: bytes, **settings: Any) -> str | None:
    """Write an object; its ETag."""
    import obstore

    return obstore.put(_store(environment, bucket, **settings), name, content)["e_tag"]


def get(environment: dict[str, str], bucket: str, name: str, **settings: Any) -> bytes:
    """Read an object."""
    import obstore

    return bytes(obstore.get(_store(environment, bucket, **settings), name).bytes())


def get_range(
    environment: dict[str, str], bucket: str, name: str, start: int, length: int, **settings: Any
) -> bytes | str:
    """Read a part of an object; the first line of the error where there is one."""
    import obstore

    try:
        return bytes(obstore.get_range(_store(environment, bucket, **settings), name, start=start, length=length))
    except Exception as error:
        return str(error).splitlines()[0]


def put_and_get_url(environment: dict[str, str], url: str, name: str, content: bytes) -> bytes:
    """Write an object below a URL such as az://container, and read it again."""
    import obstore

    os.environ.update(environment)
    store = obstore.store.from_url(url)
    obstore.put(store, name, content)
    return bytes(obstore.get(store, name).bytes())


def get_url(url: str, name: str, start: int, length: int) -> bytes | str:
    """Read a part of a file below an http:// address; the first line of the error where there is one."""
    import obstore

    store = obstore.store.from_url(url, client_options={"allow_http": True})
    try:
        return bytes(obstore.get_range(store, name, start=start, length=length))
    except Exception as error:
        return str(error).splitlines()[0]


def _store(
    environment: dict[str, str], bucket: str, *, max_retries: int = 10, read_timeout_seconds: float = 10.0
) -> Any:
    from obstore.store import S3Store

    os.environ.update(environment)
    return S3Store(
        bucket,
        client_options={"allow_http": True, "read_timeout": timedelta(seconds=read_timeout_seconds)},
        retry_config={"max_retries": max_retries, "retry_timeout": timedelta(seconds=60)},
    )
