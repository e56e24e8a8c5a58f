"""What can go wrong between a reader and an object store, and which request it happens to.

A fault is a small value; `proxy.py` carries it out. Who gets which fault is a function from `Request` to `Fault` or
None: `by_list` deals a list out, `by_chance` draws from (seed, number of the request), and any other function will do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from fnmatch import fnmatchcase

from s3prl_stream.errors import UsageError


@dataclass(frozen=True)
class Request:
    """What is known of a request before it is answered."""

    number: int
    """Requests that the proxy got before this one, whatever their path."""
    method: str
    path: str
    """As the client spelt it, percent signs included, without the query."""
    range: str | None
    """Value of the Range header, such as "bytes=0-99"."""


@dataclass(frozen=True)
class Fault:
    """Base of all faults. `kind` is the word for it in a fault spec and in the log."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int | float) and not value >= 0:  # written so that NaN is refused too
                raise UsageError(f"fault {self.kind}: {field.name} is 0 or more, not {value}")

    @property
    def kind(self) -> str:
        raise NotImplementedError


@dataclass(frozen=True)
class Unavailable(Fault):
    """An error status with S3's `SlowDown` body; the server is not asked. Several in a row make a burst."""

    status: int = 503
    retry_after_seconds: int | None = None
    """Value of a Retry-After header; None: no such header."""

    def __post_init__(self) -> None:
        if not 400 <= self.status <= 599:
            raise UsageError(f"fault {self.status}: an error status is 400 to 599")
        super().__post_init__()

    @property
    def kind(self) -> str:
        return str(self.status)


@dataclass(frozen=True)
class Cut(Fault):
    """The connection ends inside the body.

    A body that is not longer than `after_bytes` loses its last byte. An answer without a body (to HEAD or PUT) is not
    sent at all, although the server has carried the request out.
    """

    after_bytes: int | None = None
    """Bytes of the body that are sent; None: drawn."""
    reset: bool = False
    """False: an orderly end (FIN), which a client notices by Content-Length only. True: a reset (RST)."""

    @property
    def kind(self) -> str:
        return "reset" if self.reset else "cut"


@dataclass(frozen=True)
class Stall(Fault):
    """Nothing is sent for a while; then the answer goes on as if nothing had been.

    A client whose idle timeout is shorter has hung up by then. An answer without a body stalls before its headers.
    """

    seconds: float = 30.0
    after_bytes: int | None = None
    """Bytes of the body before the pause; None: drawn."""
    before_headers: bool = False
    """The pause comes before the status line, when the server has answered already."""

    @property
    def kind(self) -> str:
        return "hang" if self.before_headers else "stall"


@dataclass(frozen=True)
class Short(Fault):
    """Fewer bytes than asked for.

    `honest=False`: Content-Length stays, the last bytes are missing and the connection ends (FIN).
    `honest=True`: Content-Length and Content-Range tell of the fewer bytes, as HTTP allows, and the connection stays;
    only a client that compares with what it asked for will notice. Objects alone, and at least one byte is left.
    """

    missing_bytes: int | None = None
    """Bytes missing at the end, 1 or more; None: drawn."""
    honest: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.missing_bytes == 0:
            raise UsageError("fault short: missing_bytes is 1 or more")

    @property
    def kind(self) -> str:
        return "fewer" if self.honest else "short"


@dataclass(frozen=True)
class WholeObject(Fault):
    """A ranged request is answered by 200 and the whole object, as servers without ranges do.

    The Range header is taken off before the server sees it. Where the client signs that header, as S3's clients do, the
    server refuses the request, and that 403 is what the client gets: use plain http.
    """

    kind = "full200"


@dataclass(frozen=True)
class ChangedEtag(Fault):
    """Another ETag than the object's, as after an overwrite; the bytes are the old ones."""

    etag: str = '"00000000000000000000000000000000"'

    kind = "etag"


@dataclass(frozen=True)
class FlippedByte(Fault):
    """All bits of one byte of an object are flipped in transit; every header stays. Objects alone."""

    object_offset: int | None = None
    """Counted from the object's first byte, whatever the range; an answer that does not hold it passes whole. None:
    drawn inside the answer."""

    kind = "flip"


@dataclass(frozen=True)
class Slow(Fault):
    """The body trickles at an even rate, so that idle timeouts do not see it."""

    bytes_per_second: int = 64 * 1024

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.bytes_per_second < 1:
            raise UsageError(f"fault slow: bytes_per_second is 1 or more, not {self.bytes_per_second}")

    kind = "slow"


Chooser = Callable[[Request], Fault | None]
"""Which fault a request gets. It is asked once for each request, in the order of their numbers."""


