"""Who packs what: a file for each shard that somebody is packing, and for each of them a sign of life.

Several packs may work into one folder or bucket. A claim is a file that only one of them can create. Its owner's sign
of life is a file that grows by one byte with every beat, so nobody compares clocks: an owner whose file does not grow
for as long as a lease lasts, by the watch of whoever waits for it, is dead, and his claims are free. On the same
machine the system is asked, and a killed pack is known at once.

Claims save work and decide nothing: a shard's bytes follow from the plan, and what is finished is not replaced. A pack
that was only asleep and goes on when its claim was given away wastes its time, and no more.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import secrets
import socket
import threading
import time
from pathlib import Path

from s3prl_stream.errors import MissingFile, StreamError
from s3prl_stream.shards.layout import WORK_FOLDER
from s3prl_stream.stores.store import open_store

BEAT_SECONDS = 5.0
LEASE_SECONDS = 60.0
POLL_SECONDS = 0.3
"""Between two looks at what others do."""

_log = logging.getLogger(__name__)

_MAX_BYTES = 1 << 20
_MOMENT_SECONDS = 0.2
_WAITS_BEFORE_TOLD = 10
_OWNER = re.compile(r"(?P<host>[^.]+)\.(?P<boot>[^.]*)\.(?P<pids>[^.]*)\.(?P<pid>\d+)\.[0-9a-f]+")


def new_owner() -> str:
    """A name for this process that no other has: machine, boot, name space of process numbers, process, a token."""
    return ".".join([*_here(), str(os.getpid()), secrets.token_hex(4)])


def is_known_dead(owner: str) -> bool:
    """True if it was a process of this machine, and is no more."""
    match = _OWNER.fullmatch(owner)
    if match is None or (match["host"], match["boot"], match["pids"]) != _here():
        return False
    try:
        os.kill(int(match["pid"]), 0)
    except OSError as error:
        return isinstance(error, ProcessLookupError)  # else it is somebody else's
    return False


def process_of(owner: str) -> str:
    """An owner, for a message."""
    match = _OWNER.fullmatch(owner)
    return owner if match is None else f"process {match['pid']} of {match['host']}"


class Claims:
    """The claims of one pack; while it is entered, a thread shows that it is alive.

    Args:
        url: of the set.
        owner: from `new_owner`.
        folder: of the set, in which claims and signs of life lie.
    """

    def __init__(self, url: str | Path, owner: str, folder: str = WORK_FOLDER) -> None:
        self._url, self._owner = url, owner
        self._claims, self._alive = f"{folder}/claims", f"{folder}/alive"
        self._mine: set[str] = set()
        self._beats = self._waits = 0
        self._seen: dict[str, tuple[int, float]] = {}
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat_on, name="pack-alive", daemon=True)

    def __enter__(self) -> Claims:
        self._beat()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        with contextlib.suppress(StreamError, OSError):  # it may be what has failed
            for what in list(self._mine):
                self.give_back(what)
            open_store(self._url).delete(f"{self._alive}/{self._owner}")

    def take(self, what: str) -> bool:
        """Claim it, if nobody has; True if it is ours."""
        store = open_store(self._url)  # a new one: stores hold files to what they were
        is_ours = store.create(f"{self._claims}/{what}", self._owner.encode()) or self._owner_of(what) == self._owner
        if is_ours:
            self._mine.add(what)
        return is_ours

    def take_from_the_dead(self, what: str) -> str | None:
        """Claim it, if need be when its owner is known to be dead, or has shown no life for as long as a lease.

        Returns:
            None: it is ours; else the owner, who has shown that he lives.
        """
        first_seen: dict[str, tuple[int, float]] = {}
        while True:
            others = self.of_others()  # looked at first: a store may have no request that only one of several gets
            if what not in others and self.take(what):
                return None
            owner = self._owner_of(what)
            if owner in self._seen and first_seen.setdefault(owner, self._seen[owner]) != self._seen[owner]:
                return owner
            self.wait()

    def wait(self) -> None:
        """Between two looks at what others do; after some seconds in all it is told once who they are."""
        time.sleep(POLL_SECONDS)
        self._waits += 1
        if self._waits == _WAITS_BEFORE_TOLD:
            others = sorted(map(process_of, self._living() - {self._owner}))
            _log.warning(
                "%s: waiting for %s; who shows no sign of life is given up after %g s",
                *(open_store(self._url).url, ", ".join(others[:3]) or "others", LEASE_SECONDS),
            )

    def give_back(self, what: str) -> None:
        """It is done, or somebody else may do it; that of one who slept may be another's by now."""
        self._mine.discard(what)
        self._delete_if_of(self._owner, what)

    def of_others(self) -> set[str]:
        """What other packs that are alive have claimed; the claims of dead ones are removed."""
        owner_of = {}
        for name, _ in open_store(self._url).list(f"{self._claims}/"):
            what = name.rpartition("/")[2]
            owner = self._owner_of(what)
            if owner is not None and owner != self._owner:
                owner_of[what] = owner
        alive = self._living()  # after the claims: who has one has shown life before
        for what, owner in owner_of.items():
            if owner not in alive:
                self._delete_if_of(owner, what)
        return {what for what, owner in owner_of.items() if owner in alive}

    def _delete_if_of(self, owner: str, what: str) -> None:
        if self._owner_of(what) == owner:
            open_store(self._url).delete(f"{self._claims}/{what}")

    def is_alone(self) -> bool:
        """No other pack is alive."""
        return not self._living() - {self._owner}

    def _living(self) -> set[str]:
        now, alive = time.monotonic(), set()
        store = open_store(self._url)
        for name, size in store.list(f"{self._alive}/"):
            owner = name.rpartition("/")[2]
            last_size, since = self._seen.get(owner, (-1, now))
            if size != last_size:
                self._seen[owner] = (size, now)
                since = now
            if owner != self._owner and (is_known_dead(owner) or now - since > LEASE_SECONDS):
                store.delete(name)
            else:
                alive.add(owner)
        return alive

    def _owner_of(self, what: str) -> str | None:
        with contextlib.suppress(MissingFile):
            owner = self._read(what)
            if not owner:  # a disk shows a claim that is being made without him, and a kill there leaves it so
                time.sleep(_MOMENT_SECONDS)
                owner = self._read(what)
            return owner
        return None

    def _read(self, what: str) -> str:
        return open_store(self._url).read_whole(f"{self._claims}/{what}", at_most=_MAX_BYTES).decode("utf-8", "replace")

    def _beat_on(self) -> None:
        while not self._ended.wait(BEAT_SECONDS):
            with contextlib.suppress(StreamError, OSError):  # the next one may get through
                self._beat()

    def _beat(self) -> None:
        self._beats += 1
        open_store(self._url).write(f"{self._alive}/{self._owner}", bytes(self._beats % 4096 + 1))


def _here() -> tuple[str, str, str]:
    """Machine, boot, and name space of processes: containers of one machine may have the same numbers for others."""
    boot = names = ""
    with contextlib.suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip().replace(".", "-")
        names = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    return re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname()) or "host", boot, names
