"""What a proxy has seen: an exchange for each request, what was counted over them, and their lines in a file."""

from __future__ import annotations

import json
from collections import Counter, deque
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TextIO
from urllib.parse import parse_qsl

from s3prl_stream.chaos.faults import Request
from s3prl_stream.errors import UsageError

KEPT_EXCHANGES = 100_000


@dataclass
class Exchange:
    """One request and what became of it; a line of the log."""

    number: int
    method: str
    path: str
    query: str
    """Names of the query's parameters; their values may be signatures."""
    range: str | None
    status: int | None = None
    """Status that was sent; None: the connection ended before one was."""
    bytes_sent: int = 0
    """Bytes of the body handed to the client's connection."""
    fault: str | None = None
    """Kind of the fault that was carried out; None also where the chosen one found nothing to break."""
    at: int | None = None
    """Where: a byte of the body (cut, reset, stall, short, fewer) or of the object (flip)."""
    error: str | None = None
    """What went wrong between proxy and server; nobody asked for that."""


class Log:
    """The exchanges of one proxy.

    Args:
        path: of a file that gets one JSON line an exchange, appended; None: there is none.
    """

    def __init__(self, path: str | Path | None) -> None:
        self._path = None if path is None else Path(path)
        self._file: TextIO | None = None
        self.num_requests = 0
        self.exchanges: deque[Exchange] = deque(maxlen=KEPT_EXCHANGES)
        self.bytes_by_path: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()

    def open(self) -> None:
        """Raises UsageError where the file cannot be written."""
        if self._path is not None:
            try:
                self._file = self._path.open("a", encoding="utf-8", buffering=1)
            except OSError as error:
                raise UsageError(f"cannot write the log {self._path}: {error.strerror}") from error

    def close(self) -> None:
        """Of the file, if there is one."""
        if self._file is not None:
            self._file.close()

    def begin(self, request: Request, query: str) -> Exchange:
        """A request has come."""
        names = " ".join(name for name, _ in parse_qsl(query, keep_blank_values=True))
        exchange = Exchange(request.number, request.method, request.path, names, request.range)
        self.num_requests += 1
        self.exchanges.append(exchange)
        return exchange

    def count(self, exchange: Exchange, num_bytes: int) -> None:
        """Before the bytes leave: who has received an answer finds it counted."""
        exchange.bytes_sent += num_bytes
        self.bytes_by_path[exchange.path] += num_bytes

    def end(self, exchange: Exchange) -> None:
        """It is over, in whatever way."""
        if exchange.fault is not None:
            self.faults[exchange.fault] += 1
        if self._file is not None:
            self._file.write(json.dumps(asdict(exchange)) + "\n")