def by_list(faults: Iterable[Fault | None]) -> Chooser:
    """The next of `faults` for each request; None, and all requests after the end, pass.

    The list may be endless: `itertools.repeat(FlippedByte(1000))`.
    """
    rest = iter(faults)
    return lambda _request: next(rest, None)


@dataclass(frozen=True)
class Chance:
    """A fault that happens now and then."""

    fault: Fault
    probability: float
    """That it begins at a request, 0 to 1."""
    paths: str = "*"
    """Glob over the request's path: only those get it. `*` crosses slashes."""
    burst: int = 1
    """Requests in a row, counted over all paths, that get it once it has begun."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.probability <= 1.0:
            raise UsageError(f"fault {self.fault.kind}: a probability is 0 to 1, not {self.probability}")
        if self.burst < 1:
            raise UsageError(f"fault {self.fault.kind}: burst is 1 or more, not {self.burst}")

    def strikes(self, request: Request, seed: int) -> bool:
        """A pure function of (seed, number, kind, paths): the other chances do not matter."""
        if not fnmatchcase(request.path, self.paths):
            return False
        begins = range(max(request.number - self.burst + 1, 0), request.number + 1)
        name = f"{self.fault.kind}@{self.paths}"
        return any(draw(seed, number, name) < self.probability for number in begins)


def by_chance(chances: Sequence[Chance], *, seed: int = 0) -> Chooser:
    """The first of `chances` that strikes; each is drawn by itself from (seed, number of the request)."""

    def choose(request: Request) -> Fault | None:
        return next((one.fault for one in chances if one.strikes(request, seed)), None)

    return choose


def draw(seed: int, number: int, name: str) -> float:
    """Uniform in [0, 1): a pure function of its arguments, the same on every machine."""
    digest = hashlib.blake2b(f"{seed}/{number}/{name}".encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "little") >> 11) / 2**53


KINDS: dict[str, Fault] = {
    **{str(status): Unavailable(status) for status in (429, 500, 502, 503, 504)},
    "cut": Cut(),
    "reset": Cut(reset=True),
    "stall": Stall(),
    "hang": Stall(before_headers=True),
    "short": Short(),
    "fewer": Short(honest=True),
    "full200": WholeObject(),
    "etag": ChangedEtag(),
    "flip": FlippedByte(),
    "slow": Slow(),
}
"""Word in a fault spec -> the fault, with its usual numbers."""


def parse_chances(spec: str) -> list[Chance]:
    """Read a fault spec such as "503:0.05:burst=3,cut@*.tar:0.05,stall:0.02:seconds=5".

    A comma between faults; each is KIND[@GLOB]:PROBABILITY[:NAME=NUMBER ...], where a name is `burst` or a number of
    the fault's class (`after_bytes`, `seconds`, `missing_bytes`, `object_offset`, `bytes_per_second`,
    `retry_after_seconds`).

    Raises:
        UsageError: the spec has another form; the message says what was found and what is possible.
    """
    return [_parse_chance(part.strip()) for part in spec.split(",") if part.strip()]


def _parse_chance(part: str) -> Chance:
    head, *rest = part.split(":")
    kind, _, paths = head.partition("@")
    if kind not in KINDS:
        raise UsageError(f"fault {part!r}: {kind!r} is no kind of fault. Known: {', '.join(KINDS)}")
    if not rest:
        raise UsageError(f"fault {part!r}: has no probability. Write {head}:0.05")
    try:
        probability = float(rest[0])
    except ValueError:
        raise UsageError(f"fault {part!r}: {rest[0]!r} is no probability. Write {head}:0.05") from None
    numbers = dict(_parse_number(part, KINDS[kind], setting) for setting in rest[1:])
    burst = int(numbers.pop("burst", 1))
    return Chance(replace(KINDS[kind], **numbers), probability, paths or "*", burst)


def _parse_number(part: str, fault: Fault, setting: str) -> tuple[str, int | float]:
    numeric: dict[str, type[int] | type[float]] = {"burst": int}
    for field in fields(fault):
        if "bool" not in str(field.type) and "str" not in str(field.type) and field.name != "status":
            numeric[field.name] = float if "float" in str(field.type) else int
    name, _, text = setting.partition("=")
    if name not in numeric:
        raise UsageError(f"fault {part!r}: {name!r} is no number of this fault. Known: {', '.join(numeric)}")
    try:
        return name, numeric[name](text)
    except ValueError:
        raise UsageError(f"fault {part!r}: {setting!r} does not give a number. Write {name}=3") from None
